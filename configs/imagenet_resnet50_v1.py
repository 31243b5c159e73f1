"""ResNet-50 on ImageNet by torchvision's first recipe: 90 epochs, a rate by steps.

    python main.py --config=imagenet_resnet50_v1 --data_dir=~/tensorflow_datasets

Published: top-1 76.130 % (torchvision's IMAGENET1K_V1), on 8 GPUs of 32 images. The
rate of each epoch and the losses of 20 steps equal those of torchvision's code
(`tests/test_recipes.py`); the whole run was not made here.

Windows of training are cut out of what is stored, the middle square of an image, where
the source cuts them out of the whole one.

Source: https://github.com/pytorch/vision/tree/main/references/classification
"""

options = {
    "dataset": "tfds:imagenet2012",
    "test_split": "validation",
    "image_size": 224,
    "storage_size": 256,
    "eval_image_size": 224,
    "eval_resize_size": 256,
    "mean": (0.485, 0.456, 0.406),
    "std": (0.229, 0.224, 0.225),
    "random_resized_crop_min_area": 0.08,
    "flip_probability": 0.5,
    "model": "resnet50",
    "bn_variance": "unbiased",
    "epochs": 90,
    "batch_size": 256,
    "learning_rate": 0.1,
    "nesterov": False,
    "schedule": "step",
    "step_every_epochs": 30.0,
    "weight_decay": 1e-4,
}

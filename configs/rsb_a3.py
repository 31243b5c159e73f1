"""ResNet-50 on ImageNet by ResNet strikes back's recipe A3: 100 epochs at 160 pixels.

    python main.py --config=rsb_a3 --data_dir=~/tensorflow_datasets

Published: top-1 78.1 %. The rate of each epoch and the losses of 20 steps equal those
of timm's code (`tests/test_recipes.py`); the whole run was not made here.

Windows of training are cut out of the middle square of an image, where the source cuts
them out of the whole one. RandAugment copies pixels where it interpolates, and what
comes in from outside is middle grey where it is the mean colour.

Source: Wightman et al. 2021, table 2, https://arxiv.org/abs/2110.00476; rates at both
ends and the threshold of BCE are those of timm's published arguments
"""

options = {
    "dataset": "tfds:imagenet2012",
    "test_split": "validation",
    "image_size": 160,
    "storage_size": 256,
    "eval_image_size": 224,
    "eval_resize_size": 235,
    "resize_interpolation": "bicubic",
    "mean": (0.485, 0.456, 0.406),
    "std": (0.229, 0.224, 0.225),
    "random_resized_crop_min_area": 0.08,
    "flip_probability": 0.5,
    "policy": "randaugment_increasing",
    "policy_magnitude": 6.0,
    "policy_magnitude_std": 0.5,
    "mixup_alpha": 0.1,
    "cutmix_alpha": 1.0,
    "model": "resnet50",
    "bn_variance": "unbiased",
    "loss": "bce",
    "bce_threshold": 0.2,
    "epochs": 100,
    "batch_size": 2048,
    "optimizer": "lamb",
    "learning_rate": 0.008,
    "epsilon": 1e-6,
    "clip_norm": 1.0,
    "rate_every": "epoch",
    "warmup_epochs": 5.0,
    "warmup_kind": "instead",
    "warmup_start_factor": 1e-4 / 0.008,
    "final_rate_factor": 1e-6 / 0.008,
    "weight_decay": 0.02,
    "decay_norms": False,
}

"""ConvNeXt-T on ImageNet, as its authors trained it: 300 epochs at 224 pixels.

    python main.py --config=imagenet_convnext_tiny --data_dir=~/tensorflow_datasets

Published: top-1 82.1 %, on 32 GPUs of 128 images. The rates equal those of the authors'
schedule (`tests/test_schedules.py`); the whole run was not made here.

Windows of training are cut out of the middle square of an image, where the source cuts
them out of the whole one. RandAugment copies pixels where it interpolates, and what
comes in from outside is middle grey where it is the mean colour.

Source: Liu et al. 2022, table 5, https://arxiv.org/abs/2201.03545, and
https://github.com/facebookresearch/ConvNeXt/blob/main/TRAINING.md
"""

options = {
    "dataset": "tfds:imagenet2012",
    "test_split": "validation",
    "image_size": 224,
    "storage_size": 288,
    "eval_image_size": 224,
    "eval_resize_size": 256,
    "resize_interpolation": "bicubic",
    "mean": (0.485, 0.456, 0.406),
    "std": (0.229, 0.224, 0.225),
    "random_resized_crop_min_area": 0.08,
    "flip_probability": 0.5,
    "policy": "randaugment_increasing",
    "policy_magnitude": 9.0,
    "policy_magnitude_std": 0.5,
    "erasing_probability": 0.25,
    "erasing_mode": "noise",
    "mixup_alpha": 0.8,
    "cutmix_alpha": 1.0,
    "label_smoothing": 0.1,
    "model": "convnext_tiny",
    "stochastic_depth_rate": 0.1,
    "epochs": 300,
    "batch_size": 4096,
    "optimizer": "adamw",
    "learning_rate": 0.004,
    "warmup_epochs": 20.0,
    "warmup_kind": "before",
    "final_rate_factor": 1e-6 / 0.004,
    "weight_decay": 0.05,
    "decay_norms": False,
    "ema_decay": 0.9999,
    "ema_warmup": "none",
}

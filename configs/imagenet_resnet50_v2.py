"""ResNet-50 on ImageNet by torchvision's second recipe: 600 epochs at 176 pixels.

    python main.py --config=imagenet_resnet50_v2 --data_dir=~/tensorflow_datasets

Published: top-1 80.858 % (torchvision's IMAGENET1K_V2), on 8 GPUs of 128 images. The
rate of each epoch, the decays of the averaged weights and the losses of 20 steps equal
those of torchvision's code (`tests/test_recipes.py`); the whole run was not made here.

Weights are averaged every 32 steps with the decay 1 - (1 - 0.99998) · 1024 · 32 / 600.
Windows are cut out of the middle square of an image; the head's bias is not decayed,
where the source spares normalisation alone.

Source: https://github.com/pytorch/vision/tree/main/references/classification and
https://pytorch.org/blog/how-to-train-state-of-the-art-models-using-torchvision-latest-primitives/
"""  # noqa: E501

from configs import imagenet_resnet50_v1

options = {
    name: value
    for name, value in imagenet_resnet50_v1.options.items()
    if name != "step_every_epochs"
} | {
    "image_size": 176,
    "eval_resize_size": 232,
    "repeats_in_batch": 4,
    "policy": "trivialaugment",
    "erasing_probability": 0.1,
    "label_smoothing": 0.1,
    "mixup_alpha": 0.2,
    "cutmix_alpha": 1.0,
    "epochs": 600,
    "batch_size": 1024,
    "learning_rate": 0.5,
    "schedule": "cosine",
    "rate_every": "epoch",
    "warmup_epochs": 5.0,
    "warmup_kind": "before",
    "warmup_start_factor": 0.01,
    "weight_decay": 2e-5,
    "decay_norms": False,
    "ema_decay": 1 - (1 - 0.99998) * 1024 * 32 / 600,
    "ema_every_steps": 32,
    "ema_start_epochs": 5.0,
    "ema_warmup": "none",
}

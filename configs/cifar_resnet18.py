"""ResNet-18 with the stem for small images on CIFAR-10: 350 epochs.

    python main.py --config=cifar_resnet18 --data_dir=~/tensorflow_datasets

Published: test accuracy 93.02 %, one run. The whole run was not made here. This network
by another, shorter recipe, the preset cifar10_resnet20 at the rate 0.05, reaches 42.50
and 43.00 % in three epochs of 2,500 images of tfds:cifar10_jpeg (seeds 0 and 1, 1,000
test images, CPU), in PyTorch 44.60 and 43.00 % (`benchmarks/recipe.py --examples=2500
--test_examples=1000`).

Source: https://github.com/kuangliu/pytorch-cifar
"""

options = {
    "dataset": "tfds:cifar10",
    "mean": (0.4914, 0.4822, 0.4465),
    "std": (0.2023, 0.1994, 0.2010),
    "flip_probability": 0.5,
    "crop_padding": 4,
    "model": "resnet18",
    "stem": "cifar",
    "epochs": 350,
    "batch_size": 128,
    "learning_rate": 0.1,
    "nesterov": False,
    "schedule": "step",
    "milestones": (150.0, 250.0),
    "milestone_factor": 0.1,
    "weight_decay": 5e-4,
}

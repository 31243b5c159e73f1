"""Wide ResNet 28-10 on CIFAR-10, as its authors trained it: 200 epochs.

    python main.py --config=cifar_wrn_28_10 --data_dir=~/tensorflow_datasets

Published: test error 4.00 %, the median of five runs. The whole run was not made here.
The authors' code also forgets the momentum wherever the rate falls.

Source: https://github.com/szagoruyko/wide-residual-networks and
https://arxiv.org/abs/1605.07146
"""

options = {
    "dataset": "tfds:cifar10",
    "mean": (0.491373, 0.482353, 0.446667),
    "std": (0.247059, 0.243529, 0.261569),
    "flip_probability": 0.5,
    "crop_padding": 4,
    "crop_mode": "reflect",
    "model": "wrn_28_10",
    "epochs": 200,
    "batch_size": 128,
    "learning_rate": 0.1,
    "schedule": "step",
    "milestones": (60.0, 120.0, 160.0),
    "milestone_factor": 0.2,
    "weight_decay": 5e-4,
}

"""Wide ResNet 16-8 with dropout on SVHN, as its authors trained it: 160 epochs.

    python main.py --config=svhn_wrn_16_8 --data_dir=~/tensorflow_datasets

Published: test error 1.54 %, one run, on the 604,388 images of train and extra. The
whole run was not made here.

Source: https://github.com/szagoruyko/wide-residual-networks and
https://arxiv.org/abs/1605.07146
"""

options = {
    "dataset": "tfds:svhn_cropped",
    "train_split": "train+extra",
    "scaling": "unit",
    "model": "wrn_16_8",
    "dropout_rate": 0.4,
    "epochs": 160,
    "batch_size": 128,
    "learning_rate": 0.01,
    "schedule": "step",
    "milestones": (80.0, 120.0),
    "milestone_factor": 0.1,
    "weight_decay": 5e-4,
}

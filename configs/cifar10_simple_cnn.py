"""The lecture's CNN on CIFAR-10: a start for small experiments.

python main.py --config=cifar10_simple_cnn --data_dir=~/tensorflow_datasets
"""

options = {
    "dataset": "tfds:cifar10",
    "model": "simple_cnn",
    "widths": (32, 64, 128),
    "epochs": 20,
    "batch_size": 128,
    "learning_rate": 0.1,
    "warmup_epochs": 1.0,
    "weight_decay": 5e-4,
}

"""Handwritten digits, 8x8 grey: the embedded default.

    python main.py

Test accuracy 99.72 ± 0.20 % (n = 5 seeds, 360 images); 9 s from a cold start, 5 s with
compiled programs in the cache, on 2 CPU cores.
"""

options = {
    "dataset": "digits",
    "validation_fraction": 0.1,
    "model": "simple_cnn",
    "widths": (32, 64, 64),
    "downsampling": "avg_pool",
    "head": "flatten",
    "epochs": 20,
    "batch_size": 32,
    "learning_rate": 0.05,
    "weight_decay": 0.005,
}

"""Handwritten digits, 8x8 grey: the embedded default.

    python main.py

Test accuracy 99.72 ± 0.20 % (n = 5 seeds, 360 images); 6.6 s the first time, 5.1 s with
compiled programs in the cache (n = 3), on 2 cores of an AMD EPYC.
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

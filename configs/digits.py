"""Handwritten digits, 8x8 grey: the embedded default.

python main.py
"""

options = {
    "dataset": "digits",
    "model": "simple_cnn",
    "validation_fraction": 0.1,
    "epochs": 20,
    "batch_size": 32,
    "learning_rate": 0.05,
    "weight_decay": 5e-4,
    "dropout_rate": 0.3,
    "label_smoothing": 0.1,
}

"""ResNet-20 on CIFAR-10, ten epochs: a short recipe for comparisons.

    python main.py --config=cifar10_resnet20 --data_dir=~/tensorflow_datasets

With `--dataset=tfds:cifar10_jpeg`, whose images are lossy, the test accuracy is 83.23 %
and 83.15 % (`--seed=0` and 1); PyTorch with this recipe reaches 83.57 and 83.70 %. It
takes 35 minutes at 239 images/s on one core of a Xeon with AVX-512; training steps on
2 cores of an AMD EPYC with AVX-512 take 1,114 images/s (docs/performance.md).
"""

options = {
    "dataset": "tfds:cifar10",
    "mean": (0.491373, 0.482353, 0.446667),
    "std": (0.247059, 0.243529, 0.261569),
    "flip_probability": 0.5,
    "crop_padding": 4,
    "crop_mode": "reflect",
    "model": "resnet20",
    "epochs": 10,
    "batch_size": 128,
    "learning_rate": 0.1,
    "warmup_epochs": 1.0,
    "weight_decay": 5e-4,
}

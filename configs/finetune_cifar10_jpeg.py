"""A published CIFAR-10 ResNet-20, moved to the JPEG form of its images in one epoch.

    python main.py --config=finetune_cifar10_jpeg --init_from=resnet20-12fca82f.th \\
        --data_dir=~/tensorflow_datasets

The weights are those of github.com/akamaster/pytorch_resnet_cifar10; mean and std are
what they were trained with. Batch normalisation keeps their statistics, also where its
parameters train. Add `--freeze_through=stage2` to train the last stage and the head, or
`--train_only=head` to train the head alone. `python benchmarks/finetune.py
cifar10_jpeg` measures all three: from 81.03 % before the first step to 87.30, 85.14 and
82.96 % (one seed), in 4.3, 2.0 and 1.5 minutes on one core.
"""

options = {
    "dataset": "tfds:cifar10_jpeg",
    "mean": (0.485, 0.456, 0.406),
    "std": (0.229, 0.224, 0.225),
    "flip_probability": 0.5,
    "crop_padding": 4,
    "crop_mode": "reflect",
    "model": "resnet20",
    "freeze_statistics": True,
    "epochs": 1,
    "batch_size": 128,
    "learning_rate": 0.01,
    "weight_decay": 5e-4,
}

"""Your own images, in a folder for each class, with ImageNet's ResNet-50.

    python main.py --config=finetune_folder --dataset=folder:flowers \\
        --init_from=resnet50-0676ba61.pth

`flowers/` holds a folder of images for each class, in `train/` and `test/` or without
them. The weights are torchvision's; PyTorch is not needed to read them. At first only
the new head trains, then the last stage too, then the one before it. There is no figure
here: it depends on the images.
"""

options = {
    "dataset": "folder:images",
    # As torchvision evaluates: the shorter side to 256, the middle 224. Training takes
    # random windows of what is stored, larger than what the model sees.
    "image_size": 224,
    "storage_size": 256,
    "random_resized_crop_min_area": 0.35,
    "flip_probability": 0.5,
    "validation_fraction": 0.1,
    # mean and std are left out: ImageNet's belong to ImageNet's weights.
    "model": "resnet50",
    "bn_variance": "unbiased",
    "init_from": "resnet50-0676ba61.pth",
    # The head is drawn from scratch because its classes are others (--init_reset=head).
    "train_only": ("head",),
    "unfreeze": ("stage4:2", "stage3:4"),
    # Lower layers know more that is true of all images; they need less change.
    "layer_decay": 0.9,
    "epochs": 8,
    "batch_size": 32,
    "learning_rate": 0.01,
    "weight_decay": 1e-4,
    "early_stop_epochs": 4,
}

"""Your own photos, in a folder for each class: from scratch, or from weights.

    python main.py --config=photos --dataset=folder:flowers
    python main.py --config=photos --dataset=folder:flowers \\
        --init_from=resnet18-f37072fd.pth --learning_rate=0.005

`flowers/` holds a folder of images for each class, in `train/` and `test/` or without
them. Their size is chosen by the weights, else by the files, and printed. A tenth of
the training images is set aside: training stops when it has not become better on them
for eight epochs, and the best checkpoint is kept, which evaluate, predict and export
take with `--checkpoint=best`. Where a class has more than twice as many images as
another, rare classes count more. From weights, only the head is new, and all layers
train; `--config=finetune_folder` unfreezes them stage by stage. There is no figure
here: it depends on the images.
"""

options = {
    "dataset": "folder:photos",
    "choose_sizes": "files",
    "validation_fraction": 0.1,
    "class_weights": "auto",
    "random_resized_crop_min_area": 0.25,
    "flip_probability": 0.5,
    "policy": "trivialaugment",
    "label_smoothing": 0.1,
    "model": "resnet18",
    "bn_variance": "unbiased",
    "epochs": 40,
    "early_stop_epochs": 8,
    "select_by": "balanced_accuracy",
    "batch_size": 32,
    "learning_rate": 0.02,
    "warmup_epochs": 1.0,
    "weight_decay": 5e-4,
    "decay_norms": False,
}

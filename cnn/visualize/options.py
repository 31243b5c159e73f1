"""VisualizeOptions: which pictures are drawn, and of what."""

import dataclasses

from cnn.option import option


@dataclasses.dataclass(frozen=True)
class VisualizeOptions:
    """Which pictures are drawn, and of what."""

    pictures: tuple[str, ...] = option(
        ("all",),
        "pictures to draw: all, or some of curves, mistakes, kernels, features, "
        "patches, maximisation, saliency, invariance, augmentation, demonstrations",
        changes_run=False,
    )
    output: str = option(
        "",
        "directory of pictures/ and report.html; empty: the run's own, or runs/compare "
        "for several runs",
        changes_run=False,
    )
    picture_examples: tuple[int, ...] = option(
        (),
        "positions in --split of the images to look into; empty: the first of each "
        "class, ten at most",
        within="[0, inf)",
        changes_run=False,
    )
    picture_files: str = option(
        "",
        "pattern of image files to look into instead, such as 'photos/*.jpg'",
        changes_run=False,
    )
    picture_layers: tuple[str, ...] = option(
        (),
        "stages and layers to look into, such as stage2 or stage2_conv; empty: every "
        "stage, and kernels of some layers",
        changes_run=False,
    )
    picture_classes: tuple[str, ...] = option(
        (),
        "classes whose logit saliency explains; empty: the predicted one of each image",
        changes_run=False,
    )
    picture_channels: int = option(
        8,
        "channels of each stage that are shown, evenly spread over all",
        within="[1, 64]",
        changes_run=False,
    )
    picture_sample: int = option(
        2000,
        "images of --split, evenly spread, that top patches are searched in, and "
        "channels that never fire",
        within="[1, inf)",
        changes_run=False,
    )
    invariance_images: int = option(
        500,
        "images of --split, evenly spread, that invariance is measured on, about fifty "
        "times",
        within="[1, inf)",
        changes_run=False,
    )

"""VisualizeOptions: which pictures are drawn, and of what."""

import dataclasses
from typing import ClassVar

from cnn.models.options import WIDENED
from cnn.option import free_option


@dataclasses.dataclass(frozen=True)
class VisualizeOptions:
    """Which pictures are drawn, and of what."""

    modes: ClassVar[str] = "visualize"

    pictures: tuple[str, ...] = free_option(
        ("all",),
        "pictures to draw: all that are of the run, or some of curves, mistakes, "
        "suspects (of a run with --track_examples), fine_tuning, architecture, "
        "kernels, features, patches, maximisation, saliency, invariance, augmentation; "
        "on request: playground, and those that need no run: transformations, lecture "
        "(in lecture.html). describe: architecture and coordinate_check, of the run "
        "that would be trained",
        modes="visualize describe",
    )
    output: str = free_option(
        "",
        "directory of pictures/ and report.html; empty: the run's own, or runs/compare "
        "for several runs. average: that of the new run. replay: that of its files; "
        "empty: replay/step_N in the run's. list: the file of the table; empty: it is "
        "printed",
        is_path=True,
        only_for="mode!=list or not prune",
        modes="visualize average replay list",
    )
    coordinate_widths: tuple[float, ...] = free_option(
        (1.0, 2.0, 4.0, 8.0),
        "values of --width_multiplier that coordinate_check compares",
        within="(0, 1024]",
        only_for=f"pictures=coordinate_check and {WIDENED}",
        modes="describe",
    )
    picture_examples: tuple[int, ...] = free_option(
        (),
        "positions in --split of the images to look into; empty: the first of each "
        "class, ten at most",
        within="[0, 2147483647]",
        only_for="pictures=all|features|saliency|playground and not picture_files",
    )
    picture_files: str = free_option(
        "",
        "pattern of image files to look into instead, such as 'photos/*.jpg'",
        only_for="pictures=all|features|saliency|playground",
        is_path=True,
    )
    picture_layers: tuple[str, ...] = free_option(
        (),
        "stages and layers to look into, such as stage2 or stage2_conv; empty: every "
        "stage, and kernels of some layers",
        only_for="pictures=all|kernels|features|patches|maximisation",
    )
    picture_classes: tuple[str, ...] = free_option(
        (),
        "classes whose logit saliency explains; empty: the predicted one of each image",
        only_for="pictures=all|saliency",
    )
    picture_channels: int = free_option(
        8,
        "channels of each stage that are shown, evenly spread over all",
        within="[1, 64]",
        only_for="pictures=all|features|patches|maximisation",
    )
    picture_sample: int = free_option(
        2000,
        "images of --split, evenly spread, that top patches are searched in, "
        "channels that never fire, and an image that a shift of two pixels loses",
        within="[1, 2147483647]",
        only_for="pictures=all|kernels|features|patches|maximisation",
    )
    invariance_images: int = free_option(
        192,
        "images of --split, evenly spread, that invariance is measured on, about fifty "
        "times",
        within="[1, 2147483647]",
        only_for="pictures=all|invariance",
    )

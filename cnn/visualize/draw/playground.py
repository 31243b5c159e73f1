"""Playground: the network itself, on images that are drawn, moved and covered here."""

import base64
import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np

from cnn.checkpoints import atomic
from cnn.data.options import DataOptions
from cnn.errors import UserError
from cnn.option import read_group
from cnn.text import show_line
from cnn.training.classify_files import choose_intake
from cnn.training.tasks import MULTILABEL
from cnn.visualize.compute import playground
from cnn.visualize.compute.playground import Network
from cnn.visualize.draw.picture import Picture
from cnn.visualize.named_run import NamedRun
from cnn.visualize.subject import Subject

_CHECKED = 200  # images on which rounded weights have to give the same answers


def draw_run(subject: Subject, run: NamedRun, folder: Path) -> list[Picture]:
    """Write the network of a run, and what the page has to know of its images."""
    trained = dataclasses.replace(run.trained, image_shape=subject.image_shape)
    if read_group(DataOptions, trained.options).shuffle_pixels:
        raise UserError("its images are shuffled pixels, so that nothing can be drawn")
    images = subject.read(subject.sample(_CHECKED))
    network = playground.make_network(trained, images)
    path = subject.name_file(folder, run, "playground").with_suffix(".json")
    data = _describe(subject, run, network)
    # What ends a script would end the one that the page keeps it in.
    text = json.dumps(data, allow_nan=False).replace("<", "\\u003c")
    atomic.write_text(path, text)
    caption = (
        "Draw on the left image, drop a file on it, or choose one of the run's images; "
        "everything below follows at once. No request leaves the page."
    )
    return [Picture(path, subject.entitle(run, "the network, to play with"), caption)]


def _describe(subject: Subject, run: NamedRun, network: Network) -> dict[str, Any]:
    """Return what the page loads; see `page/playground.js`."""
    trained, shape = run.trained, subject.image_shape
    structure = trained.structure
    layout = choose_intake(trained, subject.config.data.for_evaluation()).layout
    if not layout.size and shape[0] == shape[1]:
        layout = dataclasses.replace(layout, size=shape[0])
    chosen = subject.chosen
    return {
        "classes": [show_line(name) for name in subject.get_class_names(run)],
        "several": structure.task is MULTILABEL,
        "temperature": trained.temperature,
        "mean": np.broadcast_to(structure.mean, shape[2]).tolist(),
        "layout": dataclasses.asdict(layout),
        "samples": [
            {"name": name, "pixels": base64.b64encode(image.tobytes()).decode()}
            for name, image in zip(chosen.names, chosen.images, strict=True)
        ],
        "about": _say_precision(network),
        "network": network.description,
    }


def _say_precision(network: Network) -> str:
    """Say how large the weights are, and what rounding them changes."""
    size = f"{network.num_bytes / 1e6:.2g} MB"
    if network.rounding is None:
        return (
            f"Weights: float32, {size}, as float16 would change a class or a logit by "
            f"more than {playground.TOLERANCE:g}."
        )
    return (
        f"Weights: float16, {size}; on {network.num_checked} of the run's images all "
        f"classes are those of float32, and logits differ by {network.rounding:.1g} at "
        "most."
    )

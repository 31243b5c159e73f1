"""Print size and images per second of ONNX files in onnxruntime, beside ours.

    python benchmarks/onnx_speed.py [--models=resnet18,…] [--image_size=224]

Of each model with drawn weights: the size of its file, how much the logits of
onnxruntime differ from ours (over the largest), and the images per second of both, from
uint8 images to probabilities, on all cores of the CPU. They run in turns, `--rounds`
times `--seconds` each; the medians are printed, and the ratio of each round from the
lowest to the highest.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import flags
import jax
import numpy as np

from cnn import config as config_module
from cnn import models
from cnn.models.variables import create_variables
from cnn.runtime import xla
from cnn.runtime.options import DeviceOptions
from cnn.training.trained import Trained, make_classifier, make_trained
from cnn.weights.onnx import file

CLASSES, SCALING = 1000, (0.5,)


def draw(name: str, size: int) -> Trained:
    """Draw the weights of a model."""
    config = config_module.make_config({"model": name})
    model = models.create_model(config.model, CLASSES)
    channels = models.get_published_input(name)[1]
    shape = (size, size, channels)
    variables = jax.jit(lambda: create_variables(model, 0, shape))()
    description = {
        "options": config.to_flat(),
        "class_names": [str(i) for i in range(CLASSES)],
        "classes_are_named": False,
        "image_shape": shape,
        "mean": SCALING * channels,
        "std": SCALING * channels,
    }
    return make_trained(description, variables)


def measure(call: Callable[[], object], images: int, seconds: float) -> float:
    """Return the images per second of a call."""
    started, calls = time.perf_counter(), 0
    while (took := time.perf_counter() - started) < seconds:
        call()
        calls += 1
    return calls * images / took


def compare(name: str, options: argparse.Namespace) -> str:
    """Return a model's row."""
    import onnxruntime

    size = options.image_size or models.get_published_input(name)[0]
    trained = draw(name, size)
    content = file.make_file(trained, preprocessing=True)
    difference = file.check_file(trained, content, preprocessing=True)
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    shape = (options.batch_size, size, size, trained.image_shape[2])
    images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    classify = make_classifier(trained)
    calls = (
        lambda: session.run(["probabilities"], {"images": images}),
        lambda: classify(images),
    )
    for call in calls:
        call()  # compiled, and the memory is there
    rounds = [
        [measure(call, options.batch_size, options.seconds) for call in calls]
        for _ in range(options.rounds)
    ]
    theirs, ours = (statistics.median(x) for x in zip(*rounds, strict=True))
    ratios = sorted(ours / theirs for theirs, ours in rounds)
    return (
        f"| {name} | {size} | {len(content) / 1e6:.1f} | {difference:.0e} | "
        f"{theirs:.0f} | {ours:.0f} | {ours / theirs:.2f} "
        f"({ratios[0]:.2f} to {ratios[-1]:.2f}) |"
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    smallest = ",".join(family.examples[0] for family in models.FAMILIES)
    parser.add_argument("--models", default=smallest)
    parser.add_argument(
        "--image_size", type=flags.positive, help="published by default"
    )
    parser.add_argument("--batch_size", type=flags.positive, default=8)
    parser.add_argument("--rounds", type=flags.positive, default=3)
    parser.add_argument("--seconds", type=flags.positive, default=3)
    options = parser.parse_args()
    xla.configure(DeviceOptions())
    titles = "model", "pixels", "MB", "differs", "onnxruntime", "ours", "ratio"
    print(f"| {' | '.join(titles)} |\n{'|---' * len(titles)}|")
    for name in options.models.split(","):
        print(compare(name, options), flush=True)


if __name__ == "__main__":
    flags.run(main)

"""How many cores decode images as quickly as a training step takes them."""

import dataclasses
import io
import math
import os
import time
from typing import Any

import numpy as np

from cnn.data import decode
from cnn.options import option

_SECONDS = 0.3


@dataclasses.dataclass(frozen=True)
class FeedOptions:
    """How quickly images are taken and decoded, from which describe counts cores."""

    step_images_per_second: float = option(
        0.0,
        "images/s that a training step takes, as metrics.jsonl has it, whose cores for "
        "decoding describe counts; 0: not known",
        within="[0, inf)",
        changes_run=False,
    )
    decode_images_per_second: float = option(
        0.0,
        "images/s that one core decodes, as benchmarks/input.py has it; 0: describe "
        "measures it on a synthetic JPEG file of --storage_size",
        within="[0, inf)",
        changes_run=False,
    )


def measure_decoding(size: int, channels: int) -> float:
    """Measure how many JPEG files one core decodes in a second.

    Args:
        size: height and width in pixels of the file and of the result.
        channels: 1 or 3.

    Returns:
        Images/s of a synthetic file: smooth, with some noise, quality 90.
    """
    content = make_jpeg(size, channels)
    layout = decode.Layout(size, channels)
    decode.decode(content, layout)  # what is slow only once
    count, started = 0, time.perf_counter()
    while (passed := time.perf_counter() - started) < _SECONDS:
        decode.decode(content, layout)
        count += 1
    return count / passed


def make_jpeg(size: int, channels: int, seed: int = 0) -> bytes:
    """Make a JPEG file of quality 90 whose content is about as dense as a photograph's.

    Args:
        size: height and width in pixels.
        channels: 1 or 3.
        seed: of its waves and its noise.
    """
    from PIL import Image

    random = np.random.default_rng(seed)
    place = np.linspace(0, 2 * np.pi, size)[:, None]
    waves = np.zeros((size, size, channels))
    for frequency in (1, 3, 7, 15):
        phase = random.uniform(0, 2 * np.pi, (2, channels))
        across = np.sin(frequency * place + phase[0])[:, None]
        waves += across * np.sin(frequency * place + phase[1])[None] / frequency
    noise = random.normal(0, 6, (size, size, channels))
    pixels = np.clip(128 + 50 * waves + noise, 0, 255).astype(np.uint8)
    file = io.BytesIO()
    image = Image.fromarray(pixels if channels == 3 else pixels[..., 0])
    image.save(file, "JPEG", quality=90)
    return file.getvalue()


def count_cores(step_rate: float, decode_rate: float) -> int:
    """Count the cores whose decoding keeps up with a step.

    Args:
        step_rate: images/s that the step takes.
        decode_rate: images/s that one core decodes.
    """
    return math.ceil(step_rate / decode_rate)


def describe_cores(
    options: FeedOptions, size: int, channels: int
) -> tuple[list[str], dict[str, Any]]:
    """Say how many cores decode as quickly as a step takes images.

    Args:
        options: the rates, as far as they are known.
        size: height and width in pixels of stored images.
        channels: 1 or 3.

    Returns:
        Lines to print, and `feed`: `decode_images_per_second` of one core, `cores`;
        nothing when the step's rate is not given.
    """
    rate, told = options.step_images_per_second, options.decode_images_per_second
    if not rate:
        return [], {}
    decoded = told or measure_decoding(size, channels)
    cores, here = count_cores(rate, decoded), os.cpu_count()
    files = "" if told else f"synthetic {size}x{size} JPEG "
    line = (
        f"one core decodes {decoded:,.0f} {files}images/s: {cores} feed a step of "
        f"{rate:,.0f} images/s; this machine has {here}"
    )
    return [line], {"feed": {"decode_images_per_second": decoded, "cores": cores}}

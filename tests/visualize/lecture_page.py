"""docs/lecture.html, and the table of its numbers in docs/pictures.md.

`PYTHONPATH=. python tests/visualize/lecture_page.py --write` makes both.

Every number of a slide, as its lines of Python print it, stands beside what numpy alone
makes of the lecture's inputs.
"""

import re
import sys
import tempfile
from pathlib import Path

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from cnn.visualize import visualize
from cnn.visualize.draw import picture
from cnn.visualize.lecture import lines, slides
from cnn.visualize.lecture.examples import (
    ALIGNED,
    CHANNELS,
    CHANNELS_1D,
    COLOUR,
    GREY,
    IMAGE,
    KERNEL,
    KERNEL_1D,
    KERNELS,
    KERNELS_1D,
    LETTER,
    POOLED,
    SEQUENCE,
    WEIGHTS,
)

ROOT = Path(__file__).parent.parent.parent
PAGE, TABLE = ROOT / "docs" / "lecture.html", ROOT / "docs" / "pictures.md"
BEGIN, END = "<!-- slides -->\n", "<!-- end of slides -->\n"


def correlate(x, kernel):
    """Correlate [H, W, C] with [S, S, C, O] by definition."""
    windows = sliding_window_view(x, kernel.shape[:2], axis=(0, 1))
    return np.einsum("ijcab,abco->ijo", windows, kernel)


def correlate_plane(x, kernel):
    return correlate(x[..., None], kernel[..., None, None])[..., 0]


def reduce_windows(x, window, stride, function):
    windows = sliding_window_view(x, (window, window))[::stride, ::stride]
    return function(windows, axis=(2, 3))


def scale_pixel():
    unit = GREY / 255
    pixel = unit[1, 2]
    return [pixel, (pixel - 0.5) / 0.5, (pixel - unit.mean()) / unit.std()]


def lay_out():
    i, j, c = np.indices((2, 3, 3))
    pixels = COLOUR[1:3, :3]
    order = np.argsort((c * 6 + i * 3 + j).ravel())
    return [pixels.ravel(), pixels.ravel()[order]]


def detect():
    kernel = np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]])
    each = [correlate_plane(LETTER, k) for k in (kernel, kernel.T)]
    return np.maximum(np.stack(each, axis=-1) - 2, 0)


def shuffle(x):
    rows, columns = (length // 2 for length in x.shape)
    blocks = x.reshape(rows, 2, columns, 2).swapaxes(1, 2)
    return blocks.reshape(rows, columns, 4)


def count_alexnet():
    """Sum weights and biases; groups halve what some kernels see."""
    layers = [(11**2 * 3, 96), (5**2 * 48, 256), (3**2 * 256, 384)]
    layers += [(3**2 * 192, 384), (3**2 * 192, 256)]
    layers += [(6**2 * 256, 4096), (4096, 4096), (4096, 1000)]
    return sum(seen * made + made for seen, made in layers)


CONVOLVED = correlate_plane(IMAGE, KERNEL)
LAYER_1D = correlate(CHANNELS_1D[:, None], KERNELS_1D[:, None])[:, 0]
MEANS = [IMAGE.mean(), IMAGE[:4, :5].mean()]

# By the slide: what of its numbers the table shows, where that is, all by numpy alone.
NUMBERS = {
    "image_scalings": ("192, scaled in three ways", slice(3), scale_pixel()),
    "image_channels": ("red of the pixel at row 0, column 2", 0, [255, 220, 60]),
    "image_layouts": ("place 6 of NCHW", (1, 6), lay_out()),
    "alignment": ("best match", 1, np.correlate(ALIGNED, WEIGHTS)),
    "connections_dense": ("weights", (), 6 * 4),
    "connections_locally_connected": ("weights", (), 4 * 3),
    "connections_convolutional": ("weights", (), 3),
    "convolution_valid": ("window 5 7 0", 3, np.correlate(SEQUENCE, KERNEL_1D)),
    "convolution_2d": ("window at row 1, column 3", (1, 3), CONVOLVED),
    "convolution_same": (
        "the same window",
        4,
        np.correlate(SEQUENCE, KERNEL_1D, "same"),
    ),
    "convolution_full": (
        "the same window",
        5,
        np.correlate(SEQUENCE, KERNEL_1D, "full"),
    ),
    "convolution_stride": ("window 7 0 2", 2, np.correlate(SEQUENCE, KERNEL_1D)[::2]),
    "convolution_2d_stride": ("row 1, column 1", (1, 1), CONVOLVED[::2, ::2]),
    "convolution_derivative": ("first", 0, np.convolve((1, -2, 0, 3, 1), (-1, 3, 2))),
    "filters": ("entry of the blur of 3×3", 0, [1 / 9, 1 / 25]),
    "feature_detectors": ("left edge at row 1, column 0", (1, 0, 0), detect()),
    "channels_1d": ("first", 0, LAYER_1D[:, 0]),
    "layer_1d": ("second place, channel 1", (1, 1), LAYER_1D),
    "convolution_channels": ("first", (0, 0), correlate(CHANNELS, KERNELS)[..., 0]),
    "layer_2d": ("first place, channel 1", (0, 0, 1), correlate(CHANNELS, KERNELS)),
    "max_pooling": (
        "window 1 4 7",
        0,
        sliding_window_view(np.array(POOLED), 3)[::2].max(axis=1),
    ),
    "max_pooling_2d": ("first", (0, 0), reduce_windows(IMAGE, 3, 2, np.max)),
    "max_pooling_window": (
        "window at row 1, column 3",
        (1, 3),
        reduce_windows(IMAGE, 3, 1, np.max),
    ),
    "convolution_max_pooling": (
        "first",
        (0, 0),
        reduce_windows(CONVOLVED, 3, 2, np.max),
    ),
    "average_pooling": (
        "first",
        (0, 0),
        reduce_windows(IMAGE[:6, :6], 2, 2, np.mean),
    ),
    "pixel_shuffle": (
        "channel 3 of the first pixel",
        (0, 0, 3),
        shuffle(IMAGE[:4, :4]),
    ),
    "pixel_shuffle_inverse": ("row 1, column 1", (1, 1), IMAGE[:4, :4]),
    "convolution_pixel_shuffle": (
        "channel 2 of the first pixel",
        (0, 0, 2),
        shuffle(CONVOLVED[:4, :4]),
    ),
    "downsampling": ("channels, shuffled", (4, 2), [[40, 40, 3]] * 4 + [[40, 40, 192]]),
    "global_average_pooling": ("both averages", slice(2), MEANS),
    "mix_up": ("share of the 3", (0, 0), [[0.75, 0.25], [0.5, 0.5], [0.25, 0.75]]),
    "cut_out": ("share of the 3", (), 1),
    "alexnet": ("parameters", (), count_alexnet()),
    "wide_resnet_blocks": (
        "weights of a bottleneck's kernels",
        1,
        [2 * 9 * 16**2, (1 + 9 + 1) * 16**2, 2 * 9 * 64**2, 2 * 9 * 64**2],
    ),
}


def compare(name):
    """Return a slide's numbers as its lines print them, and by numpy."""
    ours = np.squeeze(np.asarray(lines.compute_number(name), np.float64))
    return ours, np.asarray(NUMBERS[name][2], np.float64)


def are_equal(ours, numpys):
    """Return how many numbers are equal, up to the rounding of the lines."""
    if ours.shape != numpys.shape:
        return 0
    return int(np.isclose(ours, numpys, rtol=0, atol=6e-4).sum())


def write_numbers(numbers):
    texts = [f"{number:.5g}".replace("-", "−") for number in np.ravel(numbers)]
    return ", ".join(texts)


def format_table():
    """Write the table: a row a slide, in the lecture's order."""
    rows = [
        "| part | slide | number | of our operators | of numpy | equal |",
        "|---|---|---|---|---|---|",
    ]
    for part, (_, names) in slides.PARTS.items():
        for name in names:
            (what, place, _), (ours, numpys) = NUMBERS[name], compare(name)
            shown = [write_numbers(x[place]) for x in (ours, numpys)]
            equal = f"{are_equal(ours, numpys)} of {numpys.size}"
            rows.append(
                f"| {part} | `{name}` | {what} | {' | '.join(shown)} | {equal} |"
            )
    return "\n".join(rows) + "\n"


def draw_page(directory):
    """Write the page into a directory and return its text."""
    folder = Path(directory) / "pictures"
    folder.mkdir()
    with picture.use_style():
        sections = slides.draw_sections(folder)
    return visualize.write_lecture(Path(directory), sections).read_text()


def leave_out_photographs(page):
    """Return a page without its photographs, which differ by library and machine."""
    return re.sub(r'data:image/webp;base64,[^"]*" (alt="[^"]*").*?>', r"\1>", page)


def main():
    """Print the table, or write the page, and the table into its page."""
    if sys.argv[1:] != ["--write"]:
        print(format_table(), end="")
        return
    before, _, rest = TABLE.read_text().partition(BEGIN)
    after = rest.partition(END)[2]
    TABLE.write_text(before + BEGIN + format_table() + END + after)
    with tempfile.TemporaryDirectory() as directory:
        PAGE.write_text(draw_page(directory))


if __name__ == "__main__":
    main()

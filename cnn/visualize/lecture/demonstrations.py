"""Demonstrations: the lecture's slides, computed by the operators of this code.

No run is needed. The slides are animated SVG with the numbers in the cells.
"""

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np

from cnn.checkpoints import atomic
from cnn.visualize.draw import picture
from cnn.visualize.draw.picture import Picture
from cnn.visualize.lecture import connections, photograph, slides_1d, slides_2d
from cnn.visualize.lecture.slide import Slide
from cnn.visualize.lecture.svg import Drawing

# The lecture's alignment, its windows 5 7 0 and 1 4 7, its kernels, and its image.
ALIGNED, WEIGHTS = (0.2, 0.7, 0.5, 0.3, 1), (0.8, 0, 0.8, 0.2)
SEQUENCE, KERNEL_1D = (1, 4, 7, 5, 7, 0, 2), (-1, 3, -1)
IMAGE = np.array(
    [
        [5, -1, 3, 8, 4, 6, -2],
        [-3, 4, 9, 1, 1, 7, -4],
        [5, -6, 3, 2, 1, -2, 0],
        [0, -8, 5, 5, 4, -2, 3],
        [4, 7, 2, -7, 3, 1, 4],
        [4, -3, 1, 2, 6, 1, -1],
        [0, 0, 3, -2, 3, -1, 0],
    ]
)
KERNEL = np.array([[-1, -2, -1], [0, 0, 0], [1, 2, 1]])
_CHANNELS = np.stack([IMAGE[:4, :4], IMAGE[:4, 3:], IMAGE[3:, :4]], axis=-1)
_CHANNEL_KERNELS = np.stack([KERNEL, KERNEL.T, np.diag([0, 1, 0])], axis=-1)
_CONNECTIONS = (
    "Each line is a product of an input and a weight; an output is the sum of the "
    "lines that reach it."
)
_slide = functools.partial

SLIDES: dict[str, tuple[Callable[[], Drawing], str]] = {
    "alignment": (
        _slide(slides_1d.align, ALIGNED, WEIGHTS),
        "The same weights meet the image at each place; a match is the sum of the "
        "products below, and the largest one tells where image and weights agree most.",
    ),
    "convolution_valid": (
        _slide(slides_1d.convolve, SEQUENCE, KERNEL_1D),
        "The kernel visits every place where it lies inside x; each y is the sum of "
        "the products below.",
    ),
    "convolution_same": (
        _slide(slides_1d.convolve, SEQUENCE, KERNEL_1D, "same"),
        "One zero (dashed) on either side, and y is as long as x.",
    ),
    "convolution_full": (
        _slide(slides_1d.convolve, SEQUENCE, KERNEL_1D, "full"),
        "Two zeros (dashed) on either side, and every place where kernel and x touch "
        "gives a y.",
    ),
    "convolution_stride": (
        _slide(slides_1d.convolve, SEQUENCE, KERNEL_1D, "valid", 2),
        "With stride 2 the kernel skips every other place, and y is half as long.",
    ),
    "convolution_derivative": (
        _slide(slides_1d.differentiate, SEQUENCE, (-1, 3, 2), (1, -2, 0, 3, 1)),
        "What automatic differentiation returns for x is the full convolution of the "
        "gradient above it with the kernel read backwards.",
    ),
    "max_pooling": (
        _slide(slides_1d.max_pool, (1, 4, 7, 5, 2, 0, 3), 3, 2),
        "Each y is the largest number of its window; nothing is learnt.",
    ),
    "convolution_2d": (
        _slide(slides_2d.convolve, IMAGE, KERNEL),
        "The small numbers in the window are the kernel's; y is the sum of the "
        "products, zeros left out.",
    ),
    "convolution_2d_stride": (
        _slide(slides_2d.convolve, IMAGE, KERNEL, 2),
        "The same with stride 2: rows and columns 0, 2 and 4 of the answer above.",
    ),
    "convolution_channels": (
        _slide(slides_2d.convolve_channels, _CHANNELS, _CHANNEL_KERNELS),
        "Each channel meets a kernel of its own, and the three results (same colour) "
        "are added up to one y.",
    ),
    "max_pooling_2d": (
        _slide(slides_2d.max_pool, IMAGE, 3, 2),
        "Each y is the largest number of its window of 3×3 pixels.",
    ),
    "pixel_shuffle": (
        _slide(slides_2d.shuffle, IMAGE[:4, :4]),
        "Each block of 2×2 pixels becomes one pixel of four channels: half the size, "
        "and no number is lost.",
    ),
    "pixel_shuffle_inverse": (
        _slide(slides_2d.shuffle, IMAGE[:4, :4], True),
        "The way back: four channels of a pixel spread over a block of 2×2.",
    ),
}


def draw(_: object, folder: Path) -> list[Picture]:
    """Draw the slides, the connection diagrams and the photographs."""
    drawn = [(name, make(), caption) for name, (make, caption) in SLIDES.items()]
    for layer in connections.find_layers():
        name = layer.name.removesuffix(" layer").lower().replace(" ", "_")
        drawn.append((f"connections_{name}", connections.draw(layer), _CONNECTIONS))
    pictures: list[Picture] = []
    for name, drawing, caption in drawn:
        path = folder / f"{name}.svg"
        atomic.write_text(path, drawing.to_svg())
        pictures.append(Slide(path, drawing.title, caption, drawing=drawing))
    image = photograph.load_photograph()
    pictures.append(_draw_filters(image, folder / "filters.png"))
    pictures.append(_draw_shrunk(image, folder / "downsampling.png"))
    return pictures


def _draw_filters(image: np.ndarray, path: Path) -> Picture:
    answers = photograph.apply_filters(image)
    edges = {name: x for name, x in answers.items() if name.endswith("edges")}
    largest = max(float(np.percentile(np.abs(x), 99.5)) for x in edges.values())
    figure = picture.make_figure(9.6, 8.6)
    axes = figure.subplots(3, 4)
    grey = image.mean(axis=-1, keepdims=True)
    for ax, shown in zip(axes[0], (image, grey), strict=False):
        picture.show_image(ax, shown)
    axes[0, 0].set_title("photograph")
    axes[0, 0].set_xlabel(photograph.CREDIT, fontsize=6)
    axes[0, 1].set_title("its brightness, filtered below")
    for ax in axes[0, 2:]:
        ax.set_axis_off()
    for ax, (name, answer) in zip(axes[1:].flat, answers.items(), strict=True):
        if name in edges:
            shown = picture.show_image(ax, answer, **picture.scale_signed(largest))
        else:
            picture.show_image(ax, answer[..., None])
        ax.set_title(name)
        kernel = _format_kernel(photograph.FILTERS[name])
        ax.set_xlabel(kernel, family="monospace", fontsize=8)
    bar = figure.colorbar(shown, ax=axes[2], shrink=0.7, extend="both")
    bar.set_label("change of brightness (0..1) × weights")
    return picture.save(
        figure,
        path,
        "Kernels as feature detectors",
        "Under each result stands the kernel that slid over the photograph; where "
        "brightness rises along the kernel's direction the answer is red, where it "
        "falls blue.",
    )


def _format_kernel(kernel: np.ndarray) -> str:
    """Write a small kernel as a table; of one with equal entries, the entry."""
    if kernel.min() == kernel.max():
        return f"every weight 1/{kernel.size}"
    if len(kernel) > 3:
        return f"weights {kernel.min():.4f} to {kernel.max():.4f}"
    return "\n".join(" ".join(f"{int(tap):3d}" for tap in row) for row in kernel)


def _draw_shrunk(image: np.ndarray, path: Path) -> Picture:
    factor = 8
    shrunk = photograph.shrink(image, factor)
    figure = picture.make_figure(9.6, 6.8)
    axes = figure.subplots(2, 3)
    picture.show_image(axes[0, 0], image)
    axes[0, 0].set_title(f"original, {len(image)}×{len(image[0])} pixels")
    axes[0, 0].set_xlabel(photograph.CREDIT, fontsize=6)
    for ax, (name, answer) in zip(axes.flat[1:], shrunk.items(), strict=True):
        height, width, depth = answer.shape
        title = f"{name}, {height}×{width} pixels"
        if depth > 3:
            planes = answer.reshape(height, width, -1, 3).transpose(2, 0, 1, 3)
            answer = picture.tile(planes, factor, gap=2)
            title += f", {depth} channels"
        picture.show_image(ax, np.clip(answer, 0, 1))
        ax.set_title(title)
    return picture.save(
        figure,
        path,
        f"Ways to shrink an image by {factor}",
        "A stride alone takes single pixels, so that fine patterns turn into false "
        "ones; averages keep the brightness, maxima the brightest detail, and "
        "space_to_depth keeps every pixel in one of its many channels.",
    )

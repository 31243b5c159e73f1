"""The lecture: every slide, computed by the operators of this code.

No run is needed. The slides are animated SVG with the numbers in the cells, and
photographs; `lines` holds the lines of Python behind each.
"""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np

from cnn import place
from cnn.checkpoints import atomic
from cnn.visualize.draw import picture
from cnn.visualize.draw.picture import Picture, Section
from cnn.visualize.lecture import (
    architectures,
    connections,
    lines,
    photograph,
    slides_1d,
    slides_2d,
    slides_channels,
    slides_detectors,
    slides_image,
    slides_mixing,
    slides_pooling,
)
from cnn.visualize.lecture.examples import (
    ALIGNED,
    CHANNELS,
    IMAGE,
    KERNEL,
    KERNEL_1D,
    KERNELS,
    POOLED,
    SEQUENCE,
    WEIGHTS,
)
from cnn.visualize.lecture.slide import Slide
from cnn.visualize.lecture.svg import Drawing

_CONNECTIONS = (
    "Each line is a product of an input and a weight; an output is the sum of the "
    "lines that reach it."
)
_slide = functools.partial


def _draw_results(
    draw: Callable[..., Drawing], name: str, count: int | None = None
) -> Drawing:
    """Draw what the lines of a slide compute, or the first `count` results of it."""
    return draw(*lines.LINES[name]()[:count])


def _draw_connections(place: int) -> Drawing:
    """Draw one of the lecture's three layers."""
    return connections.draw(connections.find_layers()[place])


# By name, how a slide is drawn, and its caption.
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
        _slide(slides_1d.max_pool, POOLED, 3, 2),
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
        _slide(slides_2d.convolve_channels, CHANNELS, KERNELS[..., 0]),
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
    "image_scalings": (
        _slide(_draw_results, slides_image.scale, "image_scalings", 3),
        "A pixel is a number from 0 to 255. Networks learn from small numbers: from 0 "
        "to 1 is good, from −1 to 1 better, and best is to take off the mean of the "
        "data set and to divide by its deviation (here those of this one image).",
    ),
    "image_channels": (
        _slide(_draw_results, slides_image.separate, "image_channels", 2),
        "A pixel in colour is three numbers: how much red, green and blue it has. "
        "The image is three tables of one size.",
    ),
    "image_layouts": (
        _slide(_draw_results, slides_image.lay_out, "image_layouts", 2),
        "The same numbers in another order: NHWC, ours, keeps the three numbers of a "
        "pixel together; NCHW, PyTorch's, keeps each channel together.",
    ),
    "connections_dense": (_slide(_draw_connections, 0), _CONNECTIONS),
    "connections_locally_connected": (_slide(_draw_connections, 1), _CONNECTIONS),
    "connections_convolutional": (_slide(_draw_connections, 2), _CONNECTIONS),
    "feature_detectors": (
        _slide(_draw_results, slides_detectors.detect, "feature_detectors"),
        "A kernel answers where the image looks like it. A negative bias demands a "
        "clear match, and the ReLU sets everything below that threshold to 0: what is "
        "left are left edges above, top edges below.",
    ),
    "channels_1d": (
        _slide(_draw_results, slides_channels.convolve_1d, "channels_1d"),
        "Three channels come in, one goes out: each has taps of its own (same colour), "
        "and y is the sum over all three, a term below for each.",
    ),
    "layer_1d": (
        _slide(_draw_results, slides_channels.convolve_1d, "layer_1d"),
        "For each channel that goes out there is a kernel as above, which sees all the "
        "channels that come in.",
    ),
    "layer_2d": (
        _slide(_draw_results, slides_channels.convolve_2d, "layer_2d"),
        "The general layer: images [N, H, W, C], kernels [S, S, C, O], answers "
        "[N, H, W, O]. Both kernels see all three channels at the same place.",
    ),
    "max_pooling_window": (
        _slide(slides_2d.max_pool, IMAGE, 3, 1),
        "With stride 1 every window is visited: the lecture's, at row 1 and column 3, "
        "is the ninth.",
    ),
    "average_pooling": (
        _slide(slides_2d.avg_pool, IMAGE[:6, :6], 2),
        "Each y is the mean of its window of 2×2 pixels; nothing is learnt.",
    ),
    "convolution_max_pooling": (
        _slide(
            _draw_results, slides_pooling.convolve_and_pool, "convolution_max_pooling"
        ),
        "The kernel's answers y are pooled: each z is the largest of 3×3 answers, and "
        "so it sees 5×5 pixels of x.",
    ),
    "convolution_pixel_shuffle": (
        _slide(
            _draw_results,
            slides_pooling.convolve_and_shuffle,
            "convolution_pixel_shuffle",
        ),
        "In place of the largest, all answers of a block are kept, each in a channel "
        "of its own (same colour): half the size, and nothing is lost.",
    ),
    "global_average_pooling": (
        _slide(
            _draw_results, slides_pooling.average_globally, "global_average_pooling"
        ),
        "The average leaves one number a channel, whatever the height and width: the "
        "dense layer behind it takes images of both sizes.",
    ),
    "mix_up": (
        _slide(_draw_results, slides_mixing.mix, "mix_up"),
        "Two images are laid over each other, and the label says how much there is of "
        "each; the share is drawn anew for every batch.",
    ),
    "cut_out": (
        _slide(_draw_results, slides_mixing.cut, "cut_out"),
        "The network must not rely on any one part of the image: the square lies "
        "elsewhere in each epoch, and the label does not change.",
    ),
    "alexnet": (
        architectures.draw_alexnet,
        "Five convolutions, the second, fourth and fifth of them in two groups that do "
        "not see each other's channels, and three dense layers that hold most weights.",
    ),
    "wide_resnet_blocks": (
        architectures.draw_wide_resnet_blocks,
        "What a block computes is added to its input; normalisation and ReLU come "
        "before each convolution.",
    ),
}

NOTES = (
    "Every number of these slides is computed by the operators of this code. The lines "
    "under a slide print its numbers: type them into python in the code's folder.",
    "The slides are in the order of the lecture. Fine-tuning is drawn of your runs: "
    f"{place.COMMAND} --mode=visualize --workdir=RUN --pictures=fine_tuning",
)
# The lecture's order: by the part's heading, what it is about and its slides.
PARTS: dict[str, tuple[str, tuple[str, ...]]] = {
    "Images as numbers": (
        "what a network sees of a picture",
        ("image_scalings", "image_channels", "image_layouts"),
    ),
    "Sliding weights": (
        "from a weight for each pixel to weights that are shared by all places",
        (
            "alignment",
            "connections_dense",
            "connections_locally_connected",
            "connections_convolutional",
        ),
    ),
    "Convolution": (
        "the same kernel at each place, and how many places there are",
        (
            "convolution_valid",
            "convolution_2d",
            "convolution_same",
            "convolution_full",
            "convolution_stride",
            "convolution_2d_stride",
            "convolution_derivative",
        ),
    ),
    "Feature detectors": (
        "what a kernel finds",
        ("filters", "feature_detectors"),
    ),
    "Channels": (
        "several inputs and outputs at each place",
        ("channels_1d", "layer_1d", "convolution_channels", "layer_2d"),
    ),
    "Downsampling": (
        "smaller images for the next layer",
        (
            "max_pooling",
            "max_pooling_2d",
            "max_pooling_window",
            "convolution_max_pooling",
            "average_pooling",
            "pixel_shuffle",
            "pixel_shuffle_inverse",
            "convolution_pixel_shuffle",
            "downsampling",
        ),
    ),
    "Images of any size": (
        "from feature maps to classes",
        ("global_average_pooling",),
    ),
    "Networks": (
        "layers upon layers, and what is added to their input",
        ("alexnet", "wide_resnet_blocks"),
    ),
    "More images": (
        "training images that are changed, and what becomes of their labels",
        ("mix_up", "cut_out"),
    ),
}


def draw_sections(folder: Path) -> list[Section]:
    """Draw every slide, in the lecture's order.

    Args:
        folder: where a file for each slide is written.

    Returns:
        A section for each part of the lecture.
    """
    sections = []
    for number, (heading, (about, names)) in enumerate(PARTS.items(), start=1):
        pictures = tuple(_draw_slide(name, folder) for name in names)
        sections.append(
            Section(f"lecture{number}", f"{number}. {heading}: {about}", pictures)
        )
    return sections


def _draw_slide(name: str, folder: Path) -> Picture:
    """Draw a slide, with the lines of Python that compute it."""
    if draw := _PHOTOGRAPHS.get(name):
        drawn = draw(photograph.load_photograph(), folder / f"{name}.png")
        return dataclasses.replace(drawn, lines=lines.write(name))
    make, caption = SLIDES[name]
    drawing, path = make(), folder / f"{name}.svg"
    atomic.write_text(path, drawing.to_svg())
    return Slide(path, drawing.title, caption, lines.write(name), drawing=drawing)


def _draw_filters(image: np.ndarray, path: Path) -> Picture:
    answers = photograph.apply_filters(image)
    edges = {name: x for name, x in answers.items() if name.endswith("edges")}
    largest = max(float(np.percentile(np.abs(x), 99.5)) for x in edges.values())
    figure = picture.make_figure(7.4, 7.2)
    axes = figure.subplots(3, 4)
    grey = image.mean(axis=-1, keepdims=True)
    for ax, shown in zip(axes[0], (image, grey), strict=False):
        picture.show_image(ax, shown)
    axes[0, 0].set_title("photograph")
    axes[0, 0].set_xlabel(photograph.CREDIT, fontsize=6)
    axes[0, 1].set_title("its brightness,\nfiltered below")
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
    return picture.save_photograph(
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
    figure = picture.make_figure(7.4, 5.6)
    axes = figure.subplots(2, 3)
    picture.show_image(axes[0, 0], image)
    axes[0, 0].set_title(f"original,\n{len(image)}×{len(image[0])} pixels")
    axes[0, 0].set_xlabel(photograph.CREDIT, fontsize=6)
    for ax, (name, answer) in zip(axes.flat[1:], shrunk.items(), strict=True):
        height, width, depth = answer.shape
        title = f"{name},\n{height}×{width} pixels"
        if depth > 3:
            planes = answer.reshape(height, width, -1, 3).transpose(2, 0, 1, 3)
            answer = picture.tile(planes, factor, gap=2)
            title += f", {depth} channels"
        picture.show_image(ax, np.clip(answer, 0, 1))
        ax.set_title(title)
    return picture.save_photograph(
        figure,
        path,
        f"Ways to shrink an image by {factor}",
        "A stride alone takes single pixels, so that fine patterns turn into false "
        "ones; averages keep the brightness, maxima the brightest detail, and "
        "space_to_depth keeps every pixel in one of its many channels.",
    )


_PHOTOGRAPHS: dict[str, Callable[[np.ndarray, Path], Picture]] = {
    "filters": _draw_filters,
    "downsampling": _draw_shrunk,
}

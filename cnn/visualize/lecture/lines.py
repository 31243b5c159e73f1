"""The lines of Python behind each slide, as functions that are read and run.

The body of a function, but its last line, is what the page prints under the slide of
its name, for a reader to type; the last of the names that it returns is the slide's
number. Results are rounded where they are no whole numbers, so that every machine
prints the same.
"""

import ast
import inspect
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cnn import models
from cnn.augment import mixing
from cnn.models.options import ModelOptions
from cnn.ops import (
    activation,
    convolution,
    kernels,
    local,
    pooling,
    rearrange,
    scaling,
)
from cnn.visualize.lecture import photograph
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

Results = tuple[Any, ...]


def image_scalings() -> Results:
    """Scale an image in the lecture's three ways; 192 is at row 1, column 2."""
    image = GREY[:, :, None]
    unit = scaling.scale_images(image, *scaling.UNIT)
    symmetric = scaling.scale_images(image, *scaling.SYMMETRIC)
    mean, std = unit.mean(), unit.std()
    standardised = scaling.scale_images(image, mean, std)
    scaled = jnp.stack([unit, symmetric, standardised])[..., 0]
    pixel = scaled[:, 1, 2].round(3)
    return image, scaled, (mean, std), pixel


def image_channels() -> Results:
    """Take a colour image apart."""
    red, green, blue = COLOUR[..., 0], COLOUR[..., 1], COLOUR[..., 2]
    pixel = COLOUR[0, 2]
    return COLOUR, (red, green, blue), pixel


def image_layouts() -> Results:
    """Write a colour image of 2×3 pixels as NHWC and as NCHW."""
    nhwc = COLOUR[None, 1:3, :3]
    nchw = nhwc.transpose(0, 3, 1, 2)
    numbers = np.stack([nhwc.ravel(), nchw.ravel()])
    return nhwc, nchw, numbers


def alignment() -> Results:
    """Match weights with an image at each place."""
    image = jnp.array(ALIGNED)[None, :, None]
    weights = jnp.array(WEIGHTS)[:, None, None]
    match = convolution.conv1d(image, weights).round(3)
    return image, weights, match


def connections_dense() -> Results:
    """Count the weights of a dense layer."""
    x = jnp.ones((1, 6))
    weights = jnp.ones((6, 4))
    y = x @ weights
    count = weights.size
    return y, count


def connections_locally_connected() -> Results:
    """Count the weights of a locally connected layer."""
    x = jnp.ones((1, 6, 1))
    weights = jnp.ones((4, 3, 1, 1))
    y = local.locally_connected1d(x, weights)
    count = weights.size
    return y, count


def connections_convolutional() -> Results:
    """Count the weights of a convolutional layer."""
    x = jnp.ones((1, 6, 1))
    weights = jnp.ones((3, 1, 1))
    y = convolution.conv1d(x, weights)
    count = weights.size
    return y, count


def convolution_valid() -> Results:
    """Convolve without padding."""
    x = jnp.array(SEQUENCE, float)[None, :, None]
    kernel = jnp.array(KERNEL_1D)[:, None, None]
    y = convolution.conv1d(x, kernel)
    return x, kernel, y


def convolution_same() -> Results:
    """Convolve with as many outputs as inputs."""
    x = jnp.array(SEQUENCE, float)[None, :, None]
    kernel = jnp.array(KERNEL_1D)[:, None, None]
    y = convolution.conv1d(x, kernel, padding="same")
    return x, kernel, y


def convolution_full() -> Results:
    """Convolve wherever kernel and input touch."""
    x = jnp.array(SEQUENCE, float)[None, :, None]
    kernel = jnp.array(KERNEL_1D)[:, None, None]
    y = convolution.conv1d(x, kernel, padding="full")
    return x, kernel, y


def convolution_stride() -> Results:
    """Convolve at every other place."""
    x = jnp.array(SEQUENCE, float)[None, :, None]
    kernel = jnp.array(KERNEL_1D)[:, None, None]
    y = convolution.conv1d(x, kernel, stride=2)
    return x, kernel, y


def convolution_derivative() -> Results:
    """Differentiate a convolution by its input."""
    x = jnp.array(SEQUENCE, float)[None, :, None]
    kernel = jnp.array([-1, 3, 2])[:, None, None]
    gradient = jnp.array([1.0, -2, 0, 3, 1])[None, :, None]
    y, pull = jax.vjp(lambda x: convolution.conv1d(x, kernel), x)
    (of_x,) = pull(gradient)
    full = convolution.conv1d(gradient, kernel[::-1], padding="full")
    return of_x, full


def convolution_2d() -> Results:
    """Convolve the lecture's image."""
    x = jnp.array(IMAGE)[None, :, :, None]
    kernel = jnp.array(KERNEL)[:, :, None, None]
    y = convolution.conv2d(x, kernel)
    return x, kernel, y


def convolution_2d_stride() -> Results:
    """Convolve the lecture's image at stride 2."""
    x = jnp.array(IMAGE)[None, :, :, None]
    kernel = jnp.array(KERNEL)[:, :, None, None]
    y = convolution.conv2d(x, kernel, stride=2)
    return x, kernel, y


def filters() -> Results:
    """Blur a photograph and find its edges; the entries of the box blurs."""
    image = jnp.array(photograph.load_photograph().mean(-1))[None, :, :, None]
    blurred = kernels.apply_per_channel(image, kernels.box_blur(3))
    edges = kernels.apply_per_channel(image, kernels.SOBEL_VERTICAL)
    entries = jnp.array([kernels.box_blur(3)[0, 0], kernels.box_blur(5)[0, 0]])
    entries = entries.round(3)
    return blurred, edges, entries


def feature_detectors() -> Results:
    """Detect vertical and horizontal edges: convolve, add a bias, take the ReLU."""
    x = jnp.array(LETTER)[None, :, :, None]
    detectors = (kernels.SOBEL_VERTICAL, kernels.SOBEL_HORIZONTAL)
    kernel = jnp.array(detectors, float).transpose(1, 2, 0)[:, :, None]
    bias = jnp.array([-2.0, -2.0])
    y = convolution.conv2d(x, kernel)
    biased = y + bias[None, None, None]
    detected = activation.relu(biased)
    return x, kernel, bias, y, biased, detected


def channels_1d() -> Results:
    """Convolve a sequence of three channels to one."""
    x = jnp.array(CHANNELS_1D)[None]
    kernel = jnp.array(KERNELS_1D)[:, :, :1]
    y = convolution.conv1d(x, kernel)
    return x, kernel, y


def layer_1d() -> Results:
    """Convolve a sequence of three channels to three."""
    x = jnp.array(CHANNELS_1D)[None]
    kernel = jnp.array(KERNELS_1D)
    y = convolution.conv1d(x, kernel)
    return x, kernel, y


def convolution_channels() -> Results:
    """Convolve an image of three channels to one."""
    x = jnp.array(CHANNELS)[None]
    kernel = jnp.array(KERNELS)[..., :1]
    y = convolution.conv2d(x, kernel)
    return x, kernel, y


def layer_2d() -> Results:
    """Convolve an image of three channels to two."""
    x = jnp.array(CHANNELS)[None]
    kernel = jnp.array(KERNELS)
    y = convolution.conv2d(x, kernel)
    return x, kernel, y


def max_pooling() -> Results:
    """Pool a sequence."""
    x = jnp.array(POOLED, float)[None, :, None]
    y = pooling.max_pool1d(x, window=3, stride=2)
    return x, y


def max_pooling_2d() -> Results:
    """Pool the lecture's image."""
    x = jnp.array(IMAGE)[None, :, :, None]
    y = pooling.max_pool2d(x, window=3, stride=2)
    return x, y


def max_pooling_window() -> Results:
    """Pool the lecture's image at every place; its window is at row 1, column 3."""
    x = jnp.array(IMAGE)[None, :, :, None]
    y = pooling.max_pool2d(x, window=3, stride=1)
    return x, y


def average_pooling() -> Results:
    """Average the lecture's image."""
    x = jnp.array(IMAGE[:6, :6])[None, :, :, None]
    y = pooling.avg_pool2d(x, window=2)
    return x, y


def convolution_max_pooling() -> Results:
    """Convolve the lecture's image, then pool what comes out."""
    x = jnp.array(IMAGE)[None, :, :, None]
    kernel = jnp.array(KERNEL)[:, :, None, None]
    y = convolution.conv2d(x, kernel)
    z = pooling.max_pool2d(y, window=3, stride=2)
    return x, kernel, y, z


def convolution_pixel_shuffle() -> Results:
    """Convolve a part of the lecture's image, then move pixels into channels."""
    x = jnp.array(IMAGE[:6, :6])[None, :, :, None]
    kernel = jnp.array(KERNEL)[:, :, None, None]
    y = convolution.conv2d(x, kernel)
    z = rearrange.space_to_depth(y, block_size=2)
    return x, kernel, y, z


def pixel_shuffle() -> Results:
    """Move pixels into channels."""
    x = jnp.array(IMAGE[:4, :4])[None, :, :, None]
    y = rearrange.space_to_depth(x, block_size=2)
    return x, y


def pixel_shuffle_inverse() -> Results:
    """Move channels into pixels."""
    x = rearrange.space_to_depth(jnp.array(IMAGE[:4, :4])[None, :, :, None], 2)
    y = rearrange.depth_to_space(x, block_size=2)
    return x, y


def downsampling() -> Results:
    """Shrink a photograph by 8 in five ways, to these heights, widths and channels."""
    image = jnp.array(photograph.load_photograph())[None]
    one_pixel = jnp.eye(3)[None, None]
    strided = convolution.conv2d(image, one_pixel, stride=8)
    largest = pooling.max_pool2d(image, 8)
    average = pooling.avg_pool2d(image, 8)
    blurred = kernels.apply_per_channel(image, kernels.gaussian(17, 4.0))
    without_aliases = convolution.conv2d(blurred, one_pixel, stride=8)
    deep = rearrange.space_to_depth(image, 8)
    shrunk = (strided, largest, average, without_aliases, deep)
    shapes = np.array([x.shape[1:] for x in shrunk])
    return shrunk, shapes


def global_average_pooling() -> Results:
    """Classify images of two sizes with the same weights."""
    weights, bias = jnp.array([[2.0, -1.0, 0.5]]), jnp.array([0.0, 3.0, 1.0])
    large = jnp.array(IMAGE)[None, :, :, None]
    small = large[:, :4, :5]
    averages = jnp.stack([pooling.global_avg_pool(x) for x in (large, small)])
    logits = averages @ weights + bias[None, None]
    averages = averages.round(4)
    return (large, small), (weights, bias), logits, averages


def mix_up() -> Results:
    """Blend an image of a 3 with one of an 8, and their labels."""
    from sklearn.datasets import load_digits

    images = jnp.array(load_digits().images[[3, 8]])[..., None] / 16
    labels = jnp.eye(10)[jnp.array([3, 8])]
    shares = (0.75, 0.5, 0.25)
    pairs = [mixing.mix_up(images, labels, jnp.full(2, share)) for share in shares]
    mixed = jnp.stack([blended[0] for blended, _ in pairs])
    targets = jnp.stack([blended[0, jnp.array([3, 8])] for _, blended in pairs])
    return images, mixed, targets


def cut_out() -> Results:
    """Cover a square of an image of a 3, at another place in each epoch."""
    from sklearn.datasets import load_digits

    images = jnp.array(load_digits().images[[3]])[..., None] / 16
    labels = jnp.eye(10)[jnp.array([3])]
    epochs = jax.random.split(jax.random.key(1), 3)
    covered = jnp.stack([mixing.cut_out(x[None], images, 4, 0.5)[0] for x in epochs])
    target = labels[0, 3]
    return images, covered, target


def alexnet() -> Results:
    """Count the parameters of AlexNet as it was published."""
    model = models.create_model(ModelOptions(model="alexnet_2012"), 1000)
    images = jnp.zeros((1, 227, 227, 3))
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    parameters = sum(x.size for x in jax.tree.leaves(variables["params"]))
    return variables, parameters


def wide_resnet_blocks() -> Results:
    """Count the kernels' weights in a block of each of the four kinds."""
    kinds = (
        {"model": "wrn_16_1"},
        {"model": "wrn_16_1", "wrn_block": (1, 3, 1)},
        {"model": "wrn_16_4"},
        {"model": "wrn_16_4", "dropout_rate": 0.3},
    )
    images, weights = jnp.zeros((1, 32, 32, 3)), []
    for kind in kinds:
        model = models.create_model(ModelOptions(**kind), 10)
        variables = jax.eval_shape(model.init, jax.random.key(0), images)
        block = variables["params"]["stage1_block2"]
        weights.append(sum(x.size for x in jax.tree.leaves(block) if x.ndim == 4))
    return kinds, weights


# By the name of the slide.
LINES: dict[str, Callable[[], Results]] = {
    "image_scalings": image_scalings,
    "image_channels": image_channels,
    "image_layouts": image_layouts,
    "alignment": alignment,
    "connections_dense": connections_dense,
    "connections_locally_connected": connections_locally_connected,
    "connections_convolutional": connections_convolutional,
    "convolution_valid": convolution_valid,
    "convolution_same": convolution_same,
    "convolution_full": convolution_full,
    "convolution_stride": convolution_stride,
    "convolution_derivative": convolution_derivative,
    "convolution_2d": convolution_2d,
    "convolution_2d_stride": convolution_2d_stride,
    "filters": filters,
    "feature_detectors": feature_detectors,
    "channels_1d": channels_1d,
    "layer_1d": layer_1d,
    "convolution_channels": convolution_channels,
    "layer_2d": layer_2d,
    "max_pooling": max_pooling,
    "max_pooling_2d": max_pooling_2d,
    "max_pooling_window": max_pooling_window,
    "average_pooling": average_pooling,
    "convolution_max_pooling": convolution_max_pooling,
    "convolution_pixel_shuffle": convolution_pixel_shuffle,
    "pixel_shuffle": pixel_shuffle,
    "pixel_shuffle_inverse": pixel_shuffle_inverse,
    "downsampling": downsampling,
    "global_average_pooling": global_average_pooling,
    "mix_up": mix_up,
    "cut_out": cut_out,
    "alexnet": alexnet,
    "wide_resnet_blocks": wide_resnet_blocks,
}


def write(name: str) -> str:
    """Write the lines of a slide as a reader types them, from the first import on.

    Returns:
        A program that prints the slide's number.
    """
    source = textwrap.dedent(inspect.getsource(LINES[name]))
    function = ast.parse(source).body[0]
    first, last = function.body[1], function.body[-1]
    lines = source.splitlines()[first.lineno - 1 : last.lineno - 1]
    printed = last.value.elts[-1].id
    body = f"{textwrap.dedent('\n'.join(lines))}\nprint(np.squeeze({printed}))"
    return f"{_write_imports(body)}\n\n{body}"


def compute_number(name: str) -> Any:
    """Run the lines of a slide and return its number."""
    return LINES[name]()[-1]


def _write_imports(body: str) -> str:
    """Write those of this file's imports that some lines need."""
    used = {x.id for x in ast.walk(ast.parse(body)) if isinstance(x, ast.Name)}
    written = []
    for node in ast.parse(Path(__file__).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            kept = [x for x in node.names if (x.asname or x.name) in used]
            node.names = kept
            written += [ast.unparse(node)] if kept else []
    return "\n".join(written)

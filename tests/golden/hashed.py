"""Numbers from a closed-form integer hash, the same wherever they are computed.

Weights, images and labels of the parity files come from here on PyTorch's side and
on ours, so that none of them is stored. Only numpy is used.
"""

import zlib

import numpy as np

NUM_CLASSES = 10
# Found in the names of deep nets alone: ResNets from 34 layers, MobileNet v2, RegNet,
# ShuffleNet, Inceptions, EfficientNets larger than B0, MobileNet v3 large, MnasNet, and
# ResNets v2 of bottlenecks, of which BiT has no running statistics by which to know it.
_RESNET_V2 = "stages.2.blocks.5.norm3."
_DEEP = ("layer3.5.", "conv.0.1.", "trunk_output.", "branch2.6.", _RESNET_V2)
_DEEP += ("inception5b.", "Mixed_7c.", "features.6.4.block.", "features.12.block.")
_DEEP += ("layers.8.0.layers.",)
# Squeeze and excitation.
_EXCITE = (".fc", ".se.", "squeeze_excite", ".attention.")
EVAL_IMAGES, BATCH_SIZE, STEPS = 2, 8, 20
# What is evaluated on images of 64x64 pixels instead of 224x224: published for more
# than 5e9 multiply-accumulates, which is much for a test. Two of them are trained.
LARGE = {"convnext_small", "convnext_base", "convnext_large", "regnet_x_8gf"}
LARGE |= {"regnet_x_16gf", "regnet_x_32gf", "regnet_y_8gf", "regnet_y_16gf"}
LARGE |= {"regnet_y_32gf", "regnet_y_128gf"}
LARGE |= {f"efficientnet_b{n}" for n in (5, 6, 7)}
LARGE |= {f"efficientnet_v2_{size}" for size in "sml"}
UNTRAINED = LARGE - {"efficientnet_b5", "efficientnet_v2_s"}
# Sides of evaluated and of trained images, in pixels, where they are not 224 and 64.
SIZES = dict.fromkeys(LARGE, (64, 64)) | {"inception_v3": (299, 299)}


def make_uniform(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Make float32 numbers in [0, 1), exact multiples of 2 ** -24."""
    index = np.arange(int(np.prod(shape)), dtype=np.uint32)
    with np.errstate(over="ignore"):
        index *= np.uint32(0x9E3779B1)
        index += np.uint32(zlib.crc32(name.encode()))
        for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35), (16, 1)):
            index ^= index >> np.uint32(shift)
            index *= np.uint32(factor)
    return ((index >> np.uint32(8)).astype(np.float32) / 2**24).reshape(shape)


def make_state_dict(shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Make the tensors of a PyTorch state dict, from their shapes by name.

    Activations stay near 1 in evaluation. Where there is batch normalisation, kernels
    are ten times as large, which it undoes, and the head's small: 20 steps then move
    them less, and two programs that round differently stay together. For the same
    reason normalised activations of deep nets lie away from the ReLU's kink.
    """
    normalised = any(name.endswith("running_var") for name in shapes)
    normalised = normalised or any(_RESNET_V2 in name for name in shapes)
    deep = any(part in name for name in shapes for part in _DEEP)
    return {name: _make(name, shapes[name], normalised, deep) for name in shapes}


def _make(
    name: str, shape: tuple[int, ...], normalised: bool, deep: bool
) -> np.ndarray:
    if name.endswith("num_batches_tracked"):
        return np.zeros((), np.int64)
    u = make_uniform(name, shape)
    if name.endswith("running_var"):
        return np.float32(8) + np.float32(16) * u
    if deep and len(shape) == 1 and name.endswith("weight"):
        return np.float32(0.1) + np.float32(0.2) * u
    if deep and name.endswith("bias") and shape[0] != NUM_CLASSES:
        return np.float32(0.1) + np.float32(0.2) * u
    if name.endswith(("running_mean", "bias")):
        return np.float32(0.2) * u - np.float32(0.1)
    if name.endswith("layer_scale"):
        return np.float32(0.2) + np.float32(0.2) * u
    if len(shape) == 1:
        return np.float32(0.2) + np.float32(0.4) * u
    if len(shape) == 2 or shape[0] == NUM_CLASSES:
        gain = 0.05 if normalised else 0.1
    elif any(part in name for part in _EXCITE):
        gain = 6  # not normalised
    else:
        gain = 600 if normalised else 6
    bound = np.float32((gain / np.prod(shape[1:])) ** 0.5)
    return (2 * u - 1) * bound


def make_images(name: str, count: int, size: int) -> np.ndarray:
    """Make float32 images [N, C, H, W] of unit variance."""
    u = make_uniform(name, (count, 3, size, size))
    return (2 * u - 1) * np.float32(3**0.5)


def make_labels(name: str, count: int) -> np.ndarray:
    """Make int64 labels [N]."""
    return (make_uniform(name, (count,)) * NUM_CLASSES).astype(np.int64)

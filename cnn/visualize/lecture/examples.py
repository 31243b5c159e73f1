"""The numbers of the lecture's worked examples, and those that we add to them."""

import numpy as np

# One dimension: the lecture's alignment, its windows 5 7 0 and 1 4 7, its kernel.
ALIGNED, WEIGHTS = (0.2, 0.7, 0.5, 0.3, 1), (0.8, 0, 0.8, 0.2)
SEQUENCE, KERNEL_1D = (1, 4, 7, 5, 7, 0, 2), (-1, 3, -1)
POOLED = (1, 4, 7, 5, 2, 0, 3)
# Two dimensions: the lecture's image, float32 [7, 7], and its kernel, float32 [3, 3].
IMAGE = np.array(
    [
        [5, -1, 3, 8, 4, 6, -2],
        [-3, 4, 9, 1, 1, 7, -4],
        [5, -6, 3, 2, 1, -2, 0],
        [0, -8, 5, 5, 4, -2, 3],
        [4, 7, 2, -7, 3, 1, 4],
        [4, -3, 1, 2, 6, 1, -1],
        [0, 0, 3, -2, 3, -1, 0],
    ],
    np.float32,
)
KERNEL = np.array([[-1, -2, -1], [0, 0, 0], [1, 2, 1]], np.float32)
# Channels: [L, C] and [S, C, O] in one dimension, [H, W, C] and [S, S, C, O] in two.
CHANNELS_1D = np.array(
    [[1, 2, 0], [4, 0, 1], [7, -1, 3], [5, 3, 2], [7, 1, -2]], np.float32
)
KERNELS_1D = np.array(
    [
        [[-1, 1, 0], [0, 1, 2], [1, 0, -1]],
        [[3, 0, 1], [2, -1, 0], [0, 1, 1]],
        [[-1, 0, 1], [0, 1, -2], [-1, 0, 1]],
    ],
    np.float32,
)
CHANNELS = np.stack([IMAGE[:4, :4], IMAGE[:4, 3:], IMAGE[3:, :4]], axis=-1)
_FIRST = np.stack([KERNEL, KERNEL.T, np.diag([0, 1, 0]).astype(np.float32)], axis=-1)
KERNELS = np.stack([_FIRST, _FIRST[..., ::-1]], axis=-1)
# Pixels: whole numbers 0-255, grey [H, W] with the lecture's 192, and RGB [H, W, 3].
GREY = np.array(
    [
        [0, 32, 64, 32, 0],
        [32, 128, 192, 128, 32],
        [64, 192, 255, 192, 64],
        [32, 128, 192, 128, 32],
        [0, 32, 64, 32, 0],
    ],
    np.uint8,
)
COLOUR = np.array(
    [
        [[120, 190, 255], [120, 190, 255], [255, 220, 60], [120, 190, 255]],
        [[120, 190, 255], [200, 40, 30], [120, 190, 255], [120, 190, 255]],
        [[200, 40, 30], [240, 230, 210], [200, 40, 30], [120, 190, 255]],
        [[60, 150, 50], [60, 150, 50], [60, 150, 50], [60, 150, 50]],
    ],
    np.uint8,
)
# What the feature detectors look at: a bright T on black, float32 [6, 6].
LETTER = np.array(
    [
        [0, 0, 0, 0, 0, 0],
        [0, 1, 1, 1, 1, 0],
        [0, 0, 1, 1, 0, 0],
        [0, 0, 1, 1, 0, 0],
        [0, 0, 1, 1, 0, 0],
        [0, 0, 0, 0, 0, 0],
    ],
    np.float32,
)

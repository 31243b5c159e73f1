"""How one array becomes a PyTorch tensor and back, bit for bit.

Convolution kernels are [S, S, I, O] here and [O, I, S, S] there; dense kernels [I, O]
here and [O, I] there, and behind a flattening I is in the order H, W, C here and C, H,
W there. Everything else has the same order.
"""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Layout:
    """One array's order on both sides.

    Attributes:
        kind: `kernel`, or `other` for what is the same on both sides.
        side: of the feature map in pixels, where a dense kernel follows a flattening;
            else 0.
        reshaped: PyTorch's shape, where it is not the usual one; -1 is what is left.
    """

    kind: str
    side: int = 0
    reshaped: tuple[int, ...] | None = None

    def torch_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return PyTorch's shape of an array of ours."""
        if self.reshaped is not None:
            known = -int(np.prod(self.reshaped))
            rest = int(np.prod(shape)) // known
            return tuple(rest if size == -1 else size for size in self.reshaped)
        return self._canonical_shape(shape)

    def _canonical_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        if self.kind == "kernel" and len(shape) == 4:
            return (shape[3], shape[2], shape[0], shape[1])
        if self.kind == "kernel" and len(shape) == 2:
            return (shape[1], shape[0])
        return shape

    def to_torch(self, array: np.ndarray) -> np.ndarray:
        """Turn our array into PyTorch's."""
        there = self.torch_shape(array.shape)
        if self.kind == "kernel" and array.ndim == 4:
            array = array.transpose(3, 2, 0, 1)
        elif self.kind == "kernel" and array.ndim == 2:
            if self.side:
                outputs = array.shape[1]
                array = array.reshape(self.side, self.side, -1, outputs)
                array = array.transpose(2, 0, 1, 3).reshape(-1, outputs)
            array = array.T
        return np.ascontiguousarray(array).reshape(there)

    def from_torch(self, array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """Turn PyTorch's array into ours, of the given shape."""
        array = array.reshape(self._canonical_shape(shape))
        if self.kind == "kernel" and array.ndim == 4:
            array = array.transpose(2, 3, 1, 0)
        elif self.kind == "kernel" and array.ndim == 2:
            array = array.T
            if self.side:
                outputs = array.shape[1]
                array = array.reshape(-1, self.side, self.side, outputs)
                array = array.transpose(1, 2, 0, 3)
        return np.ascontiguousarray(array).reshape(shape)

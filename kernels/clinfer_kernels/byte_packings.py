"""How constant weights of 8-bit integers are packed: records of numbers, as `packings`."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import numpy as np


FLIP = 0x80
"""What turns a signed byte into an unsigned one that is greater by 128, and back."""
_INT = 4  # bytes
_SAME = 0x01010101  # a byte, four times


class ConvBytes(NamedTuple):
    """Weights of a convolution: [groups][ceil(M / cols)] panels of ints, then a row of zero points.

    panel   [what sums begin with][taps][C / 4][cols][4 bytes]       filters beyond M are zeros
    """

    cols: int
    groups: int
    zero: int
    signed: bool
    deep: int = 4

    @property
    def key(self) -> str:
        """The layout's name, for `Pack`."""
        sign = "signed" if self.signed else "unsigned"
        return f"integer-conv-{self.cols}-{self.groups}-{self.zero}-{sign}-{self.deep}"

    def pack(self, array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """ONNX weights [M, C / groups, taps...] as one flat array of int32."""
        import numpy as np

        if self.deep > 4:
            return self._pack_deep(array)
        filters, channels = array.shape[0] // self.groups, array.shape[1]
        each = -(-filters // self.cols)
        steps = -(-channels // 4)
        taps = math.prod(array.shape[2:])
        padded = np.zeros((self.groups, each * self.cols, steps * 4, taps), np.int8)
        shape = (self.groups, filters, channels, taps)
        padded[:, :filters, :channels] = array.reshape(shape)
        sums = padded.sum((2, 3), dtype=np.int32).reshape(self.groups, each, 1, self.cols)
        four = padded.reshape(self.groups, each, self.cols, steps, 4, taps)
        rows = np.ascontiguousarray(four.transpose(0, 1, 5, 3, 2, 4)).view(np.int32)
        rows = rows.reshape(self.groups, each, taps * steps, self.cols)
        begin = -(self.zero + (FLIP if self.signed else 0)) * sums
        panels = np.concatenate([begin, rows], axis=2, dtype=np.int32).reshape(-1)
        zeros = np.full(array.shape[-1] * steps * 4, self.zero & 0xFF, np.uint8)
        return np.concatenate([panels, zeros.view(np.int32)])

    def _pack_deep(self, array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """The same with taps and channels as one axis of whole `deep`; no zeros behind."""
        import numpy as np

        filters, channels = array.shape[0] // self.groups, array.shape[1]
        each = -(-filters // self.cols)
        inner = channels * math.prod(array.shape[2:])
        padded = np.zeros(
            (self.groups, each * self.cols, -(-inner // self.deep) * self.deep), np.int8
        )
        last = np.moveaxis(array, 1, -1).reshape(self.groups, filters, inner)
        padded[:, :filters, :inner] = last
        sums = padded.sum(2, dtype=np.int32).reshape(self.groups, each, 1, self.cols)
        four = padded.reshape(self.groups, each, self.cols, -1, 4).transpose(0, 1, 3, 2, 4)
        rows = np.ascontiguousarray(four).view(np.int32)[..., 0]
        return np.concatenate([-self.zero * sums, rows], axis=2, dtype=np.int32).reshape(-1)


class DepthwiseBytes(NamedTuple):
    """Weights of a depthwise convolution; see `depthwise_integer.cl`."""

    deep: int
    zero: int
    signed: bool

    @property
    def key(self) -> str:
        """The layout's name, for `Pack`."""
        sign = "signed" if self.signed else "unsigned"
        return f"depthwise-integer-{self.deep}-{self.zero}-{sign}"

    def pack(self, array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """ONNX weights [C, 1, taps...] as one flat array of int32."""
        import numpy as np

        channels, width = array.shape[0], array.shape[-1]
        taps = array.reshape(channels, -1, width)
        groups = -(-taps.shape[1] // self.deep)
        padded = np.zeros((channels, groups * self.deep, width), np.int8)
        padded[:, : taps.shape[1]] = taps
        four = np.zeros((groups, width, channels, _INT), np.int8)
        rows = padded.reshape(channels, groups, self.deep, width)
        four[..., : self.deep] = rows.transpose(1, 3, 0, 2)
        begin = -(self.zero + (FLIP if self.signed else 0)) * taps.sum((1, 2), dtype=np.int32)
        zeros = np.full(16, (self.zero & 0xFF) * _SAME, np.uint32).view(np.int32)
        ints = four.view(np.int32).reshape(-1)
        return np.concatenate([begin, ints, zeros], dtype=np.int32)


class MatrixBytes(NamedTuple):
    """A matrix in panels of `cols` columns as ints of four bytes, K up to a multiple of `deep`.

    `added`: how much more A's bytes are taken for.
    """

    cols: int
    added: int
    deep: int = 4

    @property
    def key(self) -> str:
        """The layout's name, for `Pack`."""
        return f"integer-panels-{self.cols}-{self.added}-{self.deep}"

    def pack(self, array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """[k, n] of int8 as [ceil(n / cols), 1 + ceil(k / 4), cols] of int32."""
        import numpy as np

        k, n = array.shape
        panels, steps = -(-n // self.cols), -(-k // self.deep) * (self.deep // 4)
        padded = np.zeros((steps * 4, panels * self.cols), np.int8)
        padded[:k, :n] = array
        packed = np.empty((panels, steps + 1, self.cols), np.int32)
        sums = padded.sum(axis=0, dtype=np.int32).reshape(panels, self.cols)
        packed[:, 0] = -self.added * sums
        four = padded.reshape(steps, 4, panels, self.cols).transpose(2, 0, 3, 1)
        packed[:, 1:] = np.ascontiguousarray(four).view(np.int32)[..., 0]
        return packed


BYTE_PACKINGS = (ConvBytes, DepthwiseBytes, MatrixBytes)
"""Those that a plan can name."""

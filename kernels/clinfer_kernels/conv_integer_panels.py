"""Constant weights of convolutions of 8-bit integers, packed when the model is compiled."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from clinfer_kernels.integer_dot import FLIP

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class IntegerPanels:
    """Packed weights: [groups][ceil(M / cols)] panels of ints, and a row of zero points behind.

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

"""What DequantizeLinear and QuantizeLinear with constant scales say about integers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from clinfer.graph.ir import Array, Node, Value
from clinfer.passes.canonicalise.integers import BYTES
from clinfer.passes.query import normal_axis, scalar


@dataclass(frozen=True)
class Encoded:
    """What DequantizeLinear reads; `axis` is None for one scale and zero point of all elements."""

    data: Value
    scale: Array
    zero: Value | None
    axis: int | None

    @property
    def is_like(self) -> tuple[str | None, bytes, int]:
        """Equal for tensors whose equal integers stand for equal numbers."""
        zero = 0 if self.zero is None else int(scalar(self.zero) or 0)
        return self.data.dtype, self.scale.tobytes(), zero


def encoded(value: Value | None) -> Encoded | None:
    """The 8-bit integers that a float32 value stands for, with constant scales."""
    node = None if value is None else value.producer
    if node is None or node.kind != "DequantizeLinear" or node.output.dtype != "float32":
        return None
    data, scale, zero = node.required(0), node.required(1).const, node.input(2)
    if data.dtype not in BYTES or scale is None or node.attrs.get("block_size", 0):
        return None
    if data.shape is None or scale.dtype != np.float32 or (zero is not None and zero.const is None):
        return None
    if scale.size == 1:
        return Encoded(data, scale.reshape(()), zero, None)
    if scale.ndim != 1:
        return None
    return Encoded(data, scale, zero, normal_axis(node.attrs.get("axis", 1), len(data.shape)))


def encoding(node: Node) -> tuple[str | None, bytes, int] | None:
    """What QuantizeLinear makes, as `Encoded.is_like`; None where its scale is no one constant."""
    scale, zero = node.required(1).const, node.input(2)
    if scale is None or scale.size != 1 or scale.dtype != np.float32:
        return None
    if node.required(0).dtype != "float32" or node.attrs.get("block_size", 0):
        return None
    point = 0 if zero is None else scalar(zero)
    return None if point is None else (node.output.dtype, scale.tobytes(), int(point))

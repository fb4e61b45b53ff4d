"""Operators that ONNX has too, now or under another name."""

from __future__ import annotations

from clinfer.graph.contrib.maker import Maker, Rule
from clinfer.graph.ir import Value


def _same(make: Maker) -> Value:
    return make(make.node.op, *make.node.inputs, **make.node.attrs)


def _range(make: Maker) -> Value:
    """A step of 1 where none is given."""
    step = make.input(2)
    parts = [make.x(0), make.x(1), make.like([1], make.x(0)) if step is None else step]
    return make("Range", *(make.reshape(part) for part in parts))


def _expand_dims(make: Maker) -> Value:
    return make("Unsqueeze", make.x(0), make.reshape(make.cast(make.x(1), "int64"), 1))


RULES: dict[str, Rule] = {
    **dict.fromkeys(("QuantizeLinear", "DequantizeLinear", "GatherND", "Pad", "Trilu"), _same),
    "Range": _range,
    "ExpandDims": _expand_dims,
}

"""Operators that ONNX has too, now or under another name, and text, which is the host's."""

from __future__ import annotations

from clinfer.graph import numpy_tokens
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


def _grid_sample(make: Maker) -> Value:
    """ONNX's, whose ways have other names."""
    names = {"bilinear": "linear", "bicubic": "cubic"}
    mode = make.attr("mode", "bilinear")
    attrs = make.node.attrs | {"mode": names.get(mode, mode)}
    return make("GridSample", make.x(0), make.x(1), **attrs)


def _tokenizer(make: Maker) -> Value:
    """Text is the host's; what its expressions are is known when the model is read."""
    numpy_tokens.cutter(make.node.attrs)
    return make("clinfer.Tokenize", make.x(0), **make.node.attrs)


def _hash(make: Maker) -> Value:
    return make("clinfer.Hash", make.x(0), **make.node.attrs)


RULES: dict[str, Rule] = {
    **dict.fromkeys(("QuantizeLinear", "DequantizeLinear", "GatherND", "Pad", "Trilu"), _same),
    "GridSample": _grid_sample,
    "Range": _range,
    "Tokenizer": _tokenizer,
    "MurmurHash3": _hash,
    "ExpandDims": _expand_dims,
}

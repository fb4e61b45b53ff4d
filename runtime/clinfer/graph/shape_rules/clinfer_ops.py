"""Operators of the domain `clinfer`: the pass that makes one gives its outputs their types."""

from __future__ import annotations

from clinfer.graph.shape_call import Call, Rule, Type


def set_by_pass(call: Call) -> list[Type]:
    """What the outputs say already."""
    return call.keep()


def decode(call: Call) -> list[Type]:
    """Decode: numbers of the scale's type."""
    return [Type(call.dtype(1), call.node.required(0).shape)]


def encoded_matmul(call: Call) -> list[Type]:
    """EncodedMatMul: rows of the first input, columns of the matrix."""
    a, b = call.node.required(0), call.node.required(1)
    if a.shape is None or b.shape is None:
        return call.keep()
    return [Type(call.node.output.dtype, (*a.shape[:-1], b.shape[-1]))]


def tokenize(call: Call) -> list[Type]:
    """Tokenize: how many tokens the longest string has is known only when it has run."""
    shape = call.shape(0)
    return [Type(call.dtype(0), (*shape, call.fresh(0, len(shape))))]


def hashed(call: Call) -> list[Type]:
    """Hash: a number for each element."""
    kind = "uint32" if call.node.attrs.get("positive", 1) else "int32"
    return [Type(kind, call.node.required(0).shape)]


_KINDS = "Pointwise Conv ConvTranspose Pool Softmax Norm Attention Recurrent Random Seed Squeeze"

RULES: dict[str, Rule] = {f"clinfer.{kind}": set_by_pass for kind in _KINDS.split()}
RULES |= {
    "clinfer.Decode": decode,
    "clinfer.EncodedMatMul": encoded_matmul,
    "clinfer.Tokenize": tokenize,
    "clinfer.Hash": hashed,
}

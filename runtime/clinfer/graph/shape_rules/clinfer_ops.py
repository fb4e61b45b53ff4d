"""Operators of the domain `clinfer`: the pass that makes one gives its outputs their types."""

from __future__ import annotations

from clinfer.graph.shape_call import Call, Rule, Type


def set_by_pass(call: Call) -> list[Type]:
    """What the outputs say already."""
    return call.keep()


_KINDS = "Pointwise Conv ConvTranspose Pool Softmax Norm Attention Recurrent"

RULES: dict[str, Rule] = {f"clinfer.{kind}": set_by_pass for kind in _KINDS.split()}

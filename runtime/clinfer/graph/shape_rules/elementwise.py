"""Elementwise operators, from the kernel library's table: NumPy broadcasting of all inputs."""

from __future__ import annotations

from clinfer.graph.shape_call import Call, Rule, Type, UnknownShape
from clinfer_kernels.onnx_pointwise import POINTWISE

# In the table because kernels compute them; their rules are in `quantize` and `reduce`.
_ELSEWHERE = frozenset({"Cast", "CastLike", "Identity"})


def broadcast(call: Call) -> list[Type]:
    """The inputs' broadcast shape; Clip's bounds are scalars and do not take part."""
    shapes = [call.shape(i) for i in range(call.count) if call.has(i)]
    dtypes = [call.dtype(i) for i in range(call.count) if call.has(i)]
    known = [dtype for dtype in dtypes if dtype is not None]
    if len(known) != len(dtypes):
        raise UnknownShape
    shape = shapes[0] if call.op == "Clip" else call.broadcast(*shapes)
    return [Type(POINTWISE[call.node.kind].dtype(known, call.node.attrs), shape)]


RULES: dict[str, Rule] = dict.fromkeys(POINTWISE.keys() - _ELSEWHERE, broadcast)

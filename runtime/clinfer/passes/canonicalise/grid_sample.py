"""GridSample between transposes: channels last, as its kernel reads them."""

from __future__ import annotations

from clinfer.graph.ir import Node
from clinfer.passes.rewrite import Outcome, Refusal, Rewriter, Rule

_FLOATS = frozenset({"float16", "bfloat16", "float32", "float64"})
_MODES = ("nearest", "linear", "cubic")
_MOST_AXES = 4


def grid_sample(rw: Rewriter, node: Node) -> Outcome:
    """x [N, C, sizes...] at grid [N, outs..., d]: y [N, C, outs...]."""
    x, grid = node.required(0), node.required(1)
    mode = str(node.attrs.get("mode", "linear"))
    if mode not in _MODES or x.dtype not in _FLOATS or grid.dtype not in _FLOATS:
        return Refusal(f"its mode is '{mode}', its dtypes {x.dtype} and {grid.dtype}")
    batch, channels, *sizes = x.known_shape
    rank = len(sizes)
    if rank > _MOST_AXES:
        return Refusal(f"it is over {rank} axes, more than {_MOST_AXES}")
    attrs = {
        "mode": mode,
        "padding_mode": str(node.attrs.get("padding_mode", "zeros")),
        "align_corners": int(node.attrs.get("align_corners", 0)),
    }
    last = rw.transpose(x, (0, *range(2, rank + 2), 1))
    shape = (batch, *grid.known_shape[1:-1], channels)
    made = rw.emit("GridSample", [last, grid], x.dtype, shape, attrs=attrs, domain="clinfer")
    return rw.transpose(made, (0, rank + 1, *range(1, rank + 1)))


RULES = (Rule("grid-sample", ("GridSample",), grid_sample),)

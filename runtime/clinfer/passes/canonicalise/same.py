"""Windows with auto_pad SAME and a stride over sizes that only a run knows: padded before.

How much is padded depends on the size: max((ceil(n / s) - 1) s + extent - n, 0) along each axis.
"""

from __future__ import annotations

import numpy as np

from clinfer.dtypes import to_numpy
from clinfer.graph.ir import Node, Value
from clinfer.passes.canonicalise.maker import number, sizes_value
from clinfer.passes.rewrite import Outcome, Refusal, Rewriter, Rule
from clinfer_kernels.dims import Dim, ceildiv, floordiv, maximum


def pad_before(rw: Rewriter, node: Node) -> Outcome:
    """The same window without padding, over what a Pad gives."""
    x = node.required(0)
    auto = str(node.attrs.get("auto_pad", "NOTSET"))
    if not auto.startswith("SAME") or x.shape is None:
        return None
    kernel = node.required(1).shape[2:] if node.op == "Conv" else None  # type: ignore[index]
    taps = node.attrs.get("kernel_shape") or kernel
    if taps is None or not all(isinstance(n, int) for n in taps):
        return Refusal("the size of its kernel is not known")
    rank = len(taps)
    strides = node.attrs.get("strides") or [1] * rank
    steps = node.attrs.get("dilations") or [1] * rank
    if all(isinstance(n, int) or s == 1 for n, s in zip(x.shape[2:], strides, strict=True)):
        return None  # `passes.window` knows the padding
    if any(value is not None for value in node.outputs[1:]):
        return Refusal("it also gives where the values were, of what is not padded")
    begins: list[Dim] = [0, 0]
    ends: list[Dim] = [0, 0]
    for size, tap, stride, step in zip(x.shape[2:], taps, strides, steps, strict=True):
        extent = (tap - 1) * step + 1
        total = maximum((ceildiv(size, stride) - 1) * stride + extent - size, 0)
        small = floordiv(total, 2)
        pair = (small, total - small)
        begin, end = pair if auto == "SAME_UPPER" else pair[::-1]
        begins.append(begin)
        ends.append(end)
    attrs = {k: v for k, v in node.attrs.items() if k not in ("auto_pad", "pads", "ceil_mode")}
    padding = (begins, ends)
    if node.op == "AveragePool" and not node.attrs.get("count_include_pad", 0):
        ones = rw.emit("Expand", [number(rw, 1, x.dtype)], x.dtype, (1, 1, *x.shape[2:]))
        shares = _windowed(rw, node, _padded(rw, ones, padding, 0), attrs)
        means = _windowed(rw, node, _padded(rw, x, padding, 0), attrs)
        return rw.emit("Div", [means, shares], x.dtype, node.output.shape, version=14)
    fill = _lowest(x.dtype or "float32") if node.op == "MaxPool" else 0
    return _windowed(rw, node, _padded(rw, x, padding, fill), attrs)


def _lowest(dtype: str) -> float:
    numpy = to_numpy(dtype)
    return -np.inf if numpy.kind not in "iu" else int(np.iinfo(numpy).min)


def _padded(rw: Rewriter, x: Value, padding: tuple[list[Dim], list[Dim]], fill: float) -> Value:
    begins, ends = padding
    shape = tuple(b + n + e for b, n, e in zip(begins, x.known_shape, ends, strict=True))
    inputs = [x, sizes_value(rw, [*begins, *ends]), number(rw, fill, x.dtype)]
    return rw.emit("Pad", inputs, x.dtype, shape, attrs={"mode": "constant"}, version=13)


def _windowed(rw: Rewriter, node: Node, x: Value, attrs: dict[str, object]) -> Value:
    sizes = node.output.known_shape
    shape = (x.known_shape[0], sizes[1] if node.op == "Conv" else x.known_shape[1], *sizes[2:])
    inputs = [x, *node.inputs[1:]]
    return rw.emit(node.op, inputs, node.output.dtype, shape, attrs=attrs, version=node.version)


RULES = (Rule("same-of-free-sizes", ("Conv", "MaxPool", "AveragePool", "LpPool"), pad_before),)

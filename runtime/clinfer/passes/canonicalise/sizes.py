"""Operators whose inputs say sizes: attributes where those are known."""

from __future__ import annotations

import numpy as np

from clinfer.dtypes import to_numpy
from clinfer.graph.ir import Node, Value
from clinfer.graph.numpy_resize import filters
from clinfer.passes.canonicalise.views import emit_slice
from clinfer.passes.query import integers, inverse, normal_axis, sizes
from clinfer.passes.rewrite import Outcome, Refusal, Rewriter, Rule
from clinfer_kernels.dims import Dim

_RESIZE_OPTIONS = {
    "mode": "nearest",
    "coordinate_transformation_mode": "half_pixel",
    "nearest_mode": "round_prefer_floor",
    "cubic_coeff_a": -0.75,
    "exclude_outside": 0,
    "extrapolation_value": 0.0,
}
_FILTERED = ("float32", "float64")


def constant_of_shape(rw: Rewriter, node: Node) -> Outcome:
    """One scalar, expanded."""
    shape = node.output.known_shape
    if sizes(node.required(0)) is None:
        return Refusal("its sizes are computed from data")
    content = np.asarray(node.attrs.get("value", np.zeros((), np.float32))).reshape(())
    element = rw.constant(content)
    return rw.emit("Expand", [element], element.dtype, shape)


def drop_pad(_: Rewriter, node: Node) -> Outcome:
    """Padding by nothing is the identity."""
    pads = integers(node.required(1))
    return node.required(0) if pads is not None and not any(pads) else None


def cut_pad(rw: Rewriter, node: Node) -> Outcome:
    """Negative pads that are known are a Slice before: what is left is continued."""
    x = node.required(0)
    pads = integers(node.required(1))
    if node.attrs.get("mode", "constant") == "constant" or pads is None or min(pads) >= 0:
        return None
    rank = len(x.known_shape)
    given = node.input(3)
    axes = list(range(rank)) if given is None else integers(given)
    if axes is None:
        return None
    shape = list(x.known_shape)
    kept: dict[int, tuple[Dim, int]] = {}
    for number, named in enumerate(axes):
        axis = normal_axis(named, rank)
        begin, end = (max(-pads[number + k], 0) for k in (0, len(axes)))
        if begin or end:
            kept[axis] = (begin, 1)
            shape[axis] = shape[axis] - begin - end
    part = emit_slice(rw, x, kept, Value("", x.dtype, tuple(shape)))
    amounts = rw.constant(np.maximum(np.array(pads, np.int64), 0))
    inputs = [part, amounts, node.input(2), given]
    return rw.emit(
        "Pad", inputs, x.dtype, node.output.shape, attrs=node.attrs, version=node.version
    )


def resize(rw: Rewriter, node: Node) -> Outcome:
    """Resize(x): sizes are the output's shape; `scales` are the factors given for `axes`."""
    x = node.required(0)
    if len(node.inputs) == 1 and "scales" in node.attrs:
        return None
    shape = node.output.known_shape
    attrs = node.attrs
    if attrs.get("keep_aspect_ratio_policy", "stretch") != "stretch":
        return Refusal("it keeps the aspect ratio")
    if attrs.get("coordinate_transformation_mode") == "tf_crop_and_resize":
        return Refusal("it resizes a part of its input")
    if attrs.get("antialias", 0) and attrs.get("mode", "nearest") != "nearest":
        return _antialiased(rw, node)
    scales = node.input(2)
    given = None if scales is None else scales.const
    if given is None and sizes(node.input(3)) is None:
        return Refusal("its scales or sizes are computed from data")
    rank = len(x.known_shape)
    named = [normal_axis(a, rank) for a in attrs.get("axes", range(rank))]
    factors = {} if given is None else dict(zip(named, given.tolist(), strict=True))
    kept = [a for a in sorted(factors) if factors[a] != 1.0]
    made = {
        **{name: attrs.get(name, default) for name, default in _RESIZE_OPTIONS.items()},
        "axes": kept,
        "scales": [factors[a] for a in kept],
    }
    if x.shape == shape and not kept:
        return x
    return rw.emit("Resize", [x], node.output.dtype, shape, attrs=made)


def _antialiased(rw: Rewriter, node: Node) -> Outcome:
    """A product with a constant matrix for each axis: many elements make one."""
    x = node.required(0)
    shape, wanted = x.known_shape, sizes(node.input(3))
    axes = [normal_axis(a, len(shape)) for a in node.attrs.get("axes", range(len(shape)))]
    scales = None if node.input(2) is None else node.required(2).const
    known = all(isinstance(shape[a], int) and shape[a] != 0 for a in axes)
    outs = [node.output.known_shape[a] for a in axes]
    if not known or not all(isinstance(out, int) and out for out in outs):
        return Refusal("it is antialiased, and its sizes are not known when the model is compiled")
    if x.dtype not in _FILTERED:
        return Refusal("it is antialiased, and not of float32 or float64")
    given = None if wanted is None else np.array(wanted)
    for axis, matrix in filters(node.attrs, shape, scales, given):  # type: ignore[arg-type]
        order = [a for a in range(len(shape)) if a != axis] + [axis]
        last = rw.transpose(x, order)
        weights = rw.constant(np.ascontiguousarray(matrix.T.astype(to_numpy(x.dtype))))
        made = (*last.known_shape[:-1], matrix.shape[0])
        x = rw.transpose(rw.emit("MatMul", [last, weights], x.dtype, made), inverse(order))
    return x


RULES = (
    Rule("constant-of-shape", ("ConstantOfShape",), constant_of_shape),
    Rule("drop-pad", ("Pad",), drop_pad),
    Rule("cut-pad", ("Pad",), cut_pad),
    Rule("resize", ("Resize",), resize),
)

"""Operators whose inputs say sizes: attributes where those are known."""

from __future__ import annotations

import numpy as np

from clinfer.graph.ir import Node
from clinfer.passes.query import integers, normal_axis, sizes
from clinfer.passes.rewrite import Outcome, Refusal, Rewriter, Rule

_RESIZE_OPTIONS = {
    "mode": "nearest",
    "coordinate_transformation_mode": "half_pixel",
    "nearest_mode": "round_prefer_floor",
    "cubic_coeff_a": -0.75,
    "exclude_outside": 0,
    "extrapolation_value": 0.0,
}


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


def resize(rw: Rewriter, node: Node) -> Outcome:
    """Resize(x): sizes are the output's shape; `scales` are the factors given for `axes`."""
    x = node.required(0)
    if len(node.inputs) == 1 and "axes" in node.attrs:
        return None
    shape = node.output.known_shape
    attrs = node.attrs
    if attrs.get("antialias", 0):
        return Refusal("it is antialiased")
    if attrs.get("keep_aspect_ratio_policy", "stretch") != "stretch":
        return Refusal("it keeps the aspect ratio")
    if attrs.get("coordinate_transformation_mode") == "tf_crop_and_resize":
        return Refusal("it resizes a part of its input")
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


RULES = (
    Rule("constant-of-shape", ("ConstantOfShape",), constant_of_shape),
    Rule("drop-pad", ("Pad",), drop_pad),
    Rule("resize", ("Resize",), resize),
)

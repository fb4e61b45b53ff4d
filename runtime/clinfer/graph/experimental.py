"""Operators of the default domain that ONNX Runtime runs where ONNX has none of that name.

Its optimiser writes LayerNormalization into models of any operator set and RMS normalisation as
SimplifiedLayerNormalization; the others were experimental in the first operator sets of ONNX, and
converters of Core ML and Caffe2 models wrote them. Each rule makes operators of ONNX of its node.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from clinfer.errors import ModelError
from clinfer.graph.ir import Value

if TYPE_CHECKING:
    from clinfer.graph.upgrade import Change


class Experimental(NamedTuple):
    """How many inputs and outputs, what stands for it, its attributes and their types.

    Types are numbers of onnx's `AttributeProto.AttributeType`; some attributes are `required`.
    `below` is the operator set from which ONNX has the operator, and so the rule is not needed;
    None: it never had it.
    """

    inputs: tuple[int, int]
    outputs: tuple[int, int]
    rule: Callable[[Change], None]
    attributes: Mapping[str, int]
    below: int | None = None
    required: frozenset[str] = frozenset()


def _same(change: Change) -> None:
    """ONNX's later operator means the same."""


def _affine(change: Change) -> None:
    """alpha * x + beta."""
    scaled = _times(change, change.node.required(0), change.node.attrs.pop("alpha", 1.0))
    _becomes(change, "Add", scaled, _number(change, change.node.attrs.pop("beta", 0.0)))


def _scale(change: Change) -> None:
    """scale * x."""
    node = change.node
    _becomes(change, "Mul", node.required(0), _number(change, node.attrs.pop("scale", 1.0)))


def _scaled_tanh(change: Change) -> None:
    """alpha * tanh(beta * x)."""
    attrs = change.node.attrs
    scaled = _times(change, change.node.required(0), attrs.pop("beta", 1.0))
    bent = change.before("Tanh", [scaled])
    _becomes(change, "Mul", bent, _number(change, attrs.pop("alpha", 1.0)))


def _parametric_softplus(change: Change) -> None:
    """alpha * log(1 + exp(beta * x))."""
    attrs = change.node.attrs
    scaled = _times(change, change.node.required(0), attrs.pop("beta", 1.0))
    bent = change.before("Softplus", [scaled])
    _becomes(change, "Mul", bent, _number(change, attrs.pop("alpha", 1.0)))


def _image_scaler(change: Change) -> None:
    """scale * x + bias[c] of images [N, C, H, W]."""
    attrs = change.node.attrs
    scaled = _times(change, change.node.required(0), attrs.pop("scale", 1.0))
    bias = [[[b]] for b in attrs.pop("bias", [0.0])]
    _becomes(change, "Add", scaled, change.constant(bias, _dtype(change)))


def _crop(change: Change) -> None:
    """Cuts left, top, right and bottom borders of images; `scale` gives height and width."""
    node = change.node
    border, size = node.attrs.pop("border", [0] * 4), node.attrs.pop("scale", None)
    if len(border) != 4 or (size is not None and len(size) != 2):
        raise ModelError(
            f"{node.describe()}: a border of 4 sizes and, where given, a scale of 2 expected, "
            f"found {border} and {size}"
        )
    left, top, right, bottom = border
    ends = [-bottom or 2**31 - 1, -right or 2**31 - 1]
    if size is not None:
        ends = [top + size[0], left + size[1]]
    parts = [change.constant(c) for c in ([top, left], ends, [2, 3])]
    _becomes(change, "Slice", node.required(0), *parts)


def _dynamic_slice(change: Change) -> None:
    change.node.op = "Slice"


def _mean_variance(change: Change) -> None:
    """Statistics over the spatial axes, or over the channels as well; perhaps without variance."""
    node = change.node
    axes = [0, 1, 2, 3] if node.attrs.pop("across_channels", 0) else [0, 2, 3]
    if node.attrs.pop("normalize_variance", 1):
        node.attrs["axes"] = axes
        return
    x = node.required(0)
    mean = change.before("ReduceMean", [x, change.constant(axes)])
    _becomes(change, "Sub", x, mean)


def _rms(change: Change) -> None:
    """RMSNormalization, with the inverse of the deviation as a second output."""
    node = change.node
    axis = int(node.attrs.setdefault("axis", -1))
    node.attrs.setdefault("epsilon", 1e-5)
    node.op = "RMSNormalization"
    x, spread = node.required(0), node.outputs[1] if len(node.outputs) > 1 else None
    del node.outputs[1:]
    if spread is None:
        return
    if x.rank is None:
        raise ModelError(f"{node.describe()}: an input of known rank expected, found {x!r}")
    axes = list(range(axis if axis >= 0 else axis + x.rank, x.rank))
    wide = change.before("Cast", [x], to=1)
    squares = change.before("Mul", [wide, wide])
    mean = change.before("ReduceMean", [squares, change.constant(axes)])
    sum_ = change.before("Add", [mean, change.constant(node.attrs["epsilon"], "float32")])
    root = change.before("Sqrt", [sum_])
    change.before("Reciprocal", [root], into=spread)


def _times(change: Change, x: Value, factor: Any) -> Value:
    return change.before("Mul", [x, _number(change, factor)])


def _number(change: Change, content: Any) -> Value:
    return change.constant(content, _dtype(change))


def _dtype(change: Change) -> str:
    return change.node.required(0).dtype or "float32"


def _becomes(change: Change, op: str, *inputs: Value) -> None:
    change.node.op = op
    change.set_inputs(inputs)


_ONE = (1, 1)
_FLOAT, _INT, _FLOATS, _INTS = 1, 2, 6, 7  # of AttributeProto.AttributeType
_NORM = {"axis": _INT, "epsilon": _FLOAT, "stash_type": _INT}
_BENT = {"alpha": _FLOAT, "beta": _FLOAT}
_VARIANCE = {"across_channels": _INT, "normalize_variance": _INT}
_SCALER = {"scale": _FLOAT, "bias": _FLOATS}
_BORDER = {"border": _INTS, "scale": _INTS}

OPERATORS: dict[str, Experimental] = {
    "LayerNormalization": Experimental((2, 3), (1, 3), _same, _NORM, below=17),
    "SimplifiedLayerNormalization": Experimental((2, 2), (1, 2), _rms, _NORM),
    "ThresholdedRelu": Experimental(_ONE, _ONE, _same, {"alpha": _FLOAT}, below=10),
    "MeanVarianceNormalization": Experimental(_ONE, _ONE, _mean_variance, _VARIANCE, below=9),
    "Affine": Experimental(_ONE, _ONE, _affine, _BENT),
    "Scale": Experimental(_ONE, _ONE, _scale, {"scale": _FLOAT}),
    "ScaledTanh": Experimental(_ONE, _ONE, _scaled_tanh, _BENT),
    "ParametricSoftplus": Experimental(_ONE, _ONE, _parametric_softplus, _BENT),
    "ImageScaler": Experimental(_ONE, _ONE, _image_scaler, _SCALER),
    "Crop": Experimental(_ONE, _ONE, _crop, _BORDER, required=frozenset({"border"})),
    "DynamicSlice": Experimental((3, 4), _ONE, _dynamic_slice, {}),
}

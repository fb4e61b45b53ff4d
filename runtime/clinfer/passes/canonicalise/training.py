"""Steps of optimizers, and BatchNormalization in training, as arithmetic that is fused."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from clinfer.graph.ir import Node, Value
from clinfer.passes.canonicalise.linear import ATTRIBUTE_FORM
from clinfer.passes.canonicalise.maker import Maker, number
from clinfer.passes.rewrite import Outcome, Refusal, Rewriter, Rule
from clinfer_kernels.dims import Dim

_Step = Callable[[Maker, Node, Value, Value, Sequence[Value]], list[Value]]


def _adagrad(make: Maker, node: Node, r: Value, t: Value, own: Sequence[Value]) -> list[Value]:
    """Duchi, Hazan and Singer, JMLR 12 (2011), with the learning rate falling by steps."""
    x, g, h = own
    g = _regularised(make, node, x, g)
    rate = make("Div", r, make("Add", make("Mul", t, _of(node, "decay_factor")), 1.0))
    h = make("Add", h, make("Mul", g, g))
    root = make("Add", make("Sqrt", h), _of(node, "epsilon"))
    return [make("Sub", x, make("Div", make("Mul", g, rate), root)), h]


def _adam(make: Maker, node: Node, r: Value, t: Value, own: Sequence[Value]) -> list[Value]:
    """Kingma and Ba, ICLR 2015: the rate is corrected from the first step on."""
    x, g, v, h = own
    g = _regularised(make, node, x, g)
    alpha, beta = _of(node, "alpha", 0.9), _of(node, "beta", 0.999)
    v = make("Add", make("Mul", v, alpha), make("Mul", g, 1.0 - alpha))
    h = make("Add", make("Mul", h, beta), make("Mul", make("Mul", g, g), 1.0 - beta))
    root = make("Add", make("Sqrt", h), _of(node, "epsilon"))
    one = make("Sub", 1.0, make("Pow", _like(make, t, beta), t))
    other = make("Sub", 1.0, make("Pow", _like(make, t, alpha), t))
    corrected = make("Div", make("Mul", r, make("Sqrt", one)), other)
    is_later = make("Greater", t, 0.0, dtype="bool")
    rate = make("Where", is_later, corrected, r, dtype=r.dtype)
    new = make("Sub", x, make("Mul", make("Div", v, root), rate))
    after = 1.0 - _of(node, "norm_coefficient_post")
    return [make("Mul", new, after), v, h]


def _momentum(make: Maker, node: Node, r: Value, t: Value, own: Sequence[Value]) -> list[Value]:
    """Polyak's heavy ball, or Nesterov's; the first gradient counts whole."""
    x, g, v = own
    g = _regularised(make, node, x, g)
    alpha = _of(node, "alpha")
    is_later = make("Greater", t, 0.0, dtype="bool")
    beta, one = (_like(make, t, value) for value in (_of(node, "beta"), 1.0))
    share = make("Where", is_later, beta, one, dtype=t.dtype)
    v = make("Add", make("Mul", v, alpha), make("Mul", g, share))
    step = v
    if node.attrs.get("mode", "standard") == "nesterov":
        step = make("Add", make("Mul", v, alpha), g)
    return [make("Sub", x, make("Mul", step, r)), v]


_STEPS: dict[str, tuple[_Step, int]] = {  # and how many tensors each of them has
    "ai.onnx.preview.training.Adagrad": (_adagrad, 3),
    "ai.onnx.preview.training.Adam": (_adam, 4),
    "ai.onnx.preview.training.Momentum": (_momentum, 3),
}


def optimizer(rw: Rewriter, node: Node) -> Outcome:
    """All tensors of a step: inputs R, T, then every X, every G ...; results in the same order."""
    step, kinds = _STEPS[node.kind]
    make = Maker(rw)
    rest = [value for value in node.inputs[2:] if value is not None]
    count = len(rest) // kinds
    first = rest[0]
    rate, time = (
        make.cast(rw.reshape(node.required(index), ()), str(first.dtype)) for index in (0, 1)
    )
    made = [step(make, node, rate, time, rest[tensor::count]) for tensor in range(count)]
    return [result for kind in zip(*made, strict=True) for result in kind]


def _regularised(make: Maker, node: Node, x: Value, g: Value) -> Value:
    return make("Add", make("Mul", x, _of(node, "norm_coefficient")), g)


def _of(node: Node, name: str, default: float = 0.0) -> float:
    return float(node.attrs.get(name, default))


def _like(make: Maker, value: Value, content: float) -> Value:
    """A number of the dtype of a scalar."""
    return number(make.rw, content, value.dtype)


def batch_norm(rw: Rewriter, node: Node) -> Outcome:
    """BatchNormalization in training: by the statistics of the batch, which are results too."""
    if not node.attrs.get("training_mode", 0):
        return None
    x, scale, bias, mean, var = (node.required(index) for index in range(5))
    if len(node.outputs) > 3:
        return Refusal("it is of an old operator set, with saved statistics")
    make, shape = Maker(rw), x.known_shape
    real = "float64" if x.dtype == "float64" else "float32"
    wide = make.cast(x, real)
    axes = [axis for axis in range(len(shape)) if axis != 1]
    column: tuple[Dim, ...] = (shape[1], *[1] * (len(shape) - 2))

    def mean_of(value: Value) -> Value:
        attrs = {"axes": axes, "keepdims": 0}
        return rw.emit("ReduceMean", [value], real, shape[1:2], attrs=attrs, version=ATTRIBUTE_FORM)

    own_mean = mean_of(wide)
    centred = make("Sub", wide, rw.reshape(own_mean, column))
    own_var = mean_of(make("Mul", centred, centred))
    eps, momentum = _of(node, "epsilon", 1e-5), _of(node, "momentum", 0.9)
    spread = make("Sqrt", make("Add", own_var, eps))
    scaled = make(
        "Div",
        make("Mul", centred, rw.reshape(make.cast(scale, real), column)),
        rw.reshape(spread, column),
    )
    result = make("Add", scaled, rw.reshape(make.cast(bias, real), column))
    made: list[Value | None] = [make.cast(result, str(x.dtype))]
    for old, new in ((mean, own_mean), (var, own_var)):
        kept = make("Mul", make.cast(old, real), momentum)
        moved = make("Add", kept, make("Mul", new, 1.0 - momentum))
        made.append(make.cast(moved, str(old.dtype)))
    return made[: len(node.outputs)]


RULES = (
    Rule("optimizer-step", tuple(_STEPS), optimizer),
    Rule("batch-norm-in-training", ("BatchNormalization",), batch_norm),
)

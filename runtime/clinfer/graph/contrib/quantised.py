"""Operators on numbers of 8 bits: they are made floats, computed with and quantised again.

Products are those of integers, exact, and scaled afterwards. Where a last bit decides between two
integers, sums and products are ONNX Runtime's (of AVX2, with fused multiply-adds):

    QLinearAdd                  round(a * (sa / sy) + (b * (sb / sy) + rest)), of the bytes
                                rest = zy - (za * (sa / sy) + zb * (sb / sy))
    QLinearMul                  round((a - za) * (b - zb) * (sa * sb / sy) + zy)
    QLinearGlobalAveragePool    round(sum(x - zx) * (sx / (sy * count))) + zy
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from clinfer.graph.contrib.attention import self_attention
from clinfer.graph.contrib.maker import Maker, Rule
from clinfer.graph.contrib.norms import embedded
from clinfer.graph.ir import Value
from clinfer_kernels.types import highest, lowest


def real(make: Maker, index: int) -> Value:
    """The numbers that inputs `index` (data), `index` + 1 (scale) and + 2 (zero) stand for."""
    return make("DequantizeLinear", make.x(index), make.x(index + 1), make.input(index + 2))


def quantised(make: Maker, x: Value, scale: int, like: Value) -> Value:
    """x by the scale that is input `scale` and the zero point behind it; of the type of `like`."""
    return make("QuantizeLinear", x, make.x(scale), _or_zero(make, make.input(scale + 1), like))


def whole(make: Maker, index: int, zero: Value | None = None) -> Value:
    """The integers of input `index` less the zero point, as floats; constants stay bytes."""
    x = make.x(index)
    if zero is None and x.const is not None and x.const.size == 1:  # goes into what it is added to
        return make.cast(x, "float32")
    return make("DequantizeLinear", x, make.constant(1, "float32"), zero)


def stepped(make: Maker, steps: Value, zero: Value | None = None) -> Value:
    """Steps rounded, plus the zero point, clipped to the type of input 0."""
    point = _or_zero(make, zero, make.x(0))
    return make("QuantizeLinear", steps, make.constant(1, "float32"), point)


def _or_zero(make: Maker, zero: Value | None, like: Value) -> Value:
    """A zero point, which says the type of the result too: 0 of the type of `like` if not given."""
    return make.like(0, like) if zero is None else zero


def _add(make: Maker) -> Value:
    """A number that is added to many comes first."""
    first, second = (3, 0) if _repeats(make.x(0), make.x(3)) else (0, 3)
    a, b = (make("Div", make.x(index + 1), make.x(6)) for index in (first, second))
    zeros = [_point(make, index + 2) for index in (first, second)]
    rest = make("clinfer.MulAdd", a, zeros[0], make("Mul", b, zeros[1]))
    rest = make("Sub", _point(make, 7), rest)
    inner = make("clinfer.MulAdd", whole(make, second), b, rest)
    return stepped(make, make("clinfer.MulAdd", whole(make, first), a, inner))


def _point(make: Maker, index: int) -> Value:
    """A zero point as a float."""
    zero = make.input(index)
    return make.constant(0, "float32") if zero is None else make.cast(zero, "float32")


def _repeats(a: Value, b: Value) -> bool:
    """Whether a has one number for the innermost that b has several of."""
    if a.shape is None or b.shape is None:
        return False
    ranks = max(len(a.shape), len(b.shape))
    sizes = ((1,) * (ranks - len(v.shape)) + tuple(v.shape) for v in (a, b) if v.shape is not None)
    return next((x == 1 for x, y in reversed(list(zip(*sizes, strict=True))) if x != y), False)


def _mul(make: Maker) -> Value:
    product = make("Mul", whole(make, 0, make.input(2)), whole(make, 3, make.input(5)))
    scale = make("Div", make("Mul", make.x(1), make.x(4)), make.x(6))
    return stepped(make, make("Add", make("Mul", product, scale), _point(make, 7)))


def _unary(body: Callable[[Maker, Value], Value]) -> Rule:
    def rule(make: Maker) -> Value:
        return quantised(make, body(make, real(make, 0)), 3, make.x(0))

    return rule


def _leaky(make: Maker, x: Value) -> Value:
    return make("LeakyRelu", x, alpha=make.attr("alpha", 0.01))


def _mean(make: Maker, x: Value) -> Value:
    axes = make.constant(make.attr("axes"))
    return make("ReduceMean", x, axes, keepdims=make.attr("keepdims"))


def _softmax(make: Maker, x: Value) -> Value:
    """Of one axis, before operator set 13 of all from that one on."""
    axis, rank = make.attr("axis", -1), len(make.shape(0))
    axis += rank if axis < 0 else 0
    if make.attr("opset") >= 13 or axis == rank - 1:
        return make("Softmax", x, axis=axis)
    flat = make("Softmax", make("Flatten", x, axis=axis), axis=-1)
    return make("Reshape", flat, make("Shape", make.x(0)))


def _quantised_softmax(make: Maker) -> Value:
    """ONNX Runtime multiplies by the whole part of 1 / scale, which its quantised models expect."""
    one = make.constant(1, "float32")
    inverse = make("Floor", make("Div", one, make.x(3)))
    scale = make("Div", one, inverse)
    point = _or_zero(make, make.input(4), make.x(0))
    return make("QuantizeLinear", _softmax(make, real(make, 0)), scale, point)


def _pool(make: Maker) -> Value:
    """As ONNX Runtime rounds: the window row by row, and to even behind the zero point.

    With padding it counts whole windows, with what `ceil_mode` adds behind it.
    """
    names = ("ceil_mode", "pads", "auto_pad", "strides", "kernel_shape", "count_include_pad")
    attrs = {n: make.attr(n) for n in names if make.attr(n) is not None}
    attrs["count_include_pad"] = 2 * bool(attrs.get("count_include_pad", 0))
    mean = channels_first(
        make, real(make, 0), lambda y: make("AveragePool", y, **attrs, order="rows")
    )
    dtype = make.x(0).dtype or "uint8"
    steps = make("Add", make("Div", mean, make.x(3)), _point(make, 4))
    ends = [make.constant(end, "float32") for end in (lowest(dtype), highest(dtype))]
    return make.cast(make("Clip", make("Round", steps), *ends), dtype)


def _global_pool(make: Maker) -> Value:
    """A sum of integers, which floats hold exactly, by one factor."""
    shape, is_last = make.shape(0), make.attr("channels_last", 0)
    axes = make.constant(range(1 if is_last else 2, len(shape) - (1 if is_last else 0)))
    total = make("ReduceSum", whole(make, 0, make.input(2)), axes, keepdims=1)
    sizes = make("Gather", make("Shape", make.x(0)), axes)
    count = make.cast(make("ReduceProd", sizes, keepdims=0), "float32")
    scale = make("Div", make.x(1), make("Mul", make.x(3), count))
    return stepped(make, make("Mul", total, scale), make.input(4))


def channels_first(make: Maker, x: Value, body: Callable[[Value], Value]) -> Value:
    """`body` of images whose channels come last where `channels_last` says so, as it wants them."""
    if not make.attr("channels_last", 0):
        return body(x)
    rank = len(make.shape(0))
    moved = make.transpose(x, 0, rank - 1, *range(1, rank - 1))
    return make.transpose(body(moved), 0, *range(2, rank), 1)


def _concat(make: Maker) -> Value:
    """Inputs: the result's scale and zero point, then three for each part."""
    count = len(make.node.inputs) - 2
    if count % 3:
        raise make.error(f"data, scale and zero point of each part expected, found {count} inputs")
    parts = [real(make, index) for index in range(2, len(make.node.inputs), 3)]
    return quantised(make, make("Concat", *parts, axis=make.attr("axis")), 0, make.x(1))


def _where(make: Maker) -> Value:
    return quantised(make, make("Where", make.x(0), real(make, 1), real(make, 4)), 7, make.x(1))


def _conv(make: Maker) -> Value:
    names = ("group", "pads", "strides", "dilations", "kernel_shape", "auto_pad")
    attrs = {n: make.attr(n) for n in names if make.attr(n) is not None}
    rest = make.node.inputs[1:]
    return channels_first(make, make.x(0), lambda x: make("QLinearConv", x, *rest, **attrs))


def _max_pool(make: Maker) -> Value:
    names = ("ceil_mode", "pads", "auto_pad", "strides", "kernel_shape", "dilations")
    attrs = {n: make.attr(n) for n in names if make.attr(n) is not None}
    make.node.attrs["channels_last"] = 1
    return channels_first(make, make.x(0), lambda x: make("MaxPool", x, **attrs))


def _product(make: Maker, a: Value, b: Value, zeros: Sequence[Value | None]) -> Value:
    return make("MatMulInteger", a, b, *zeros)


def _scaled(make: Maker, product: Value, *scales: Value) -> Value:
    """An integer product as floats."""
    factor = scales[0]
    for scale in scales[1:]:
        factor = make("Mul", factor, scale)
    return make("Mul", make.cast(product, scales[0].dtype or "float32"), factor)


def _gemm(make: Maker) -> Value:
    """alpha * (A @ B + C) by the scales; quantised where the result has a scale."""
    a, b = (
        make.transpose(make.x(index), 1, 0) if make.attr(name, 0) else make.x(index)
        for name, index in (("transA", 0), ("transB", 3))
    )
    product = make.sum(_product(make, a, b, [make.x(2), make.x(5)]), make.input(6))
    result = _scaled(make, product, make.x(1), make.x(4))
    if make.attr("alpha", 1.0) != 1:
        result = make("Mul", result, make.constant(make.attr("alpha"), "float32"))
    return result if make.input(7) is None else quantised(make, result, 7, make.x(0))


def _dynamic_matmul(make: Maker) -> Value:
    a, scale, zero = make.several("DynamicQuantizeLinear", 3, make.x(0))
    scale.dtype = "float32"
    product = _product(make, a, make.x(1), [zero, make.input(3)])
    return make.sum(_scaled(make, product, scale, make.x(2)), make.input(4))


def _matmul_to_float(make: Maker) -> Value:
    product = _product(make, make.x(0), make.x(1), [make.input(4), make.input(5)])
    return make.sum(_scaled(make, product, make.x(2), make.x(3)), make.input(6))


def _attention(make: Maker) -> Sequence[Value | None]:
    """Attention behind one integer product."""
    product = _product(make, make.x(0), make.x(1), [make.input(6), make.input(7)])
    x = make.sum(_scaled(make, product, make.x(3), make.x(4)), make.x(2))
    width = make.size(1, 1, "the columns of the weights") // 3
    return self_attention(make, x, [width] * 3, mask=5, past=8, bias=None)


def _embed_layer_norm(make: Maker) -> Sequence[Value | None]:
    """EmbedLayerNormalization of tables, scale and bias in 8 bits."""
    numbers = {2: (8, 13), 3: (9, 14), 4: (10, 15), 5: (11, 16), 6: (12, 17)}
    inputs = [make.input(index) for index in range(8)]
    for index, (scale, zero) in numbers.items():
        if inputs[index] is not None:
            inputs[index] = make("DequantizeLinear", make.x(index), make.x(scale), make.input(zero))
    return embedded(make, inputs)


def _multiplied(make: Maker) -> Value:
    """(A - zero) * (B - zero) in int32."""
    parts = []
    for index in (0, 2):
        part, zero = make.cast(make.x(index), "int32"), make.input(index + 1)
        parts.append(part if zero is None else make("Sub", part, make.cast(zero, "int32")))
    return make("Mul", *parts)


def _summed(make: Maker) -> Value:
    axes = make.constant(make.attr("axes"))
    data = make.cast(make.x(0), "int32")
    return make("ReduceSum", data, axes, keepdims=make.attr("keepdims"))


def _lstm(make: Maker) -> Sequence[Value]:
    """LSTM of the input and of hidden states rounded to 8 bits, with decoded weights.

    ONNX Runtime rounds states of as many rows together as a thread has; here each row has a scale.
    """
    rounded = make.several("DynamicQuantizeLinear", 3, make.x(0))
    x = make("DequantizeLinear", *rounded)
    weights = [_gates(make, index, scale) for index, scale in ((1, 8), (2, 10))]
    rest = [make.input(index) for index in range(3, 8)]
    return make.several("LSTM", 3, x, *weights, *rest, **make.node.attrs, rounds=1)


def _gates(make: Maker, index: int, scale: int) -> Value:
    """Weights [D, K, 4 H] as ONNX has them, [D, 4 H, K]; scales are of directions or columns."""
    numbers = make.cast(make.x(index), "float32")
    columns = [1, -1] if len(make.shape(scale)) == 2 else [1, 1]
    factor, zero = (
        make.reshape(make.cast(make.x(i), "float32"), make.size(index, 0, "directions"), *columns)
        for i in (scale, scale + 1)
    )
    return make.transpose(make("Mul", make("Sub", numbers, zero), factor), 0, 2, 1)


RULES: dict[str, Rule] = {
    "DynamicQuantizeLSTM": _lstm,
    "MulInteger": _multiplied,
    "QEmbedLayerNormalization": _embed_layer_norm,
    "ReduceSumInteger": _summed,
    "QLinearAdd": _add,
    "QLinearMul": _mul,
    "QLinearSigmoid": _unary(lambda make, x: make("Sigmoid", x)),
    "QLinearLeakyRelu": _unary(_leaky),
    "QLinearReduceMean": _unary(_mean),
    "QLinearSoftmax": _quantised_softmax,
    "QLinearAveragePool": _pool,
    "QLinearGlobalAveragePool": _global_pool,
    "QLinearConcat": _concat,
    "QLinearWhere": _where,
    "QLinearConv": _conv,
    "NhwcMaxPool": _max_pool,
    "QGemm": _gemm,
    "DynamicQuantizeMatMul": _dynamic_matmul,
    "MatMulIntegerToFloat": _matmul_to_float,
    "QAttention": _attention,
}

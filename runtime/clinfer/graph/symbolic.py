"""The content of small tensors that are computed from sizes.

Exporters compute shapes with tensors (Shape, Gather, Mul, Concat, Reshape). Their content is
followed here as NumPy object arrays of `numbers`: what turns out constant becomes `Value.const`,
integers that depend on dynamic sizes `Value.symbolic`, floats on the way `Value.rational`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from clinfer.dtypes import BY_NAME, to_numpy
from clinfer.errors import InternalError
from clinfer.graph import numbers
from clinfer.graph.ir import Array, Value
from clinfer.graph.shape_call import CONTENT_LIMIT, Call, UnknownShape
from clinfer_kernels.dims import Expr, TooComplex, is_static, product

LONGEST = 256
"""The weight of an expression (`dims.Expr`) up to which a tensor's elements are followed."""
_LARGEST = 2**63

Handler = Callable[[Call], Sequence["Array | None"]]


def propagate(call: Call) -> None:
    """Sets the content of a node's outputs where it follows from sizes and constants."""
    handler = HANDLERS.get(call.node.kind)
    if handler is None or not _is_small(call):
        return
    try:
        results = handler(call)
    except (UnknownShape, TooComplex):
        return
    for value, content in zip(call.node.outputs, results, strict=False):
        if value is not None and content is not None:
            _store(value, content)


def _is_small(call: Call) -> bool:
    for value in call.node.outputs:
        if value is None or value.dtype is None:
            continue
        if value.shape is None or not is_static(value.shape) or value.dtype not in BY_NAME:
            return False
        if int(product(value.shape)) > CONTENT_LIMIT:  # type: ignore[arg-type]
            return False
    return True


def _store(value: Value, content: Array) -> None:
    if value.shape is None or content.shape != value.shape:
        raise InternalError(
            f"the content of '{value.name}' has shape {content.shape}, its type says "
            f"{value.shape}; please report it with the model"
        )
    if not all(map(_is_followed, content.ravel())):
        return
    if value.dtype in ("float32", "float64", "float16", "bfloat16"):
        value.rational = content
    elif any(isinstance(x, Expr) for x in content.ravel()):
        value.symbolic = content
    else:
        try:
            value.const = content.astype(to_numpy(str(value.dtype)))
        except OverflowError:
            return


def _is_followed(element: Any) -> bool:
    """Whether a content is of use: not beyond 64 bits, which wrap in a run, and not too long."""
    number = element.numerator if isinstance(element, numbers.Rational) else element
    if isinstance(number, Expr):
        return number.weight <= LONGEST and all(abs(f) <= _LARGEST for _, f in number.terms)
    return bool(abs(number) <= _LARGEST)


def elements(call: Call, index: int) -> Array:
    """The input's content as numbers; `UnknownShape` where it is not known."""
    found = numbers.content(call.value(index))
    if found is None:
        raise UnknownShape
    return found


def _array(items: Sequence[Any], shape: Sequence[int]) -> Array:
    result = np.empty(len(items), object)
    result[:] = items
    return result.reshape(tuple(shape))


def _static(call: Call, output: int = 0) -> tuple[int, ...]:
    value = call.node.outputs[output]
    assert value is not None and value.shape is not None and is_static(value.shape)
    return tuple(int(d) for d in value.shape)  # type: ignore[arg-type]


def _pairwise(function: Callable[[Any, Any], Any]) -> Handler:
    apply = np.frompyfunc(function, 2, 1)

    def handler(call: Call) -> list[Array]:
        result = elements(call, 0)
        for index in range(1, call.count):
            result = np.asarray(apply(result, elements(call, index)), object)
        return [result]

    return handler


def _each(function: Callable[[Any], Any]) -> Handler:
    apply = np.frompyfunc(function, 1, 1)

    def handler(call: Call) -> list[Array]:
        return [np.asarray(apply(elements(call, 0)), object)]

    return handler


def _reduced(function: Callable[[Any, Any], Any]) -> Handler:
    apply = np.frompyfunc(function, 2, 1)

    def handler(call: Call) -> list[Array]:
        from clinfer.graph.shape_rules.reduce import reduced_axes

        result = elements(call, 0)
        for axis in reduced_axes(call, result.ndim):
            if result.shape[axis] == 0:
                raise UnknownShape
            result = np.asarray(apply.reduce(result, axis=axis, keepdims=True), object)
        return [result.reshape(_static(call))]

    return handler


def _shape(call: Call) -> list[Array]:
    from clinfer.graph.shape_rules.sizes import shape_slice

    dims = call.shape(0)[shape_slice(call)]
    return [_array(dims, [len(dims)])]


def _size(call: Call) -> list[Array]:
    return [_array([product(call.shape(0))], [])]


def _reshaped(call: Call) -> list[Array]:
    return [elements(call, 0).reshape(_static(call))]


def _transpose(call: Call) -> list[Array]:
    return [elements(call, 0).transpose(call.attr("perm"))]


def _concat(call: Call) -> list[Array]:
    parts = [elements(call, i) for i in range(call.count)]
    return [np.concatenate(parts, axis=int(call.attr("axis", 0)))]


def _gather(call: Call) -> list[Array]:
    data = elements(call, 0)
    indices = np.array(call.ints(1), np.int64).reshape(_fixed(call, 1))
    return [_taken(data, indices, int(call.attr("axis", 0)))]


def _taken(data: Array, indices: Array, axis: int) -> Array:
    try:
        return np.asarray(np.take(data, indices, axis=axis), object)
    except IndexError:
        raise UnknownShape from None


def _fixed(call: Call, index: int) -> tuple[int, ...]:
    shape = call.shape(index)
    if not is_static(shape):
        raise UnknownShape
    return tuple(int(d) for d in shape)  # type: ignore[arg-type]


def _slice(call: Call) -> list[Array]:
    if call.count < 3:
        raise UnknownShape
    data = elements(call, 0)
    starts, ends = call.ints(1), call.ints(2)
    axes = call.ints(3) if call.has(3) else list(range(len(starts)))
    steps = call.ints(4) if call.has(4) else [1] * len(starts)
    index = [slice(None)] * data.ndim
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        last: int | None = end
        if step < 0 and end < -data.shape[axis]:
            last = None
        index[axis] = slice(start, last, step)
    return [data[tuple(index)]]


def _split(call: Call) -> list[Array]:
    data = elements(call, 0)
    axis = int(call.attr("axis", 0))
    sizes = [_static(call, i)[axis] for i in range(len(call.node.outputs))]
    return list(np.split(data, np.cumsum(sizes)[:-1], axis=axis))


def _expand(call: Call) -> list[Array]:
    return [np.broadcast_to(elements(call, 0), _static(call))]


def _tile(call: Call) -> list[Array]:
    return [np.tile(elements(call, 0), call.ints(1))]


def _where(call: Call) -> list[Array]:
    chosen = elements(call, 0).astype(bool)
    return [np.where(chosen, elements(call, 1), elements(call, 2))]


def _cast(call: Call) -> list[Array]:
    data = elements(call, 0)
    dtype = call.node.output.dtype or ""
    if dtype == "bool":
        return [np.asarray(np.frompyfunc(_is_not_zero, 1, 1)(data), object)]
    convert = numbers.widen if dtype.startswith(("float", "bfloat")) else _whole
    return [np.asarray(np.frompyfunc(convert, 1, 1)(data), object)]


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, bool) else numbers.truncate(value)


def _is_not_zero(value: Any) -> bool:
    return value if isinstance(value, bool) else not numbers.equal(value, 0)


def _range(call: Call) -> list[Array]:
    start, step = elements(call, 0).item(), elements(call, 2).item()
    (count,) = _static(call)
    steps = [numbers.add(start, numbers.multiply(step, i)) for i in range(count)]
    return [_array(steps, [count])]


def _constant_of_shape(call: Call) -> list[Array]:
    fill = call.attr("value")
    if fill is None or fill.dtype.kind not in "iub":
        raise UnknownShape
    shape = _static(call)
    return [np.full(shape, fill.ravel()[0].item(), object)]


def _both(a: bool, b: bool) -> bool:
    return a and b


def _either(a: bool, b: bool) -> bool:
    return a or b


def _one(a: bool, b: bool) -> bool:
    return a != b


def _negation(a: bool) -> bool:
    return not a


def _absolute(a: Any) -> Any:
    sign = numbers.sign_of(a)
    if sign is None:
        raise UnknownShape
    return a if sign >= 0 else numbers.negate(a)


HANDLERS: dict[str, Handler] = {
    "Shape": _shape,
    "Size": _size,
    **dict.fromkeys(("Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity"), _reshaped),
    "Transpose": _transpose,
    "Concat": _concat,
    "Gather": _gather,
    "Slice": _slice,
    "Split": _split,
    "Expand": _expand,
    "Tile": _tile,
    "Where": _where,
    "Cast": _cast,
    "Range": _range,
    "ConstantOfShape": _constant_of_shape,
    "Add": _pairwise(numbers.add),
    "Sub": _pairwise(numbers.subtract),
    "Mul": _pairwise(numbers.multiply),
    "Div": _pairwise(numbers.divide),
    "Mod": _pairwise(numbers.modulo),
    "Min": _pairwise(numbers.minimum),
    "Max": _pairwise(numbers.maximum),
    "Neg": _each(numbers.negate),
    "Abs": _each(_absolute),
    "Floor": _each(numbers.floor),
    "Ceil": _each(numbers.ceil),
    "Equal": _pairwise(numbers.equal),
    "Less": _pairwise(numbers.less),
    "LessOrEqual": _pairwise(numbers.less_or_equal),
    "Greater": _pairwise(numbers.greater),
    "GreaterOrEqual": _pairwise(numbers.greater_or_equal),
    "Not": _each(_negation),
    "And": _pairwise(_both),
    "Or": _pairwise(_either),
    "Xor": _pairwise(_one),
    "ReduceSum": _reduced(numbers.add),
    "ReduceProd": _reduced(numbers.multiply),
    "ReduceMin": _reduced(numbers.minimum),
    "ReduceMax": _reduced(numbers.maximum),
}

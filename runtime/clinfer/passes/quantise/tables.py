"""What is computed of one tensor of bytes, element by element, is a table of its 256 bytes.

    Q(f(D(x), D(x), c ...)) = Lookup(x, table)        table[code] = Q(f(D(code), ...))

f are pointwise operators on decoded values of x and constants of one element, decoded or not:
activations, which QDQ graphs write as a quantised Sigmoid and a quantised product. The table is
computed when the model is compiled, every operator's result rounded once to float32, so nothing is
lost to a kernel's approximation. A table of a table is one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from clinfer.graph.ir import Array, Node, Value
from clinfer.graph.numpy_quantise import quantize_linear
from clinfer.passes.canonicalise.maker import cast
from clinfer.passes.quantise.encoded import Encoded, encoded, encoding
from clinfer.passes.rewrite import Outcome, Rewriter, Rule
from clinfer_kernels.types import TABLE

_DEPTH = 12  # operators of a table, one behind the other
_CODES = np.arange(256, dtype=np.uint8)
Attrs = Mapping[str, Any]


def lookup(rw: Rewriter, x: Value, table: Array, dtype: str) -> Value:
    """The bytes that a table of 256 `dtype` has for those of x, by their bits."""
    inner = None if x.producer is None else _table_of(x.producer)
    if inner is not None and x.producer is not None:
        table, x = table[inner.view(np.uint8)], x.producer.required(0)
    content = np.ascontiguousarray(table).view(f"V{table.nbytes}").reshape(())
    assert content.dtype.name == TABLE
    found = rw.emit("clinfer.Lookup", [x, rw.constant(content)], x.dtype, x.shape)
    return cast(rw, found, dtype)


def recoded(x: Encoded, node: Node) -> Array:
    """The table from x's codes to those of QuantizeLinear `node`."""
    return _quantised(node, _decoded(x, _CODES))


def tabulate(rw: Rewriter, node: Node) -> Outcome:
    """Q of operators on one decoded tensor."""
    if encoding(node) is None or node.output.dtype not in ("uint8", "int8"):
        return None
    search = _Search(node.required(0).shape)
    if encoded(node.required(0)) is not None or not search.reads(node.required(0), _DEPTH):
        return None
    assert search.root is not None
    with np.errstate(all="ignore"):
        numbers = search.value(node.required(0))
    table = _quantised(node, np.broadcast_to(numbers, _CODES.shape))
    return lookup(rw, search.root, table, str(node.output.dtype))


def _table_of(node: Node) -> Array | None:
    """The table of a Lookup, as uint8."""
    content = node.required(1).const if node.kind == "clinfer.Lookup" else None
    return None if content is None else np.frombuffer(content.tobytes(), np.uint8)


def _decoded(x: Encoded, codes: Array) -> Array:
    """The float32 numbers of codes, given by their bits."""
    zero = 0 if x.zero is None or x.zero.const is None else int(x.zero.const.reshape(-1)[0])
    made: Array = (codes.view(str(x.data.dtype)).astype(np.float32) - np.float32(zero)) * x.scale
    return made


def _quantised(node: Node, numbers: Array) -> Array:
    scale, zero = node.required(1).const, node.input(2)
    assert scale is not None
    point = None if zero is None else zero.const
    made: Array = quantize_linear(node.attrs, [numbers, scale.reshape(()), point])[0]
    return made.astype(str(node.output.dtype))


@dataclass
class _Search:
    """Operators above a value of a shape, down to the one tensor of bytes they read."""

    shape: Any
    root: Value | None = None

    def reads(self, value: Value, depth: int) -> bool:
        """Whether nothing but `root` and constants is read; finds `root`."""
        if value.const is not None:
            return value.const.size == 1 and value.dtype == "float32"
        found = encoded(value)
        if found is not None:
            is_number = found.data.const is not None and found.data.const.size == 1
            return found.axis is None and (is_number or self._is_root(_source(found.data)))
        node = value.producer
        if node is None or node.kind not in _FUNCTIONS or depth == 0:
            return False
        if value.dtype != "float32" or value.shape != self.shape or None in node.inputs:
            return False
        return all(v is not None and self.reads(v, depth - 1) for v in node.inputs)

    def _is_root(self, value: Value) -> bool:
        self.root = self.root or value
        return value is self.root and value.shape == self.shape

    def value(self, value: Value) -> Array:
        """The float32 numbers of a value for every code of `root`."""
        if value.const is not None:
            return value.const.reshape(())
        found = encoded(value)
        if found is not None and found.data.const is not None:
            return _decoded(found, found.data.const.reshape(()).view(np.uint8))
        if found is not None:
            return _decoded(found, self._codes(found.data))
        node = value.producer
        assert node is not None
        operands = [self.value(v).astype(np.float64) for v in node.inputs if v is not None]
        return np.asarray(_FUNCTIONS[node.kind](node.attrs, *operands), np.float32)

    def _codes(self, data: Value) -> Array:
        if data is self.root:
            return _CODES
        assert data.producer is not None
        table = _table_of(data.producer)
        assert table is not None
        return table


def _source(data: Value) -> Value:
    """What the codes are looked up from, or the codes themselves."""
    made = data.producer
    if made is None or made.kind != "clinfer.Lookup" or data.dtype != made.required(0).dtype:
        return data
    return made.required(0)


def _plain(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda attrs, *x: function(*x)


def _hard_swish(attrs: Attrs, x: Array) -> Any:
    return x * np.clip(x / 6 + 0.5, 0, 1)


def _hard_sigmoid(attrs: Attrs, x: Array) -> Any:
    return np.clip(attrs.get("alpha", 0.2) * x + attrs.get("beta", 0.5), 0, 1)


def _leaky_relu(attrs: Attrs, x: Array) -> Any:
    return np.where(x < 0, attrs.get("alpha", 0.01) * x, x)


def _elu(attrs: Attrs, x: Array) -> Any:
    return np.where(x < 0, attrs.get("alpha", 1.0) * np.expm1(np.minimum(x, 0)), x)


def _gelu(attrs: Attrs, x: Array) -> Any:
    if attrs.get("approximate", "none") == "tanh":
        return x / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    return x / 2 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


_FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "Abs": _plain(np.abs),
    "Add": _plain(np.add),
    "Clip": _plain(lambda x, low, high: np.minimum(np.maximum(x, low), high)),
    "Div": _plain(np.divide),
    "Elu": _elu,
    "Erf": _plain(lambda x: np.vectorize(math.erf)(x)),
    "Exp": _plain(np.exp),
    "Gelu": _gelu,
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _hard_swish,
    "LeakyRelu": _leaky_relu,
    "Log": _plain(np.log),
    "Mul": _plain(np.multiply),
    "clinfer.MulAdd": _plain(lambda x, y, z: x * y + z),
    "Neg": _plain(np.negative),
    "Relu": _plain(lambda x: np.maximum(x, 0)),
    "Sigmoid": _plain(lambda x: 1 / (1 + np.exp(-x))),
    "Softplus": _plain(lambda x: np.logaddexp(x, 0)),
    "Sqrt": _plain(np.sqrt),
    "Sub": _plain(np.subtract),
    "Tanh": _plain(np.tanh),
}

RULES = (Rule("table", ("QuantizeLinear",), tabulate),)

"""Short ways to emit what decompositions are written with: numbers, positions, broadcasts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from clinfer.dtypes import BY_NAME, to_numpy
from clinfer.graph.ir import Value
from clinfer.passes.query import broadcast
from clinfer.passes.rewrite import Rewriter
from clinfer_kernels.dims import Dim


def number(rw: Rewriter, value: float, dtype: str | None) -> Value:
    """A 0-d constant."""
    return rw.constant(np.array(value, dtype=to_numpy(dtype or "float32")))


def cast(rw: Rewriter, x: Value, dtype: str) -> Value:
    """`x` in another dtype; a constant is converted now."""
    if x.dtype == dtype:
        return x
    if x.const is not None:
        return rw.constant(x.const.astype(to_numpy(dtype)))
    attrs = {"to": BY_NAME[dtype].onnx}
    return rw.emit("Cast", [x], dtype, x.shape, attrs=attrs, version=13)


def count(rw: Rewriter, size: Dim, shape: tuple[Dim, ...]) -> Value:
    """0, 1, ... as int64."""
    if isinstance(size, int):
        return rw.reshape(rw.constant(np.arange(size, dtype=np.int64)), shape)
    start, step = (rw.constant(np.array(n, dtype=np.int64)) for n in (0, 1))
    ranged = rw.emit("Range", [start, Maker(rw).size(size), step], "int64", (size,))
    return rw.reshape(ranged, shape)


def sizes_value(rw: Rewriter, dims: Sequence[Dim]) -> Value:
    """Sizes as an int64 tensor of one dimension."""
    content = np.empty(len(dims), object)
    content[:] = dims
    return Value(rw.graph.fresh("sizes"), "int64", (len(dims),), symbolic=content)


@dataclass(frozen=True)
class Maker:
    """Emits operators that broadcast; results have the dtype of the first operand."""

    rw: Rewriter

    def __call__(self, op: str, *operands: Value | float, dtype: str | None = None) -> Value:
        like = next(v for v in operands if isinstance(v, Value))
        values = [v if isinstance(v, Value) else number(self.rw, v, like.dtype) for v in operands]
        shape = broadcast([v.known_shape for v in values])
        return self.rw.emit(op, values, dtype or like.dtype, shape)

    def cast(self, x: Value, dtype: str) -> Value:
        """`x` converted."""
        return cast(self.rw, x, dtype)

    def size(self, dim: Dim) -> Value:
        """A size as an int64 scalar."""
        if isinstance(dim, int):
            return self.rw.constant(np.array(dim, np.int64))
        content = np.empty((), object)
        content[()] = dim
        return Value(self.rw.graph.fresh("size"), "int64", (), symbolic=content)

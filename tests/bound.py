"""Sizes that the shapes of inputs give to named dimensions."""

from __future__ import annotations

from collections.abc import Sequence

from clinfer.graph.ir import Value
from clinfer_kernels.dims import symbols


def bind_symbols(values: Sequence[Value], shapes: Sequence[Sequence[int]]) -> dict[str, int]:
    """The sizes that named dimensions have for inputs of these shapes."""
    bound: dict[str, int] = {}
    for value, shape in zip(values, shapes, strict=True):
        for dim, size in zip(value.shape or (), shape, strict=value.shape is not None):
            if str(dim) in symbols(dim):
                assert bound.setdefault(str(dim), int(size)) == size
    return bound

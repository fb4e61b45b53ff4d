"""Reductions in NumPy, for axes that only the run gives: named twice they are reduced once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from clinfer.graph.ir import Array

Attrs = Mapping[str, Any]
_Sum = Callable[[Array, "tuple[int, ...]"], Array]

_BEFORE: dict[str, Callable[[Array], Array]] = {
    "L1": np.abs,
    "L2": np.square,
    "SumSquare": np.square,
}
_AFTER: dict[str, Callable[[Array], Array]] = {"L2": np.sqrt, "LogSum": np.log}


def _most(x: Array, axes: tuple[int, ...]) -> Array:
    found: Array = np.max(x, axis=axes, keepdims=True, initial=lowest(x.dtype))
    return found


def _least(x: Array, axes: tuple[int, ...]) -> Array:
    found: Array = np.min(x, axis=axes, keepdims=True, initial=highest(x.dtype))
    return found


def _total(x: Array, axes: tuple[int, ...]) -> Array:
    found: Array = np.sum(x, axis=axes, keepdims=True, dtype=x.dtype)
    return found


def _product(x: Array, axes: tuple[int, ...]) -> Array:
    found: Array = np.prod(x, axis=axes, keepdims=True, dtype=x.dtype)
    return found


def _mean(x: Array, axes: tuple[int, ...]) -> Array:
    count = int(np.prod([x.shape[a] for a in axes], dtype=np.int64))
    total = _total(x, axes)
    if x.dtype.kind == "f":
        mean: Array = total / np.asarray(count, x.dtype)
    else:  # toward zero, as C divides
        mean = np.sign(total) * (np.abs(total) // max(count, 1))
    return mean


def _log_sum_exp(x: Array, axes: tuple[int, ...]) -> Array:
    most = _most(x, axes)
    most = np.where(np.isfinite(most), most, 0)
    return np.log(_total(np.exp(x - most), axes)) + most


_SUMS: dict[str, _Sum] = {
    "Max": _most,
    "Min": _least,
    "Mean": _mean,
    "Prod": _product,
    "LogSumExp": _log_sum_exp,
}


def lowest(dtype: np.dtype[Any]) -> Any:
    """What the greatest of no elements is."""
    if dtype.kind in "iu":
        return np.iinfo(dtype).min
    return False if dtype.kind == "b" else -np.inf


def highest(dtype: np.dtype[Any]) -> Any:
    """What the least of no elements is."""
    if dtype.kind in "iu":
        return np.iinfo(dtype).max
    return True if dtype.kind == "b" else np.inf


def reduction(name: str) -> Callable[[Attrs, Sequence[Any]], list[Any]]:
    """The function of `Reduce` and a name."""
    before, total, after = _BEFORE.get(name), _SUMS.get(name, _total), _AFTER.get(name)

    def run(attrs: Attrs, inputs: Sequence[Any]) -> list[Any]:
        x = inputs[0]
        named = inputs[1] if len(inputs) > 1 and inputs[1] is not None else attrs.get("axes")
        axes = _axes(named, x.ndim, bool(attrs.get("noop_with_empty_axes", 0)))
        narrow = x.dtype.kind not in "iub" and x.dtype.itemsize < 4
        wide = x.astype(np.float32) if narrow else x
        with np.errstate(all="ignore"):
            wide = wide if before is None else before(wide)
            found = total(wide, axes)
            found = found if after is None else after(found)
        if not attrs.get("keepdims", 1):
            found = np.squeeze(found, axes)
        return [found.astype(x.dtype)]

    return run


def _axes(named: Any, rank: int, keeps_all: bool) -> tuple[int, ...]:
    given = [] if named is None else [int(a) for a in np.ravel(named)]
    if not given:
        return () if keeps_all else tuple(range(rank))
    if not all(-max(rank, 1) <= a < max(rank, 1) for a in given):
        raise ValueError(f"axes in [-{rank}, {rank}) expected, found {given}")
    return tuple(sorted({a % rank for a in given})) if rank else ()


_NAMES = "Sum Mean Max Min Prod SumSquare L1 L2 LogSum LogSumExp"
REDUCTIONS = {f"Reduce{name}": reduction(name) for name in _NAMES.split()}

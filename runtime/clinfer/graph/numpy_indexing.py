"""Operators that pick or place elements at positions from data, in NumPy.

They are as strict as the kernels: NumPy's own wrapping and clipping never decide. A position
outside its axis raises `InputError`, without the node's name, which `HostOp` adds;
docs/operators.md has the rule of each operator. Where no element is moved none is looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from clinfer.errors import InputError
from clinfer.graph.ir import Array

Attrs = Mapping[str, Any]
Inputs = Sequence[Any]
_COMBINE = {"add": np.add, "mul": np.multiply, "max": np.maximum, "min": np.minimum}


def require(given: Array, low: int, high: int, what: str) -> None:
    """Requires every element to be at least `low` and below `high`."""
    outside = (given < low) | (given >= high)
    if outside.any():
        expected = f"{low} to {high - 1} is expected" if low < high else "there are none to choose"
        raise InputError(
            f"{what} is {given[outside][0]} where {expected}; give positions that the data has"
        )


def _places(attrs: Attrs, indices: Array, size: int, axis: int) -> Array:
    """Indices along an axis counted from its front."""
    positions = attrs.get("positions", "wrapped")
    if positions == "clamped":
        return np.clip(indices, 0, size - 1)
    if positions == "lengths":
        require(indices, 0, size + 1, "a length")
        return indices
    low = -size if positions == "wrapped" else 0
    require(indices, low, size, f"an index along axis {axis}")
    return np.where(indices < 0, indices + size, indices)


def gather(attrs: Attrs, inputs: Inputs) -> list[Any]:
    """Gather."""
    data, indices = inputs
    axis = _axis(attrs, data)
    shape = (*data.shape[:axis], *indices.shape, *data.shape[axis + 1 :])
    if 0 in shape:
        return [np.empty(shape, data.dtype)]
    return [np.take(data, _places(attrs, indices, data.shape[axis], axis), axis=axis)]


def gather_elements(attrs: Attrs, inputs: Inputs) -> list[Any]:
    """GatherElements."""
    data, indices = inputs
    if not indices.size:
        return [np.empty(indices.shape, data.dtype)]
    return [data[_lines(attrs, data, indices)]]


def gather_nd(attrs: Attrs, inputs: Inputs) -> list[Any]:
    """GatherND."""
    data, indices = inputs
    batch = int(attrs.get("batch_dims", 0))
    count = indices.shape[-1]
    shape = (*indices.shape[:-1], *data.shape[batch + count :])
    if 0 in shape:
        return [np.empty(shape, data.dtype)]
    grid = np.ogrid[tuple(slice(n) for n in indices.shape[:-1])] if indices.ndim > 1 else []
    where = (*grid[:batch], *_tuples(attrs, data, indices, batch))
    return [np.broadcast_to(data[where], shape)]


def scatter_elements(attrs: Attrs, inputs: Inputs) -> list[Any]:
    """ScatterElements and Scatter: of updates of one place the last in order is last."""
    data, indices, updates = inputs
    result = np.array(data)
    if updates.size:
        _put(attrs, result, _lines(attrs, data, indices), updates)
    return [result]


def scatter_nd(attrs: Attrs, inputs: Inputs) -> list[Any]:
    """ScatterND."""
    data, indices, updates = inputs
    wanted = (*indices.shape[:-1], *data.shape[indices.shape[-1] :])
    if updates.shape != wanted:
        raise InputError(f"updates of shape {list(wanted)} expected, found {list(updates.shape)}")
    result = np.array(data)
    if not updates.size:
        return [result]
    if indices.shape[-1] == 0:  # each update is of all of the data
        for update in updates.reshape(-1, *data.shape):
            _put(attrs, result[np.newaxis], (np.zeros(1, np.intp),), update[np.newaxis])
    else:
        _put(attrs, result, tuple(_tuples(attrs, data, indices, 0)), updates)
    return [result]


def tensor_scatter(attrs: Attrs, inputs: Inputs) -> list[Any]:
    """TensorScatter: updates from a place on; in circular mode after the last place the first."""
    cache, update = inputs[:2]
    axis = int(attrs.get("axis", -2)) % cache.ndim
    size, count = cache.shape[axis], update.shape[axis]
    result = np.array(cache)
    if not update.size:
        return [result]
    starts = inputs[2] if len(inputs) > 2 and inputs[2] is not None else np.zeros(len(cache), int)
    circular = attrs.get("mode", "linear") in ("circular", b"circular")
    most = np.iinfo(np.int64).max if circular else size - count + 1
    require(starts, 0, most, "a place to write at")
    for row, start in enumerate(starts):
        places = (int(start) % size + np.arange(count)) % size
        np.moveaxis(result[row], axis - 1, 0)[places] = np.moveaxis(update[row], axis - 1, 0)
    return [result]


def compress(attrs: Attrs, inputs: Inputs) -> list[Any]:
    """Compress: what lies beyond the condition is left out, as are conditions beyond the data."""
    data, condition = inputs
    axis = attrs.get("axis")
    if axis is None:
        data, axis = data.reshape(-1), 0
    size = data.shape[axis]
    return [np.compress(condition[:size], data, axis=axis)]


def one_hot(attrs: Attrs, inputs: Inputs) -> list[Any]:
    """OneHot: an index outside [-depth, depth) is nowhere, so that all is off."""
    indices, depth, values = inputs
    size = int(np.asarray(depth).reshape(-1)[0])
    if size <= 0:
        raise InputError(f"a depth above 0 expected, found {size}")
    axis = int(attrs.get("axis", -1)) % (indices.ndim + 1)
    places = np.arange(size).reshape(-1, *[1] * (indices.ndim - axis))
    wrapped = np.where(indices < 0, indices + size, indices)
    hit = np.expand_dims(wrapped, axis) == places
    return [np.where(hit, values[1], values[0])]


def max_unpool(attrs: Attrs, inputs: Inputs) -> list[Any]:
    """MaxUnpool: an output shape larger than what the window makes of the input adds zeros."""
    maxima, indices = inputs[:2]
    window = attrs["kernel_shape"]
    strides = attrs.get("strides") or [1] * len(window)
    pads = np.reshape(attrs.get("pads") or [0] * (2 * len(window)), (2, -1)).sum(0)
    steps = zip(maxima.shape[2:], strides, window, pads, strict=True)
    pooled = (*maxima.shape[:2], *((n - 1) * s + w - int(p) for n, s, w, p in steps))
    flat = np.zeros(int(np.prod(pooled)), maxima.dtype)
    require(indices, 0, flat.size, "an index")
    flat[indices.reshape(-1)] = maxima.reshape(-1)
    shape = pooled if len(inputs) < 3 or inputs[2] is None else tuple(int(n) for n in inputs[2])
    missing = [int(wanted) - own for wanted, own in zip(shape, pooled, strict=True)]
    if min(missing) < 0:
        raise InputError(f"an output shape of at least {pooled} expected, found {shape}")
    return [np.pad(flat.reshape(pooled), [(0, n) for n in missing])]


def split(attrs: Attrs, inputs: Inputs) -> list[Any]:
    """Split by sizes from data."""
    data, sizes = inputs
    axis = _axis(attrs, data)
    if (sizes < 0).any() or sizes.sum() != data.shape[axis]:
        raise InputError(
            f"sizes from 0 on with the sum {data.shape[axis]} expected, found {sizes.tolist()}"
        )
    return list(np.split(data, np.cumsum(sizes)[:-1], axis=axis))


def _axis(attrs: Attrs, data: Array) -> int:
    return int(attrs.get("axis", 0)) % max(data.ndim, 1)


def _lines(attrs: Attrs, data: Array, indices: Array) -> tuple[Array, ...]:
    """NumPy's index for elements that have the places of their indices but along the axis."""
    axis = _axis(attrs, data)
    beside = [n <= m for n, m in zip(indices.shape, data.shape, strict=True)]
    if not all(fits for number, fits in enumerate(beside) if number != axis):
        raise InputError(
            f"indices no larger than the data expected along all axes but {axis}, found "
            f"{list(indices.shape)} for {list(data.shape)}"
        )
    grid: list[Array] = list(np.ogrid[tuple(slice(n) for n in indices.shape)])
    grid[axis] = _places(attrs, indices, data.shape[axis], axis)
    return tuple(grid)


def _tuples(attrs: Attrs, data: Array, indices: Array, batch: int) -> list[Array]:
    """The components of the index tuples, counted from the front."""
    return [
        _places(attrs, indices[..., n], data.shape[batch + n], batch + n)
        for n in range(indices.shape[-1])
    ]


def _put(attrs: Attrs, result: Array, places: tuple[Any, ...], updates: Array) -> None:
    reduction = attrs.get("reduction", "none")
    name = reduction.decode() if isinstance(reduction, bytes) else reduction
    if name == "none":
        result[places] = updates
    else:
        _COMBINE[name].at(result, places, updates)


Function = Callable[[Attrs, Inputs], "list[Any]"]
TABLE: dict[str, Function] = {
    "Gather": gather,
    "GatherElements": gather_elements,
    "GatherND": gather_nd,
    "Scatter": scatter_elements,
    "ScatterElements": scatter_elements,
    "ScatterND": scatter_nd,
    "TensorScatter": tensor_scatter,
    "Compress": compress,
    "MaxUnpool": max_unpool,
    "OneHot": one_hot,
    "Split": split,
}

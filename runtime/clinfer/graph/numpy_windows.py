"""Conv and ConvTranspose in NumPy: for kernels whose sizes, strides or pads no device kernel takes.

Both add up tap by tap. Of each tap only those places count that lie in the data and in the result,
so that padding, strides and dilations cost nothing, however large.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import product
from typing import Any, NamedTuple

import numpy as np

from clinfer.graph.ir import Array

Attrs = Mapping[str, Any]
_FEW = 4096
Places = tuple[Any, ...]


class Axis(NamedTuple):
    """One spatial axis: place `stride` * i + `dilation` * tap - `begin` of the `outer` ones belongs
    to place i of the `inner` ones. A convolution reads its data outside, a transposed one inside.
    `end` is the padding behind the data.
    """

    stride: int
    dilation: int
    begin: int
    inner: int
    outer: int
    end: int = 0

    def meeting(self, tap: int) -> tuple[slice, slice]:
        """The places i that a tap takes, and theirs outside."""
        shift = tap * self.dilation - self.begin
        first = max(-(shift // self.stride), 0)
        stop = max(min(self.inner, -((shift - self.outer) // self.stride)), first)
        start = first * self.stride + shift
        end = start + max(stop - first - 1, 0) * self.stride + min(stop - first, 1)
        return slice(first, stop), slice(start, end, min(self.stride, max(self.outer, 1)))

    def taps(self, count: int) -> Iterable[int]:
        """Those of so many taps that may meet a place: of many not more than there are elements."""
        if count <= _FEW:
            return range(count)
        met: set[int] = set()
        for start in range(-self.begin, self.inner * self.stride - self.begin, self.stride):
            first = max(-(start // self.dilation), 0)
            met.update(range(first, min((self.outer - 1 - start) // self.dilation + 1, count)))
        return sorted(met)


def conv(attrs: Attrs, inputs: Sequence[Any]) -> list[Any]:
    """y[i] += x[stride * i + dilation * k - begin] w[k]."""
    x, weights, bias = (*inputs, None)[:3]
    groups = int(attrs.get("group", 1))
    axes = axes_of(attrs, x.shape[2:], weights.shape[2:])
    data, kernel = _grouped(wide(x), 1, groups), _grouped(wide(weights), 0, groups)
    result = np.zeros((x.shape[0], groups, kernel.shape[1], *(a.inner for a in axes)), data.dtype)
    for tap, inside, outside in taps_of(axes, weights.shape[2:]):
        result[inside] += np.einsum("ngc...,gmc->ngm...", data[outside], kernel[tap])
    return [_finished(result, bias, x.dtype)]


def conv_transpose(attrs: Attrs, inputs: Sequence[Any]) -> list[Any]:
    """y[stride * i + dilation * k - begin] += x[i] w[k]."""
    x, weights, bias = (*inputs, None)[:3]
    groups = int(attrs.get("group", 1))
    axes = _transposed_axes(attrs, x.shape[2:], weights.shape[2:])
    data, kernel = _grouped(wide(x), 1, groups), _grouped(wide(weights), 0, groups)
    result = np.zeros((x.shape[0], groups, weights.shape[1], *(a.outer for a in axes)), data.dtype)
    for tap, inside, outside in taps_of(axes, weights.shape[2:]):
        result[outside] += np.einsum("ngc...,gcm->ngm...", data[inside], kernel[tap])
    return [_finished(result, bias, x.dtype)]


def taps_of(axes: Sequence[Axis], window: Sequence[int]) -> Iterator[tuple[Places, Places, Places]]:
    """Each tap that meets a place, as an index, with the places inside and outside."""
    for tap in product(*(a.taps(n) for a, n in zip(axes, window, strict=True))):
        met = [axis.meeting(t) for axis, t in zip(axes, tap, strict=True)]
        if all(inside.stop > inside.start for inside, _ in met):
            yield (..., *tap), (..., *(i for i, _ in met)), (..., *(o for _, o in met))


def _grouped(x: Array, axis: int, groups: int) -> Array:
    """With an axis cut into groups."""
    return x.reshape(*x.shape[:axis], groups, x.shape[axis] // groups, *x.shape[axis + 1 :])


def wide(x: Array) -> Array:
    """In the dtype of the sums."""
    return x if x.dtype in (np.float64, np.int32) else x.astype(np.float32)


def _finished(result: Array, bias: Array | None, dtype: np.dtype[Any]) -> Array:
    """[batch, groups, channels, spatial...] -> [batch, groups * channels, spatial...]."""
    made = result.reshape(result.shape[0], result.shape[1] * result.shape[2], *result.shape[3:])
    if bias is not None:
        made = made + bias.reshape(-1, *[1] * (made.ndim - 2))
    return made.astype(dtype)


def axes_of(attrs: Attrs, sizes: Sequence[int], taps: Sequence[int]) -> list[Axis]:
    """The axes of a convolution or pool; inside are its results."""
    rank = len(sizes)
    auto = attrs.get("auto_pad", "NOTSET")
    pads = attrs.get("pads") or [0] * 2 * rank
    found = []
    for i, (stride, dilation) in enumerate(_steps(attrs, rank)):
        extent = (taps[i] - 1) * dilation + 1
        begin, end = (pads[i], pads[i + rank]) if auto in ("NOTSET", "") else (0, 0)
        if auto.startswith("SAME"):
            total = max((-(-sizes[i] // stride) - 1) * stride + extent - sizes[i], 0)
            begin = total // 2 if auto == "SAME_UPPER" else total - total // 2
            end = total - begin
        room = sizes[i] + begin + end - extent
        count = room // stride + 1
        if attrs.get("ceil_mode", 0) and not auto.startswith("SAME"):
            count = min(-(-room // stride) + 1, -(-(sizes[i] + begin) // stride))
        found.append(Axis(stride, dilation, begin, max(count, 0), sizes[i], end))
    return found


def _transposed_axes(attrs: Attrs, sizes: Sequence[int], taps: Sequence[int]) -> list[Axis]:
    rank = len(sizes)
    extra = attrs.get("output_padding") or [0] * rank
    pads = attrs.get("pads") or [0] * 2 * rank
    auto = attrs.get("auto_pad", "NOTSET")
    steps = _steps(attrs, rank)
    wanted = list(attrs.get("output_shape") or [])[-rank:]
    if not wanted and auto.startswith("SAME"):
        wanted = [n * stride for n, (stride, _) in zip(sizes, steps, strict=True)]
    found = []
    for i, (stride, dilation) in enumerate(steps):
        least = (sizes[i] - 1) * stride + (taps[i] - 1) * dilation + 1 + extra[i]
        if wanted:
            # Half of what is cut off at each end; of an odd number more at the begin, but for
            # SAME_UPPER. Where SAME wants more than there is, zeros are added behind.
            cut = max(least - wanted[i], 0)
            begin, size = (cut if auto == "SAME_UPPER" else cut + 1) // 2, wanted[i]
        else:
            begin, end = (0, 0) if auto == "VALID" else (pads[i], pads[i + rank])
            size = max(least - begin - end, 0)
        found.append(Axis(stride, dilation, begin, sizes[i], size))
    return found


def _steps(attrs: Attrs, rank: int) -> list[tuple[int, int]]:
    """Stride and dilation of each axis."""
    strides = attrs.get("strides") or [1] * rank
    return list(zip(strides, attrs.get("dilations") or [1] * rank, strict=True))

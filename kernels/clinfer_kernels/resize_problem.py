"""A resize as its kernels see it: as few dimensions as there can be, the innermost one last."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from clinfer_kernels.dims import Dim
from clinfer_kernels.nest import Axis, View, merge
from clinfer_kernels.pixels import Pixels
from clinfer_kernels.spec import Tensor
from clinfer_kernels.specs import ResizeSpec

_FEW = 4


@dataclass(frozen=True)
class Problem:
    """The merged dimensions of a resize, the innermost one last.

    `sizes` are the input's along the dimensions that are resized, None along the others; `scales`
    the model's factors there (None: from the sizes).
    """

    axes: tuple[Axis, ...]
    sizes: tuple[Dim | None, ...]
    scales: tuple[float | None, ...]
    pixels: Pixels
    x: Tensor
    x_strides: tuple[Dim, ...]

    @property
    def is_inner_resized(self) -> bool:
        return self.sizes[-1] is not None

    @property
    def outer(self) -> tuple[int, ...]:
        """The numbers of the resized dimensions but the innermost."""
        return tuple(k for k, n in enumerate(self.sizes[:-1]) if n is not None)


def as_fraction(scale: float) -> Fraction:
    """The plainest fraction that is `scale` in float32: 0.3 is 3 / 10.

    Models hold factors in float32; places that lie halfway between two elements are found only with
    the number that was meant.
    """
    for limit in (1000, 1 << 20):
        found = Fraction(scale).limit_denominator(limit)
        if np.float32(found.numerator / found.denominator) == np.float32(scale):
            return found
    return max(found, Fraction(1, 1 << 20))


def problem_of(spec: ResizeSpec, by_lines: bool) -> Problem:
    """Merges neighbouring dimensions that are not resized.

    `by_lines`: a task walks along the innermost dimension. A few channels behind the pixels are no
    such line: the pixels of a row are, once for each channel.
    """
    x, out = spec.ins[0], spec.outs[0]
    tensors = (out, *spec.ins[1:], x)
    scales = dict(zip(spec.axes, spec.scales, strict=True))
    axes = [Axis(1, (0,) * len(tensors))]
    found: list[tuple[Dim | None, float | None]] = [(None, None)]
    run: list[Axis] = []
    for d in range(out.rank):
        axis = Axis(out.shape[d], tuple(t.strides[d] for t in tensors))
        if d not in scales:
            run.append(axis)
            continue
        _append(axes, found, run)
        run = []
        axes.append(axis)
        found.append((x.shape[d], _own_scale(scales[d], x.shape[d], out.shape[d])))
    _append(axes, found, run)
    if len(axes) > 2 and found[1][0] is None:  # the leading axis of size 1 is not needed
        axes, found = axes[1:], found[1:]
    if by_lines and len(axes) > 1 and _are_few(axes[-1].size, found[-2:]):
        axes[-2:] = axes[:-3:-1]
        found[-2:] = found[:-3:-1]
    return Problem(
        axes=tuple(axes),
        sizes=tuple(size for size, _ in found),
        scales=tuple(scale for _, scale in found),
        pixels=_pixels(tensors[:-1], axes),
        x=x,
        x_strides=tuple(axis.strides[-1] for axis in axes),
    )


def _are_few(size: Dim, found: Sequence[tuple[Dim | None, float | None]]) -> bool:
    """Whether the last dimension is a picture's channels, the one before it being resized."""
    (pixels, _), (channels, _) = found
    return isinstance(size, int) and size <= _FEW and channels is None and pixels is not None


def _append(
    axes: list[Axis], found: list[tuple[Dim | None, float | None]], run: Sequence[Axis]
) -> None:
    """Adds a run of dimensions that are not resized, merged; nothing if it is one element."""
    merged = [axis for axis in merge(run) if axis.size != 1] if run else []
    axes += merged
    found += [(None, None)] * len(merged)


def _own_scale(scale: float | None, size: Dim, out: Dim) -> float | None:
    """The model's factor where it is not the quotient of the sizes."""
    if scale is None or (scale == int(scale) and out == size * int(scale)):
        return None
    if isinstance(size, int) and isinstance(out, int) and size:
        return None if np.float32(out / size) == np.float32(scale) else scale
    return scale


def _pixels(tensors: Sequence[Tensor], axes: Sequence[Axis]) -> Pixels:
    """The output and the operands; the outer dimensions are what `Pixels` calls pixels."""
    views = []
    for number, tensor in enumerate(tensors):
        strides = tuple(axis.strides[number] for axis in axes)
        name = "y0" if number == 0 else f"e{number - 1}"
        kind, place = ("out", 0) if number == 0 else ("in", number)
        views.append(View(name, kind, place, tensor.dtype, tensor.offset, strides))
    return Pixels(tuple(axis.size for axis in axes[:-1]), (views[0],), tuple(views[1:]))

"""Convolutions as their kernels see them: one `Problem`, or one per phase where transposed.

    out[p][g M + m] = epilogue(sum over taps t, channels c of x[p at t][g C + c] * w[g][m][c][t])

A transposed convolution is gathered: the outputs o with o mod stride = phase form an ordinary
convolution over fewer taps, which reads the input with steps of 1 (Dumoulin & Visin, "A guide to
convolution arithmetic for deep learning", 2016, section 4); its outputs are a strided view.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import product as combinations

from clinfer_kernels.conv_prologue import Prologue, prologue_of
from clinfer_kernels.dims import Dim, floordiv
from clinfer_kernels.expr import Expr
from clinfer_kernels.pixels import Pixels, pixels_of
from clinfer_kernels.spec import Target, Tensor, dense
from clinfer_kernels.specs import ConvSpec
from clinfer_kernels.types import size_of
from clinfer_kernels.window import (
    WindowAxis,
    positions,
    simplify,
    transposed_axis,
    window_axes,
)


@dataclass(frozen=True)
class Problem:
    """One convolution; `channels` and `filters` (C and M above) count one group's.

    `weights` views the weights as [groups, filters, channels, taps of each axis...] and `taps` are
    the taps it takes of the whole window; `acc` is the dtype of the sums (operand 0 of the
    epilogue); float16 and bfloat16 are float32 in registers, so that is what they are summed in.
    """

    axes: tuple[WindowAxis, ...]
    groups: Dim
    filters: Dim
    channels: Dim
    x: Tensor
    weights: Tensor
    taps: tuple[range, ...]
    pixels: Pixels
    epilogue: Expr
    acc: str
    prologue: Prologue | None = None

    @property
    def positions(self) -> Dim:
        """How many pixels the output has."""
        return positions(self.axes)

    @property
    def window(self) -> int:
        """How many taps the window has."""
        count = 1
        for axis in self.axes:
            count *= axis.taps
        return count

    @property
    def flops(self) -> Dim:
        """Multiplications and additions, those with padding included."""
        made = self.positions * self.groups * self.filters
        return 2 * made * self.channels * self.window

    @property
    def is_depthwise(self) -> bool:
        """Whether each channel has one filter of its own."""
        return self.channels == 1 and self.filters == 1 and self.groups != 1

    @property
    def reads_in_place(self) -> bool:
        """Whether vectors of channels are read where x lies, as they are."""
        return self.x.dtype == self.acc and self.x.strides[-1] == 1 and self.prologue is None


def vector_lanes(target: Target, acc: str) -> int:
    """Lanes of the vectors that sums are kept in: as many as a register of class "cpu" holds."""
    return max(2, min(16, target.vector_width) * 4 // max(4, size_of(acc)))


def problems_of(spec: ConvSpec) -> tuple[Problem, ...]:
    """The problems that together make up `spec`: one, or one per phase."""
    return tuple(_problem(spec, axes, taps, outs) for axes, taps, outs in _parts(spec))


Part = tuple[tuple[WindowAxis, ...], tuple[range, ...], tuple[Tensor, ...]]


def _parts(spec: ConvSpec) -> Iterator[Part]:
    """Axes, taps, and the views of the output and the operands, of each part."""
    x, out = spec.ins[0], spec.outs[0]
    axes = window_axes(x, out, spec.kernel, spec.strides, spec.pads, spec.dilations)
    views = (out, *spec.ins[2 : spec.count])
    if not spec.transposed:
        yield axes, tuple(range(k) for k in spec.kernel), views
        return
    for phases in combinations(*(range(s) for s in spec.strides)):
        made = [transposed_axis(a, p) for a, p in zip(axes[1:], phases, strict=True)]
        spatial = tuple(axis for axis, _ in made)
        strided = tuple(_phase_view(v, phases, spec.strides, spatial) for v in views)
        yield (axes[0], *spatial), tuple(taps for _, taps in made), strided


def _phase_view(
    view: Tensor, phases: Sequence[int], steps: Sequence[int], axes: Sequence[WindowAxis]
) -> Tensor:
    offset = view.offset
    shape = list(view.shape)
    strides = list(view.strides)
    for d, (phase, step) in enumerate(zip(phases, steps, strict=True), start=1):
        offset = offset + phase * strides[d]
        shape[d] = axes[d - 1].out
        strides[d] = strides[d] * step
    return Tensor(view.dtype, tuple(shape), tuple(strides), offset)


def _problem(
    spec: ConvSpec,
    axes: tuple[WindowAxis, ...],
    taps: tuple[range, ...],
    views: tuple[Tensor, ...],
) -> Problem:
    x = spec.ins[0]
    acc = spec.epilogue.inputs[0]
    weights = _taken(_grouped(spec.ins[1], spec.groups, spec.transposed), taps)
    return Problem(
        axes=simplify(axes),
        groups=spec.groups,
        filters=weights.shape[1],
        channels=weights.shape[2],
        x=x,
        weights=weights,
        taps=taps,
        pixels=pixels_of(views[:1], views[1:], first=2),
        epilogue=spec.epilogue,
        acc="float32" if acc in ("float16", "bfloat16") else acc,
        prologue=prologue_of(spec),
    )


def dense_input(spec: ConvSpec, dtype: str) -> ConvSpec:
    """The spec on a dense copy of its input, after the prologue and converted to `dtype`."""
    plain = {field.name: getattr(spec, field.name) for field in fields(ConvSpec)}
    plain["ins"] = (dense(dtype, spec.ins[0].shape), *spec.ins[1 : spec.count])
    return ConvSpec(**plain)


def _grouped(w: Tensor, groups: int, transposed: bool) -> Tensor:
    """ONNX weights as [groups, filters, channels, kernel...], filters and channels per group."""
    rows, columns = w.shape[:2]
    per_group = floordiv(rows, groups)
    outer = w.strides[0] * per_group
    if transposed:
        shape = (groups, columns, per_group, *w.shape[2:])
        return Tensor(w.dtype, shape, (outer, w.strides[1], w.strides[0], *w.strides[2:]), w.offset)
    shape = (groups, per_group, columns, *w.shape[2:])
    return Tensor(w.dtype, shape, (outer, *w.strides), w.offset)


def _taken(w: Tensor, taps: Sequence[range]) -> Tensor:
    """The taps of a phase as a view."""
    offset = w.offset
    shape = list(w.shape)
    strides = list(w.strides)
    for d, chosen in enumerate(taps, start=3):
        offset = offset + chosen.start * strides[d]
        shape[d] = len(chosen)
        strides[d] = strides[d] * chosen.step
    return Tensor(w.dtype, tuple(shape), tuple(strides), offset)

"""Sliding windows: which input elements an output position reads, per axis and in kernel text.

Position o and tap t of an axis read index  o * step + t * tap_step + origin  of an input of `size`
elements; indices outside [0, size) are padding. Axes run from the batch to the innermost spatial
axis; the first one has no window (one tap, step 1, origin 0).

In texts axis A has the positions oA below outA, taps tA below tapsA, and the parameters sizeA,
stepA, tap_stepA, originA and x_sA (elements of x per index).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from clinfer_kernels.dims import Dim, ceildiv, product
from clinfer_kernels.nest import advance, decode
from clinfer_kernels.signature import Signature
from clinfer_kernels.spec import Tensor


@dataclass(frozen=True)
class WindowAxis:
    """One axis; see the module's text. `stride`: of x, in elements."""

    out: Dim
    size: Dim
    stride: Dim
    taps: int = 1
    step: int = 1
    tap_step: int = 1
    origin: int = 0

    @property
    def is_plain(self) -> bool:
        """Whether index o is read at position o, and nothing else."""
        return (self.taps, self.step, self.origin) == (1, 1, 0) and self.out == self.size


def window_axes(
    x: Tensor,
    out: Tensor,
    kernel: Sequence[int],
    strides: Sequence[int],
    pads: Sequence[int],
    dilations: Sequence[int],
) -> tuple[WindowAxis, ...]:
    """The axes of an ordinary convolution or pool; x and out are [N, spatial..., channels]."""
    batch = WindowAxis(out.shape[0], x.shape[0], x.strides[0])
    spatial = (
        WindowAxis(
            out=out.shape[1 + d],
            size=x.shape[1 + d],
            stride=x.strides[1 + d],
            taps=kernel[d],
            step=strides[d],
            tap_step=dilations[d],
            origin=-pads[d],
        )
        for d in range(len(kernel))
    )
    return (batch, *spatial)


def transposed_axis(axis: WindowAxis, phase: int) -> tuple[WindowAxis, range]:
    """The axis of the outputs o = phase + i * step of a transposed convolution, and its taps.

    There tap t adds input i to output i * step + t * tap_step + origin. Output o is reached by tap
    t where (o - origin - t * tap_step) is a multiple of the step; of a phase, those taps are an
    arithmetic sequence, and the input index falls along it:

        t = first + j * every        index = i + (phase - origin - t * tap_step) / step
    """
    taps = [
        t for t in range(axis.taps) if (phase - axis.origin - t * axis.tap_step) % axis.step == 0
    ]
    first = taps[0] if taps else 0
    every = taps[1] - first if len(taps) > 1 else 1
    made = WindowAxis(
        out=ceildiv(axis.out - phase, axis.step),
        size=axis.size,
        stride=axis.stride,
        taps=len(taps),
        step=1,
        tap_step=-(every * axis.tap_step // axis.step) if len(taps) > 1 else 1,
        origin=(phase - axis.origin - first * axis.tap_step) // axis.step,
    )
    return made, range(first, first + every * len(taps), every)


def simplify(axes: Sequence[WindowAxis], rank: int = 3) -> tuple[WindowAxis, ...]:
    """The same windows over at least `rank` axes, as few as there can be.

    Neighbours without a window that are contiguous become one, so that a 1 x 1 convolution is a
    row of positions; axes of size 1 are put in front, so that most windows have `rank` axes and
    share a text.
    """
    kept: list[WindowAxis] = []
    for axis in axes:
        if axis.is_plain and axis.out == 1:
            continue
        joined = _joined(kept[-1], axis) if kept else None
        if joined is not None:
            kept[-1] = joined
        else:
            kept.append(axis)
    needed = rank if not kept or kept[0].is_plain else max(rank, len(kept) + 1)
    front = (WindowAxis(1, 1, 0),) * (needed - len(kept))
    return (*front, *kept)


def _joined(outer: WindowAxis, inner: WindowAxis) -> WindowAxis | None:
    if not (outer.is_plain and inner.is_plain and outer.stride == inner.stride * inner.size):
        return None
    return WindowAxis(outer.out * inner.out, outer.size * inner.size, inner.stride)


def positions(axes: Sequence[WindowAxis]) -> Dim:
    """How many output positions there are."""
    return product(axis.out for axis in axes)


def declare_axes(signature: Signature, axes: Sequence[WindowAxis]) -> None:
    """The parameters of all axes; the first has only x_s0."""
    for number, axis in enumerate(axes):
        signature.scalar(f"x_s{number}", axis.stride)
        if number == 0:
            continue
        for name, value in (
            ("out", axis.out),
            ("size", axis.size),
            ("taps", axis.taps),
            ("step", axis.step),
            ("tap_step", axis.tap_step),
            ("origin", axis.origin),
        ):
            signature.scalar(f"{name}{number}", value)


def windowed(rank: int) -> range:
    """The numbers of the axes that have a window."""
    return range(1, rank)


def decode_position(rank: int, flat: str) -> list[str]:
    """Statements that declare o0, o1, ... and set them from the flat position `flat`."""
    names = ", ".join(f"o{a}" for a in range(rank))
    return [f"int {names};", *decode(range(rank), flat, "o", "out")]


def advance_position(rank: int) -> list[str]:
    """Statements that move o0, o1, ... on by one position."""
    return advance(range(rank), "o", "out")


def index(axis: int) -> str:
    """The index that tap 0 of position oA reads."""
    return f"o{axis} * step{axis} + origin{axis}"


def tap_indices(axes: Sequence[int]) -> list[str]:
    """Statements that set jA, the index that tap tA of position oA reads; `continue` in padding."""
    lines = []
    for a in axes:
        lines.append(f"const int j{a} = {index(a)} + t{a} * tap_step{a};")
        lines.append(f"if ((uint)j{a} >= (uint)size{a}) continue;")
    return lines


def input_at(axes: Sequence[int]) -> str:
    """Where x is at the batch index o0 and the indices jA."""
    return " + ".join(["x_o", "o0 * x_s0", *(f"j{a} * x_s{a}" for a in axes)])


def decode_taps(axes: Sequence[int], flat: str) -> list[str]:
    """Statements that set tA for `axes` from the flat tap number `flat`."""
    if not axes:
        return []
    names = ", ".join(f"t{a}" for a in axes)
    return [f"int {names};", *decode(axes, flat, "t", "taps")]

"""Loop nests over strided views: fewer, longer dimensions, and their indices in kernel text.

`axes_of(tensors)` lists the dimensions of views of one shape; `merge` drops those of size 1 and
joins neighbours that every view walks with one stride (equal as expressions, so it holds for every
value of the symbols):

    size 4, strides (6, 0)   size 3, strides (2, 0)   ->   size 12, strides (2, 0)

In texts the dimensions of a nest have sizes n0, n1, ... and indices i0, i1, ..., outermost first;
view `x` has offset x_o and strides x_s0, x_s1, ...
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from clinfer_kernels.dims import Dim, common_factor
from clinfer_kernels.signature import Signature
from clinfer_kernels.spec import Tensor


@dataclass(frozen=True)
class Axis:
    """One loop: its trip count, and how many elements each view moves per step."""

    size: Dim
    strides: tuple[Dim, ...]


def axes_of(tensors: Sequence[Tensor], dims: Iterable[int] | None = None) -> tuple[Axis, ...]:
    """The dimensions (all, or `dims`) of views that have one shape there."""
    chosen = range(tensors[0].rank) if dims is None else dims
    return tuple(Axis(tensors[0].shape[d], tuple(t.strides[d] for t in tensors)) for d in chosen)


def merge(axes: Sequence[Axis]) -> tuple[Axis, ...]:
    """The same iteration with as few dimensions as can be proved; never empty."""
    merged: list[Axis] = []
    for axis in axes:
        if axis.size == 1:
            continue
        if merged and _contiguous(merged[-1], axis):
            merged[-1] = Axis(merged[-1].size * axis.size, axis.strides)
        else:
            merged.append(axis)
    if not merged:
        count = len(axes[0].strides) if axes else 0
        return (Axis(1, (0,) * count),)
    return tuple(merged)


def _contiguous(outer: Axis, inner: Axis) -> bool:
    pairs = zip(outer.strides, inner.strides, strict=True)
    return all(o == i * inner.size for o, i in pairs)


def innermost_last(axes: Sequence[Axis], view: int) -> tuple[Axis, ...]:
    """The axes reordered so that `view` is walked in its memory order, where that is known.

    Static strides are sorted; otherwise the first axis of stride 1 goes last.
    """
    strides = [axis.strides[view] for axis in axes]
    sized = [axis for axis in axes if axis.size != 1]
    if all(isinstance(s, int) for s in strides):
        return tuple(sorted(sized, key=lambda axis: -abs(_known(axis.strides[view]))))
    for index, axis in enumerate(sized):
        if axis.strides[view] == 1:
            return (*sized[:index], *sized[index + 1 :], axis)
    return tuple(sized)


def _known(stride: Dim) -> int:
    assert isinstance(stride, int)
    return stride


def stride_kind(stride: Dim) -> str:
    """'0' or '1' where the stride is that, 's' for any other: what a text may know of it."""
    return str(stride) if stride in (0, 1) else "s"


@dataclass(frozen=True)
class View:
    """An operand or output in a text: its name, its buffer, its strides along the nest's axes."""

    name: str
    kind: str  # as `Arg.kind`
    index: int
    dtype: str
    offset: Dim
    strides: tuple[Dim, ...]

    @property
    def inner(self) -> str:
        """What is known of the innermost stride: '0', '1' or 's'."""
        return stride_kind(self.strides[-1])

    @property
    def step(self) -> str:
        """The innermost stride as C: '0', '1' or the parameter's name."""
        return f"{self.name}_s{len(self.strides) - 1}" if self.inner == "s" else self.inner

    def is_aligned(self, width: int) -> bool:
        """Whether every row of the innermost axis begins at a multiple of `width` elements."""
        return common_factor((self.offset, *self.strides[:-1])) % width == 0

    def at(self, index: str = "i") -> str:
        """The element `index` steps along the innermost axis from x_at."""
        if self.inner == "0":
            return f"{self.name}_at"
        return f"{self.name}_at + {index}" + (f" * {self.step}" if self.inner == "s" else "")


def in_place(outs: Sequence[View], operands: Sequence[View]) -> tuple[tuple[View, View], ...]:
    """(output, operand) for the operands whose elements lie as the output's do."""
    return tuple((o, v) for o in outs for v in operands if _places(o) == _places(v))


def _places(view: View) -> tuple[object, ...]:
    """What fixes where each element lies."""
    return view.dtype, view.offset, view.strides


def views_of(
    kind: str, letter: str, tensors: Sequence[Tensor], axes: Sequence[Axis], first: int
) -> tuple[View, ...]:
    """Views named x0, x1, ... (`letter`); `first`: the first one's place in the axes' strides."""
    return tuple(
        View(f"{letter}{i}", kind, i, t.dtype, t.offset, tuple(a.strides[first + i] for a in axes))
        for i, t in enumerate(tensors)
    )


def declare_sizes(signature: Signature, sizes: Iterable[Dim], prefix: str = "n") -> None:
    """Parameters n0, n1, ..."""
    for number, size in enumerate(sizes):
        signature.scalar(f"{prefix}{number}", size)


def count_text(numbers: Iterable[int], size: str = "n") -> str:
    """'n0 * n1': the trip count of those loops; '1' for none."""
    return " * ".join(f"{size}{k}" for k in numbers) or "1"


def declare_strides(
    signature: Signature, name: str, offset: Dim | None, strides: Iterable[tuple[int, Dim]]
) -> None:
    """Parameters x_o (unless `offset` is None) and x_sK for the numbered strides."""
    if offset is not None:
        signature.scalar(f"{name}_o", offset)
    for number, stride in strides:
        signature.scalar(f"{name}_s{number}", stride)


def address(name: str, numbers: Iterable[int], index: str = "i") -> str:
    """'x_o + i0 * x_s0 + i1 * x_s1': the element that the outer indices select."""
    return " + ".join([f"{name}_o", *(f"{index}{k} * {name}_s{k}" for k in numbers)])


def decode(numbers: Sequence[int], flat: str, index: str = "i", size: str = "n") -> list[str]:
    """Statements that set i0, i1, ... (already declared) from the flat index variable `flat`."""
    lines = []
    for number in reversed(numbers):
        if number == numbers[0]:
            lines.append(f"{index}{number} = {flat};")
        else:
            lines.append(f"{index}{number} = {flat} % {size}{number};")
            lines.append(f"{flat} /= {size}{number};")
    return lines


def advance(numbers: Sequence[int], index: str = "i", size: str = "n") -> list[str]:
    """Statements that move i0, i1, ... on by one, like an odometer; the first never wraps."""
    if not numbers:
        return []
    lines = [f"++{index}{numbers[-1]};"]
    for number, outer in zip(reversed(numbers[1:]), reversed(numbers[:-1]), strict=True):
        lines.append(f"if ({index}{number} == {size}{number}) {{")
        lines.append(f"    {index}{number} = 0;")
        lines.append(f"    ++{index}{outer};")
        lines.append("}")
    return lines

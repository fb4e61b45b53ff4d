"""Kernels that work on rows: reductions, softmax, normalisation.

The dimensions of the operands are split in two nests, each merged by itself (see `nest`):

    kept   n0, n1, ...   indices i0, i1, ...   strides x_s0, ...   one row per index
    row    m0, m1, ...   indices r0, r1, ...   strides x_t0, ...   the elements of a row

and element (i, r) of a view is x[x_at + r0 * x_t0 + ...], with x_at = x_o + i0 * x_s0 + ....
The last index of the nest that vectors run along is called j in texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from clinfer_kernels.dims import Dim, evaluate, product, symbols
from clinfer_kernels.nest import Axis, axes_of, decode, innermost_last, merge, stride_kind
from clinfer_kernels.signature import Signature
from clinfer_kernels.spec import Tensor
from clinfer_kernels.template import inside


@dataclass(frozen=True)
class RowView:
    """A view's strides along both nests; `row` is empty where a row has one value."""

    name: str
    kind: str  # as `Arg.kind`
    index: int
    dtype: str
    offset: Dim
    kept: tuple[Dim, ...]
    row: tuple[Dim, ...]

    @property
    def row_step(self) -> str:
        """The innermost stride in the row, as C: '0', '1' or the parameter."""
        return _step(self.row, f"{self.name}_t")

    @property
    def kept_step(self) -> str:
        """The innermost stride between rows, as C: '0', '1' or the parameter."""
        return _step(self.kept, f"{self.name}_s")


@dataclass(frozen=True)
class RowProblem:
    """Operands of the prologue (x0, ...), of the epilogue (e0, ...) and outputs (y0, ...)."""

    kept: tuple[Dim, ...]
    row: tuple[Dim, ...]
    ins: tuple[RowView, ...]
    operands: tuple[RowView, ...]
    outs: tuple[RowView, ...]

    @property
    def rows(self) -> Dim:
        return product(self.kept)

    @property
    def length(self) -> Dim:
        """Elements of a row."""
        return product(self.row)

    @property
    def views(self) -> tuple[RowView, ...]:
        return self.ins + self.operands + self.outs

    def signature(self) -> Signature:
        """Buffers, both nests' sizes, then each view's offset and strides."""
        signature = Signature()
        for view in self.views:
            signature.buffer(view.kind, view.index, view.dtype, view.name)
        for letter, sizes in (("n", self.kept), ("m", self.row)):
            for number, size in enumerate(sizes):
                signature.scalar(f"{letter}{number}", size)
        for view in self.views:
            signature.scalar(f"{view.name}_o", view.offset)
            for letter, strides in (("s", view.kept), ("t", view.row)):
                for number, stride in enumerate(strides):
                    signature.scalar(f"{view.name}_{letter}{number}", stride)
        return signature


def row_problem(
    ins: Sequence[Tensor],
    operands: Sequence[Tensor],
    outs: Sequence[Tensor],
    row_dims: Sequence[int],
    shared: bool = False,
) -> RowProblem:
    """Splits and merges the dimensions; vectors run along the last axis of either nest.

    `shared`: operands and outputs have one value per row (`row_dims` have size 1 in them).
    """
    everything = [*ins, *operands, *outs]
    in_row = list(ins) if shared else everything
    kept_dims = [d for d in range(ins[0].rank) if d not in row_dims]
    kept = _nest([ins[0], *everything], kept_dims)
    row = _nest([ins[0], *in_row], list(row_dims))
    views: list[RowView] = []
    groups = (("in", "x", ins, 0), ("in", "e", operands, len(ins)), ("out", "y", outs, 0))
    for kind, letter, tensors, first in groups:
        for number, tensor in enumerate(tensors):
            column = len(views) + 1
            strides = tuple(a.strides[column] for a in row) if column <= len(in_row) else ()
            kept_strides = tuple(a.strides[column] for a in kept)
            name = f"{letter}{number}"
            views.append(
                RowView(
                    name, kind, first + number, tensor.dtype, tensor.offset, kept_strides, strides
                )
            )
    split = len(ins), len(ins) + len(operands)
    return RowProblem(
        tuple(a.size for a in kept),
        tuple(a.size for a in row),
        tuple(views[: split[0]]),
        tuple(views[split[0] : split[1]]),
        tuple(views[split[1] :]),
    )


def _nest(tensors: Sequence[Tensor], dims: Sequence[int]) -> tuple[Axis, ...]:
    """Merged axes, in the memory order of the first tensor."""
    axes = axes_of(tensors, dims)
    ordered = innermost_last(axes, 0)
    return merge(ordered) if ordered else (Axis(1, (0,) * len(tensors)),)


def _step(strides: tuple[Dim, ...], prefix: str) -> str:
    if not strides:
        return "0"
    known = stride_kind(strides[-1])
    return f"{prefix}{len(strides) - 1}" if known == "s" else known


def kept_base(view: RowView, count: int) -> str:
    """The statement that declares x_at from the first `count` kept indices."""
    terms = [f"i{k} * {view.name}_s{k}" for k in range(count)]
    return f"const int {view.name}_at = {' + '.join([f'{view.name}_o', *terms])};"


def row_base(view: RowView, count: int) -> str:
    """The statement that declares x_row from x_at and the first `count` row indices."""
    terms = [f"r{k} * {view.name}_t{k}" for k in range(count)] if view.row else []
    return f"const int {view.name}_row = {' + '.join([f'{view.name}_at', *terms])};"


def along(base: str, index: str, step: str) -> str:
    """'x_row + j * x_t1': `index` steps from `base`."""
    if step == "0":
        return base
    return f"{base} + {index}" if step == "1" else f"{base} + {index} * {step}"


def kept_indices(count: int, flat: str) -> list[str]:
    """Statements declaring i0, i1, ... of the flat index variable `flat`."""
    return [f"int i{k};" for k in range(count)] + decode(range(count), flat)


def nested(count: int, body: Sequence[str], first: tuple[str, str] = ("0", "m0")) -> list[str]:
    """Loops over r0, r1, ... (`count` of them) around `body`; `first`: the range of r0."""
    lines = list(body)
    for number in reversed(range(count)):
        low, high = first if number == 0 else ("0", f"m{number}")
        loop = f"for (int r{number} = {low}; r{number} < {high}; ++r{number}) {{"
        lines = [loop, *inside(lines), "}"]
    return lines


def at_least(dim: Dim) -> int:
    """The size where every symbol is 1: what a schedule may count on.

    0 where it divides by what is 0 there, a number of windows of several pixels, say.
    """
    try:
        return evaluate(dim, dict.fromkeys(symbols(dim), 1))
    except ZeroDivisionError:
        return 0

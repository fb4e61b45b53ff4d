"""Outputs and epilogue operands of channels-last kernels: rows of channels, one row a pixel.

A pixel is a position of [N, spatial...], numbered row-major. Pixel axes that every view walks with
one stride are merged, mostly into a single one, where the pixel's number is its index. In texts:

    i0, i1, ...   indices of a pixel along the merged axes of sizes n0, n1, ...
    x_at          where the pixel's row begins in view x
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from clinfer_kernels import memory
from clinfer_kernels.byte_end import ByteEnd, narrowed
from clinfer_kernels.dims import Dim
from clinfer_kernels.expr import Expr
from clinfer_kernels.nest import View, address, axes_of, declare_strides, decode, in_place, merge
from clinfer_kernels.render import render
from clinfer_kernels.signature import Signature
from clinfer_kernels.spec import Tensor
from clinfer_kernels.types import TABLE, register


@dataclass(frozen=True)
class Pixels:
    """Views y0, y1, ... (outputs) and e0, e1, ... (operands) over the merged axes and channels."""

    sizes: tuple[Dim, ...]
    outs: tuple[View, ...]
    operands: tuple[View, ...]

    @property
    def views(self) -> tuple[View, ...]:
        return self.outs + self.operands

    @property
    def in_place(self) -> tuple[tuple[View, View], ...]:
        """(output, operand) where the operand's elements lie as the output's do."""
        return in_place(self.outs, self.operands)

    @property
    def rank(self) -> int:
        """How many merged pixel axes there are."""
        return len(self.sizes)

    def packs(self, end: ByteEnd) -> bool:
        """Whether the bytes of a pixel lie side by side, and have one zero point and table."""
        single = [end.zero] if end.is_operand else []
        single += [] if end.table is None else [end.table]
        return self.outs[0].inner == "1" and all(
            self.operands[number - 1].inner == "0" for number in single
        )

    def narrowed(self, end: ByteEnd, vectors: Sequence[str], lanes: int) -> str:
        """The bytes of vectors of whole numbers, where x_at of the views is set."""
        zero, table = str(end.zero), ""
        if end.is_operand:
            view = self.operands[end.zero - 1]
            zero = f"(int){view.name}[{view.at()}]"
        if end.table is not None:
            view = self.operands[end.table - 1]
            table = memory.load(TABLE, view.name, view.at())
        return narrowed(end, vectors, zero, table, lanes)

    def place(self, channel: str) -> str:
        """Where the output of a channel lies, as bytes."""
        out = self.outs[0]
        return f"(__global uchar*){out.name} + {out.at(channel)}"


def pixels_of(outs: Sequence[Tensor], operands: Sequence[Tensor], first: int) -> Pixels:
    """The views of [N, spatial..., channels] tensors; `first`: the first operand's input index."""
    tensors = (*outs, *operands)
    axes = merge(axes_of(tensors, range(tensors[0].rank - 1)))
    views = []
    for number, tensor in enumerate(tensors):
        is_out = number < len(outs)
        place = number if is_out else number - len(outs)
        views.append(
            View(
                name=f"{'y' if is_out else 'e'}{place}",
                kind="out" if is_out else "in",
                index=place if is_out else place + first,
                dtype=tensor.dtype,
                offset=tensor.offset,
                strides=(*(axis.strides[number] for axis in axes), tensor.strides[-1]),
            )
        )
    sizes = tuple(axis.size for axis in axes)
    return Pixels(sizes, tuple(views[: len(outs)]), tuple(views[len(outs) :]))


def declare_pixels(signature: Signature, pixels: Pixels) -> None:
    """Buffers, the sizes needed to split a pixel's number, offsets and strides."""
    for view in pixels.views:
        signature.buffer(view.kind, view.index, view.dtype, view.name)
    for number, size in enumerate(pixels.sizes):
        if number > 0:
            signature.scalar(f"n{number}", size)
    for view in pixels.views:
        count = pixels.rank + (view.inner == "s")
        numbered = list(enumerate(view.strides))[:count]
        declare_strides(signature, view.name, view.offset, numbered)


def locate(pixels: Pixels, flat: str) -> list[str]:
    """Statements that set x_at of every view for the pixel numbered `flat` (a variable, spent)."""
    numbers = range(pixels.rank)
    names = ", ".join(f"i{k}" for k in numbers)
    return [
        f"int {names};",
        *decode(numbers, flat),
        *(f"const int {v.name}_at = {address(v.name, numbers)};" for v in pixels.views),
    ]


def declare_rows(pixels: Pixels, count: str) -> list[str]:
    """Arrays that keep where the rows of `count` pixels begin."""
    return [f"int {v.name}_rows[{count}];" for v in pixels.views]


def keep_rows(pixels: Pixels, flat: str, number: str) -> list[str]:
    """Statements that keep where the rows of the pixel numbered `flat` begin, at `number`."""
    kept = (f"{v.name}_rows[{number}] = {v.name}_at;" for v in pixels.views)
    return [*locate(pixels, flat), *kept]


def load_rows(pixels: Pixels, number: str) -> list[str]:
    """Statements that set x_at of every view to what was kept at `number`."""
    return [f"const int {v.name}_at = {v.name}_rows[{number}];" for v in pixels.views]


def finish(
    pixels: Pixels,
    epilogue: Expr,
    value: str,
    channel: str,
    width: int,
    count: str = "",
    is_aligned: bool = False,
) -> list[str]:
    """Statements that apply the epilogue to `value`, `width` channels from `channel`, and store.

    `count`: the channels left; where fewer than `width`, only so many are read and stored.
    `is_aligned`: `channel` is a multiple of `width`.
    """
    lines, result = rendered(pixels, epilogue, value, channel, width, count, is_aligned)
    out = pixels.outs[0]
    even = is_aligned and out.is_aligned(width)
    return [*lines, *store(out, result, channel, width, count, even)]


def rendered(
    pixels: Pixels,
    epilogue: Expr,
    value: str,
    channel: str,
    width: int,
    count: str = "",
    is_aligned: bool = False,
) -> tuple[list[str], str]:
    """As `finish`, without the store: statements, and the result's name."""
    names = [value]
    lines: list[str] = []
    for view in pixels.operands:
        lines += _operand(view, channel, width, count, is_aligned and view.is_aligned(width))
        names.append(f"v_{view.name}")
    made = render(epilogue, names, width, prefix="z")
    return [*lines, *made.statements], made.results[0]


def _operand(
    view: View, channel: str, width: int, count: str, is_aligned: bool = False
) -> list[str]:
    value = memory.load(view.dtype, view.name, view.at(channel), width, view.step, is_aligned)
    if count and width > 1 and view.inner != "0":
        at = view.at(channel)
        part = memory.load_part(view.dtype, view.name, at, width, count, view.step)
        value = f"{count} >= {width}\n    ? {value}\n    : {part}"
    return f"const {register(view.dtype, width)} v_{view.name} = {value};".split("\n")


def store(
    view: View, value: str, channel: str, width: int, count: str = "", is_aligned: bool = False
) -> list[str]:
    """Statements that store `width` channels of a view, or the first `count` of them."""
    at = view.at(channel)
    whole = memory.store(view.dtype, value, view.name, at, width, view.step, is_aligned)
    if not count or width == 1:
        return [whole]
    part = memory.store_part(view.dtype, value, view.name, at, width, count, view.step)
    return [f"if ({count} >= {width}) {{", f"    {whole}", "} else {", f"    {part}", "}"]

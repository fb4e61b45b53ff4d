"""Padding and cropping: constant, reflect, edge and wrap, per axis.

Output index i of an axis reads input index i - begin; where there is none, the mode says what is
read instead. A row is copied between its two borders. Elements are moved as plain bits.
"""

from __future__ import annotations

from dataclasses import dataclass

from clinfer_kernels import memory
from clinfer_kernels.common import kernel_head
from clinfer_kernels.dims import Dim, ceildiv, minimum, product
from clinfer_kernels.nest import advance, count_text, declare_sizes, decode, stride_kind
from clinfer_kernels.signature import Signature
from clinfer_kernels.spec import Kernel, Launch, Target
from clinfer_kernels.specs import PadSpec
from clinfer_kernels.template import block, fill
from clinfer_kernels.types import bits_type, storage


@dataclass(frozen=True)
class PadTile:
    """local: work-items of a work-group. grain: elements for which one more work-item is worth it.
    waves: work-groups per compute unit at most."""

    schedule: str
    local: int
    grain: int
    waves: int


@dataclass(frozen=True)
class PadAxis:
    """Output size, input size, where the input begins in the output, strides of both."""

    size: Dim
    source: Dim
    begin: Dim
    x_stride: Dim
    y_stride: Dim

    @property
    def whole(self) -> bool:
        """Whether the output has the input as it is."""
        return self.begin == 0 and self.size == self.source


def candidates(spec: PadSpec, target: Target) -> tuple[PadTile, ...]:
    """The tiles that can run `spec`, the best first."""
    if target.cls == "gpu":
        return (PadTile("grid", min(target.max_work_group, 256), 4, 32),)
    return (PadTile("rows", 1, 4096, 8),)


def emit(spec: PadSpec, tile: PadTile, target: Target) -> Kernel:
    """The kernel of `spec`: one launch."""
    axes = _axes(spec)
    dtype = bits_type(spec.outs[0].dtype)
    signature = _signature(spec, axes, dtype)
    name = f"pad_{tile.schedule}_{spec.mode}_r{len(axes)}"
    rank = len(axes)
    grid = tile.schedule == "grid"
    loops = range(rank) if grid else range(rank - 1)
    text = fill(
        f"pad_{tile.schedule}",
        target,
        head=kernel_head(name, (tile.local,)),
        parameters=signature.text,
        total=count_text(loops),
        rows=count_text(loops),
        indices=block([*(f"int i{k};" for k in loops), *decode(loops, "row")], 2 if grid else 1),
        value=block(_value(spec, dtype), 1),
        y_at=" + ".join(["y0_o", *(f"i{k} * y0_s{k}" for k in range(rank - 1))]),
        source=block(_source(spec, rank), 2),
        inner=rank - 1,
        n=f"n{rank - 1}",
        m=f"m{rank - 1}",
        b=f"b{rank - 1}",
        fill=_assign(spec, axes, dtype, outside=True),
        copy=_assign(spec, axes, dtype, outside=False),
        advance=block(advance(loops), 2),
    )
    most = tile.waves * target.compute_units
    groups = minimum(ceildiv(product(a.size for a in axes), tile.grain * tile.local), most)
    return Kernel((Launch(name, text, signature.args, (groups * tile.local,), (tile.local,)),))


def _axes(spec: PadSpec) -> tuple[PadAxis, ...]:
    """The axes, outermost first, with unpadded ones joined to the axis before them.

    A padded axis takes in an unpadded neighbour only for a constant: other modes move the
    neighbour's elements together.
    """
    x, y = spec.ins[0], spec.outs[0]
    rows = zip(y.shape, x.shape, spec.begins, x.strides, y.strides, strict=True)
    joined: list[PadAxis] = []
    for axis in (PadAxis(*row) for row in rows):
        if axis.size == 1 and axis.whole:
            continue
        if joined and _joins(joined[-1], axis, spec.mode):
            outer = joined[-1]
            joined[-1] = PadAxis(
                outer.size * axis.size,
                outer.source * axis.size,
                outer.begin * axis.size,
                axis.x_stride,
                axis.y_stride,
            )
        else:
            joined.append(axis)
    return tuple(joined) or (PadAxis(1, 1, 0, 1, 1),)


def _joins(outer: PadAxis, inner: PadAxis, mode: str) -> bool:
    contiguous = (
        outer.x_stride == inner.x_stride * inner.size
        and outer.y_stride == inner.y_stride * inner.size
    )
    return inner.whole and contiguous and (mode == "constant" or outer.whole)


def _signature(spec: PadSpec, axes: tuple[PadAxis, ...], dtype: str) -> Signature:
    signature = Signature()
    signature.buffer("in", 0, dtype, "x0")
    if len(spec.ins) > 1:
        signature.buffer("in", 1, dtype, "x1")
        signature.scalar("x1_o", spec.ins[1].offset)
    signature.buffer("out", 0, dtype, "y0")
    declare_sizes(signature, [a.size for a in axes])
    declare_sizes(signature, [a.source for a in axes], "m")
    declare_sizes(signature, [a.begin for a in axes], "b")
    for name, tensor in (("x0", spec.ins[0]), ("y0", spec.outs[0])):
        signature.scalar(f"{name}_o", tensor.offset)
        for number, axis in enumerate(axes):
            stride = axis.x_stride if name == "x0" else axis.y_stride
            signature.scalar(f"{name}_s{number}", stride)
    return signature


def _value(spec: PadSpec, dtype: str) -> list[str]:
    if spec.mode != "constant":
        return []
    value = memory.load(dtype, "x1", "x1_o") if len(spec.ins) > 1 else "0"
    return [f"const {storage(dtype)} value = {value};"]


def _source(spec: PadSpec, rank: int) -> list[str]:
    """Statements that declare x0_at, the input's row, and `outside`: whether there is none."""
    lines = ["int x0_at = x0_o;", "int outside = 0;"]
    for k in range(rank - 1):
        place = f"i{k} - b{k}"
        if spec.mode == "constant":
            lines.append(f"outside |= {place} < 0 || {place} >= m{k};")
        else:
            place = f"{spec.mode}_int({place}, m{k})"
        lines.append(f"x0_at += ({place}) * x0_s{k};")
    return lines


def _assign(spec: PadSpec, axes: tuple[PadAxis, ...], dtype: str, outside: bool) -> str:
    """The statement for element i of the row; `outside` its borders."""
    k = len(axes) - 1
    x_step = _times(axes[-1].x_stride, f"x0_s{k}")
    y_step = _times(axes[-1].y_stride, f"y0_s{k}")
    place = f"(i - b{k})"
    if outside and spec.mode == "constant":
        value = "value"
    else:
        place = f"{spec.mode}_int({place}, m{k})" if outside else place
        value = memory.load(dtype, "x0", f"x0_at + {place}{x_step}")
    return memory.store(dtype, value, "y0", f"y0_at + i{y_step}")


def _times(stride: Dim, name: str) -> str:
    return "" if stride_kind(stride) == "1" else f" * {name}"

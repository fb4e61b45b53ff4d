"""Interpolation along any axes of any layout: nearest, linear and cubic, as ONNX's Resize defines it.

An output element at index i of a resized axis reads taps around the coordinate c(i) of the input:

    nearest  1 tap:  round(c)
    linear   2 taps: floor(c), floor(c) + 1 with weights 1 - f and f, f = c - floor(c)
    cubic    4 taps: floor(c) - 1 ... floor(c) + 2 (Keys, "Cubic convolution interpolation", 1981)

Taps outside the input read its edge. Axes that are not resized are walked as they are; the innermost
one is a plain loop that compilers vectorise.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product as combinations

from clinfer_kernels import memory
from clinfer_kernels.common import kernel_head
from clinfer_kernels.dims import Dim, ceildiv, minimum, product
from clinfer_kernels.nest import advance, count_text, declare_sizes, decode, stride_kind
from clinfer_kernels.render import render
from clinfer_kernels.resize_taps import TAPS, axis_lines, weight
from clinfer_kernels.signature import Signature
from clinfer_kernels.spec import Kernel, Launch, Target
from clinfer_kernels.specs import ResizeSpec
from clinfer_kernels.template import block, fill
from clinfer_kernels.types import compute, is_float


@dataclass(frozen=True)
class ResizeTile:
    """local: work-items of a work-group. grain: elements for which one more work-item is worth it.
    waves: work-groups per compute unit at most."""

    schedule: str
    local: int
    grain: int
    waves: int


@dataclass(frozen=True)
class ResizeAxis:
    """An output axis: its size, the input's, the number of the resized axis it is (or None).

    `strides` are those of the input, the epilogue's operands and the output.
    """

    size: Dim
    source: Dim
    resized: int | None
    strides: tuple[Dim, ...]


def candidates(spec: ResizeSpec, target: Target) -> tuple[ResizeTile, ...]:
    """The tiles that can run `spec`, the best first; none for a mode that has no kernel."""
    if spec.mode not in TAPS or spec.coordinates == "tf_crop_and_resize":
        return ()
    if target.cls == "gpu":
        return (ResizeTile("grid", min(target.max_work_group, 256), 2, 32),)
    return (ResizeTile("rows", 1, 2048, 8),)


def emit(spec: ResizeSpec, tile: ResizeTile, target: Target) -> Kernel:
    """The kernel of `spec`: one launch."""
    axes = _axes(spec)
    rank = len(axes)
    inner = rank - 1
    grid = tile.schedule == "grid"
    signature = _signature(spec, axes)
    name = f"resize_{tile.schedule}_{spec.mode}_r{rank}"
    outer = [k for k in range(inner) if axes[k].resized is not None]
    early = [line for k in outer for line in axis_lines(spec, k, axes[k].resized or 0)]
    late = axis_lines(spec, inner, axes[inner].resized or 0) if _is_resized(axes[inner]) else []
    names = ("x0", *(f"e{i}" for i in range(1, len(spec.ins))), "y0")
    starts = [f"const int {n}_at = {_start(n, axes)};" for n in names]
    text = fill(
        "resize_grid" if grid else "resize_rows",
        target,
        head=kernel_head(name, (tile.local,)),
        parameters=signature.text,
        total=count_text(range(rank)),
        rows=count_text(range(inner)),
        indices=block(
            [*(f"int i{k};" for k in range(rank if grid else inner)), *_decode(grid, rank)],
            2 if grid else 1,
        ),
        starts=block([*starts, *early], 2),
        inner=inner,
        element=block([*late, *_element(spec, axes, inner)], 2 if grid else 3),
        advance=block(advance(range(inner)), 2),
    )
    most = tile.waves * target.compute_units
    groups = minimum(ceildiv(product(a.size for a in axes), tile.grain * tile.local), most)
    taps = TAPS[spec.mode] ** len(spec.axes)
    flops = product(a.size for a in axes) * (2 * taps if taps > 1 else 0)
    launch = Launch(name, text, signature.args, (groups * tile.local,), (tile.local,))
    return Kernel((launch,), flops=flops)


def _axes(spec: ResizeSpec) -> tuple[ResizeAxis, ...]:
    """The axes, outermost first; neighbours that are not resized are joined where all views allow."""
    views = (*spec.ins, spec.outs[0])
    numbers = {axis: number for number, axis in enumerate(spec.axes)}
    joined: list[ResizeAxis] = []
    for d, size in enumerate(spec.outs[0].shape):
        axis = ResizeAxis(
            size, spec.ins[0].shape[d], numbers.get(d), tuple(v.strides[d] for v in views)
        )
        if axis.resized is None and size == 1:
            continue
        if joined and _joins(joined[-1], axis):
            joined[-1] = ResizeAxis(
                joined[-1].size * size, joined[-1].source * axis.source, None, axis.strides
            )
        else:
            joined.append(axis)
    return tuple(joined)


def _joins(outer: ResizeAxis, inner: ResizeAxis) -> bool:
    if outer.resized is not None or inner.resized is not None:
        return False
    pairs = zip(outer.strides, inner.strides, strict=True)
    return all(o == i * inner.size for o, i in pairs)


def _signature(spec: ResizeSpec, axes: tuple[ResizeAxis, ...]) -> Signature:
    signature = Signature()
    signature.buffer("in", 0, spec.ins[0].dtype, "x0")
    for number, tensor in enumerate(spec.ins[1:], start=1):
        signature.buffer("in", number, tensor.dtype, f"e{number}")
    signature.buffer("out", 0, spec.outs[0].dtype, "y0")
    declare_sizes(signature, [a.size for a in axes])
    declare_sizes(signature, [a.source for a in axes], "m")
    names = ("x0", *(f"e{i}" for i in range(1, len(spec.ins))), "y0")
    for view, (name, tensor) in enumerate(zip(names, (*spec.ins, spec.outs[0]), strict=True)):
        signature.scalar(f"{name}_o", tensor.offset)
        for number, axis in enumerate(axes):
            signature.scalar(f"{name}_s{number}", axis.strides[view])
    return signature


def _start(name: str, axes: tuple[ResizeAxis, ...]) -> str:
    """Where a view's row begins; the input's resized axes come in with the taps."""
    inner = len(axes) - 1
    steps = [f"i{k} * {name}_s{k}" for k in range(inner) if name != "x0" or axes[k].resized is None]
    return " + ".join([f"{name}_o", *steps])


def _decode(grid: bool, rank: int) -> list[str]:
    return decode(range(rank if grid else rank - 1), "row")


def _is_resized(axis: ResizeAxis) -> bool:
    return axis.resized is not None


def _element(spec: ResizeSpec, axes: tuple[ResizeAxis, ...], inner: int) -> list[str]:
    """Statements for output element i of the row: the weighted taps, the epilogue, the store."""
    resized = [k for k, axis in enumerate(axes) if _is_resized(axis)]
    dtype = spec.ins[0].dtype
    i = f"i{inner}"
    fixed = "" if _is_resized(axes[inner]) else f" + {i}{_step('x0', axes, inner, 0)}"
    terms = []
    for taps in combinations(range(TAPS[spec.mode]), repeat=len(resized)):
        places = "".join(f" + at{k}_{t}" for k, t in zip(resized, taps, strict=True))
        value = memory.load(dtype, "x0", f"x0_at{places}{fixed}")
        terms.append((weight(spec.mode, resized, taps), value))
    lines: list[str] = []
    if spec.mode == "nearest":
        lines.append(f"const {compute(dtype)} value = {terms[0][1]};")
    else:
        wide = compute(dtype) if is_float(dtype) else "float"
        total = " + ".join(f"{w} * {v}" for w, v in terms)
        lines.append(f"const {wide} sum = {total};")
        value = "sum" if is_float(dtype) else memory.cast("sum", dtype, "float32", 1)
        lines.append(f"const {compute(dtype)} value = {value};")
    operands = ["value"]
    for number, tensor in enumerate(spec.ins[1:], start=1):
        place = f"e{number}_at + {i}{_step(f'e{number}', axes, inner, number)}"
        operands.append(memory.load(tensor.dtype, f"e{number}", place))
    rendered = render(spec.epilogue, operands)
    out = spec.outs[0].dtype
    place = f"y0_at + {i}{_step('y0', axes, inner, len(spec.ins))}"
    return [*lines, *rendered.statements, memory.store(out, rendered.results[0], "y0", place)]


def _step(name: str, axes: tuple[ResizeAxis, ...], inner: int, view: int) -> str:
    return "" if stride_kind(axes[inner].strides[view]) == "1" else f" * {name}_s{inner}"

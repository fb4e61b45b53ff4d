"""ScatterElements and ScatterND: a copy of the data, then updates at places read from indices.

Both are lines of updates that are independent of each other: for ScatterElements the lines along
the axis, since an index only changes the position along it; for ScatterND the same place behind
every index tuple. A line is applied in order by one work-item.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from clinfer_kernels import memory, positions
from clinfer_kernels.common import kernel_head
from clinfer_kernels.dims import Dim, ceildiv, minimum, product
from clinfer_kernels.expr import Builder, Expr, identity
from clinfer_kernels.families import emit_best
from clinfer_kernels.nest import address, count_text, decode
from clinfer_kernels.render import render
from clinfer_kernels.rows import nested
from clinfer_kernels.signature import Signature
from clinfer_kernels.spec import Kernel, Launch, Target, Tensor
from clinfer_kernels.specs import PointwiseSpec, ScatterSpec
from clinfer_kernels.template import block, fill, inside
from clinfer_kernels.types import lanes, register

_FEWEST_LANES = 4
_COMBINE = {"none": None, "add": "add", "mul": "mul", "max": "max", "min": "min"}


@dataclass(frozen=True)
class ScatterTile:
    """local: work-items of a work-group. grain: updates for which one more work-item is worth it.
    waves: work-groups per compute unit at most. lanes: lines of a vector."""

    local: int
    grain: int
    waves: int
    lanes: int = 1


@dataclass(frozen=True)
class Component:
    """One entry of an index tuple: where it lies from x1's element, and the axis it selects."""

    at: Dim
    size: Dim
    stride: Dim


@dataclass(frozen=True)
class Problem:
    """Lines (sizes and strides of x1, x2, y0 along them), steps of a line, and index components."""

    lines: tuple[tuple[Dim, Dim, Dim, Dim], ...]
    steps: tuple[tuple[Dim, Dim, Dim], ...]
    components: tuple[Component, ...]

    def count(self, width: int) -> Dim:
        """How many lines there are, or vectors of them along the innermost dimension."""
        sizes = [line[0] for line in self.lines]
        if width > 1:
            sizes[-1] = ceildiv(sizes[-1], width)
        return product(sizes)

    @property
    def are_side_by_side(self) -> bool:
        """Whether lines along the innermost dimension have one index, and follow each other."""
        return bool(self.lines) and self.lines[-1][1:] == (0, 1, 1)

    @property
    def length(self) -> Dim:
        return product(step[0] for step in self.steps)


def candidates(spec: ScatterSpec, target: Target) -> tuple[ScatterTile, ...]:
    """The tiles that can run `spec`, the best first."""
    if target.cls == "gpu":
        return (ScatterTile(min(target.max_work_group, 64), 1, 64),)
    plain = ScatterTile(1, 4096, 8)
    problem = _problem(spec)
    if not problem.are_side_by_side:
        return (plain,)
    width, columns = lanes(target, [spec.outs[0].dtype]), problem.lines[-1][0]
    while isinstance(columns, int) and width > columns:
        width //= 2
    return (replace(plain, lanes=width), plain) if width >= _FEWEST_LANES else (plain,)


def _problem(spec: ScatterSpec) -> Problem:
    return _elements(spec) if spec.kind == "elements" else _tuples(spec)


def emit(spec: ScatterSpec, tile: ScatterTile, target: Target) -> Kernel:
    """The kernel of `spec`: the copy, then the updates."""
    data = spec.ins[0]
    copy_spec = PointwiseSpec(identity(data.dtype), (data,), spec.outs)
    copy = emit_best(copy_spec, target)
    problem = _problem(spec)
    count = problem.count(tile.lanes)
    signature = _signature(spec, problem, tile.lanes)
    rule = "" if spec.positions == "wrapped" else f"_{spec.positions}"
    name = f"scatter_{spec.kind}{rule}_{spec.reduction}_r{len(problem.lines)}{len(problem.steps)}"
    loops = range(len(problem.lines))
    indices = [*(f"int i{k};" for k in loops), *decode(loops, "flat")]
    if tile.lanes > 1:
        indices += [f"i{loops[-1]} *= {tile.lanes};", f"const int left = columns - i{loops[-1]};"]
    text = fill(
        "scatter",
        target,
        head=kernel_head(name, (tile.local,)),
        parameters=signature.text,
        lines=count_text(loops),
        indices=block(indices, 2),
        bases=block([f"const int {v}_at = {address(v, loops)};" for v in ("x1", "x2", "y0")], 2),
        loops=block(nested(len(problem.steps), _update(spec, problem, tile.lanes)), 2),
    )
    most = tile.waves * target.compute_units
    worth = ceildiv(count * problem.length, tile.grain * tile.local)
    needed = ceildiv(count, tile.local)
    groups = minimum(minimum(needed, worth), most)
    launch = Launch(name, text, signature.args, (groups * tile.local,), (tile.local,))
    return Kernel((*copy.launches, launch))


def _elements(spec: ScatterSpec) -> Problem:
    """Lines along the axis; one index each update."""
    data, indices, updates = spec.ins
    out, axis = spec.outs[0], spec.axis
    lines = tuple(
        (indices.shape[d], indices.strides[d], updates.strides[d], out.strides[d])
        for d in range(indices.rank)
        if d != axis
    )
    step = (indices.shape[axis], indices.strides[axis], updates.strides[axis])
    return Problem(lines, (step,), (Component(0, data.shape[axis], out.strides[axis]),))


def _tuples(spec: ScatterSpec) -> Problem:
    """Lines over the index tuples, one for every place behind the indexed axes."""
    data, indices, updates = spec.ins
    out = spec.outs[0]
    count = indices.shape[-1]
    if not isinstance(count, int):
        raise ValueError("ScatterND: the last dimension of the indices must have a known size")
    tuples = indices.rank - 1
    lines = tuple(
        (out.shape[d], 0, updates.strides[tuples + d - count], out.strides[d])
        for d in range(count, out.rank)
    )
    steps = tuple((indices.shape[d], indices.strides[d], updates.strides[d]) for d in range(tuples))
    components = tuple(
        Component(c * indices.strides[-1], data.shape[c], out.strides[c]) for c in range(count)
    )
    return Problem(lines, steps, components)


def _signature(spec: ScatterSpec, problem: Problem, width: int) -> Signature:
    """`width` > 1: the innermost dimension of lines is counted in vectors."""
    signature = Signature()
    views: list[tuple[str, str, int, Tensor]] = [
        ("x1", "in", 1, spec.ins[1]),
        ("x2", "in", 2, spec.ins[2]),
        ("y0", "out", 0, spec.outs[0]),
    ]
    for name, kind, index, tensor in views:
        signature.buffer(kind, index, tensor.dtype, name)
    for number, line in enumerate(problem.lines):
        is_cut = width > 1 and number == len(problem.lines) - 1
        signature.scalar(f"n{number}", ceildiv(line[0], width) if is_cut else line[0])
    if width > 1:
        signature.scalar("columns", problem.lines[-1][0])
    for number, step in enumerate(problem.steps):
        signature.scalar(f"m{number}", step[0])
    for place, (name, _, _, tensor) in enumerate(views):
        signature.scalar(f"{name}_o", tensor.offset)
        for number, line in enumerate(problem.lines):
            signature.scalar(f"{name}_s{number}", line[1 + place])
        if name != "y0":
            for number, step in enumerate(problem.steps):
                signature.scalar(f"{name}_t{number}", step[1 + place])
    for number, component in enumerate(problem.components):
        signature.scalar(f"c{number}", component.at)
        signature.scalar(f"d{number}", component.size)
        signature.scalar(f"a{number}", component.stride)
    if problem.components and positions.is_checked(spec.positions):
        signature.status()
    return signature


def _update(spec: ScatterSpec, problem: Problem, width: int) -> list[str]:
    """Statements for update (r0, r1, ...) of the line, or of `width` of them."""
    dtype = spec.outs[0].dtype
    steps = range(len(problem.steps))
    lines = [
        f"const int {v}_row = {' + '.join([f'{v}_at', *(f'r{k} * {v}_t{k}' for k in steps)])};"
        for v in ("x1", "x2")
    ]
    numbers = range(len(problem.components))
    for k in numbers:
        place = positions.place(spec.positions, f"x1[x1_row + c{k}]", f"d{k}", k)
        lines.append(f"const int p{k} = {place};")
    valid = " && ".join(f"p{k} >= 0" for k in numbers) or "true"
    place = " + ".join(["y0_at", *(f"p{k} * a{k}" for k in numbers)])
    expr = _combination(spec.reduction, dtype)
    rendered = render(expr, ["old", "update"], width)
    body = [f"const int place = {place};", _load(dtype, "update", "x2", "x2_row", width)]
    if spec.reduction != "none":
        body.append(_load(dtype, "old", "y0", "place", width))
    result = rendered.results[0]
    body += rendered.statements
    if width == 1:
        body.append(memory.store(dtype, result, "y0", "place"))
    else:
        body += [
            f"if (left >= {width}) {memory.store(dtype, result, 'y0', 'place', width)}",
            f"else {memory.store_part(dtype, result, 'y0', 'place', width, 'left')}",
        ]
    return [*lines, f"if ({valid}) {{", *inside(body), "}"]


def _load(dtype: str, name: str, buffer: str, at: str, width: int) -> str:
    """A declaration of `width` elements, or of the `left` ones that there are."""
    value = memory.load(dtype, buffer, at, width)
    if width > 1:
        part = memory.load_part(dtype, buffer, at, width, "left")
        value = f"left >= {width} ? {value} : {part}"
    return f"const {register(dtype, width)} {name} = {value};"


def _combination(reduction: str, dtype: str) -> Expr:
    """(old, update) -> new."""
    builder = Builder((dtype, dtype))
    operation = _COMBINE[reduction]
    return builder.build(builder.op(operation, 0, 1) if operation else 1)

"""Gather, GatherElements and GatherND: elements of x0 at places read from the indices x1.

All three are one loop nest over the output: data, indices and output are views of its shape, with
stride 0 where they do not depend on a dimension; the axes that indices select are left out of the
data's view and come in through the index components. Elements are moved as plain bits.
"""

from __future__ import annotations

from dataclasses import dataclass

from clinfer_kernels import memory, positions, types
from clinfer_kernels.common import kernel_head
from clinfer_kernels.dims import Dim, ceildiv, minimum, product
from clinfer_kernels.nest import (
    Axis,
    View,
    address,
    advance,
    axes_of,
    count_text,
    declare_sizes,
    declare_strides,
    decode,
    innermost_last,
    merge,
    views_of,
)
from clinfer_kernels.signature import Signature
from clinfer_kernels.spec import Kernel, Launch, Target, Tensor
from clinfer_kernels.specs import GatherSpec
from clinfer_kernels.template import block, fill
from clinfer_kernels.types import bits_type


@dataclass(frozen=True)
class GatherTile:
    """local: work-items of a work-group. grain: elements for which one more work-item is worth it.
    waves: work-groups per compute unit at most."""

    schedule: str
    local: int
    grain: int
    waves: int


@dataclass(frozen=True)
class Component:
    """One entry of an index tuple: where it lies from x1's element, and the axis it selects."""

    at: Dim
    size: Dim
    stride: Dim


@dataclass(frozen=True)
class Problem:
    """Loop sizes, data, indices and output along them, and the components of an index."""

    sizes: tuple[Dim, ...]
    data: View
    indices: View
    out: View
    components: tuple[Component, ...]
    rule: str

    @property
    def views(self) -> tuple[View, ...]:
        return (self.data, self.indices, self.out)

    @property
    def total(self) -> Dim:
        return product(self.sizes)

    @property
    def is_checked(self) -> bool:
        return bool(self.components) and positions.is_checked(self.rule)


def candidates(spec: GatherSpec, target: Target) -> tuple[GatherTile, ...]:
    """The tiles that can run `spec`, the best first."""
    if target.cls == "gpu":
        return (GatherTile("grid", min(target.max_work_group, 256), 4, 32),)
    return (GatherTile("rows", 1, 4096, 8),)


def emit(spec: GatherSpec, tile: GatherTile, target: Target) -> Kernel:
    """The kernel of `spec`: one launch."""
    problem = _problem(spec)
    signature = _signature(problem)
    width = types.lanes(target, [problem.out.dtype])
    rank = len(problem.sizes)
    rule = "" if spec.positions == "wrapped" else f"_{spec.positions}"
    name = f"gather_{tile.schedule}_{spec.kind}{rule}_r{rank}"
    outer = range(rank - 1)
    loops = range(rank) if tile.schedule == "grid" else outer
    parts: dict[str, str | int] = {
        "total": count_text(loops),
        "rows": count_text(loops),
        "indices": block(
            [*(f"int i{k};" for k in loops), *decode(loops, "row")],
            2 if tile.schedule == "grid" else 1,
        ),
        "bases": block(
            [f"const int {v.name}_at = {address(v.name, outer)};" for v in problem.views], 2
        ),
        "advance": block(advance(outer), 2),
        "empty": block(_without_places(problem, _is_indexed_by_element(problem, tile)), 1),
    }
    if tile.schedule == "grid":
        parts["body"] = block(_element(problem, f"i{rank - 1}"), 2)
    else:
        parts["body"] = block(_row(problem, f"n{rank - 1}", width), 2)
    text = fill(
        f"gather_{tile.schedule}",
        target,
        head=kernel_head(name, (tile.local,)),
        parameters=signature.text,
        **parts,
    )
    most = tile.waves * target.compute_units
    groups = minimum(ceildiv(problem.total, tile.grain * tile.local), most)
    return Kernel((Launch(name, text, signature.args, (groups * tile.local,), (tile.local,)),))


def _is_indexed_by_element(problem: Problem, tile: GatherTile) -> bool:
    """Whether the elements of a row have indices of their own."""
    return tile.schedule == "rows" and problem.indices.inner != "0"


def _problem(spec: GatherSpec) -> Problem:
    data, indices, components = views(spec)
    out = spec.outs[0]
    tensors = (_as_bits(data), indices, _as_bits(out))
    one = (Axis(1, (0,) * len(tensors)),)  # a single element: there is nothing to loop over
    axes = merge(innermost_last(axes_of(tensors), 2) or one)
    ins = views_of("in", "x", tensors[:2], axes, 0)
    (made,) = views_of("out", "y", tensors[2:], axes, 2)
    return Problem(tuple(a.size for a in axes), ins[0], ins[1], made, components, spec.positions)


Views = tuple[Tensor, Tensor, tuple[Component, ...]]


def _axis_views(spec: GatherSpec) -> Views:
    """Output [pre, indices, post]."""
    data, indices = spec.ins
    axis = spec.axis
    shape = spec.outs[0].shape
    before, after = data.strides[:axis], data.strides[axis + 1 :]
    moved = Tensor(data.dtype, shape, (*before, *(0,) * indices.rank, *after), data.offset)
    spread = (*(0,) * len(before), *indices.strides, *(0,) * len(after))
    where = Tensor(indices.dtype, shape, spread, indices.offset)
    return moved, where, (Component(0, data.shape[axis], data.strides[axis]),)


def _element_views(spec: GatherSpec) -> Views:
    """Output of the indices' shape."""
    data, indices = spec.ins
    axis = spec.axis
    strides = (*data.strides[:axis], 0, *data.strides[axis + 1 :])
    moved = Tensor(data.dtype, indices.shape, strides, data.offset)
    return moved, indices, (Component(0, data.shape[axis], data.strides[axis]),)


def _nd_views(spec: GatherSpec) -> Views:
    """Output [batch, tuples, post]; the indices' last dimension holds the tuples' components."""
    data, indices = spec.ins
    count = indices.shape[-1]
    if not isinstance(count, int):
        raise ValueError("GatherND: the last dimension of the indices must have a known size")
    batch = spec.batch_dims
    tuples = indices.rank - 1 - batch
    shape = spec.outs[0].shape
    after = data.strides[batch + count :]
    strides = (*data.strides[:batch], *(0,) * tuples, *after)
    moved = Tensor(data.dtype, shape, strides, data.offset)
    where = Tensor(
        indices.dtype, shape, (*indices.strides[:-1], *(0,) * len(after)), indices.offset
    )
    components = tuple(
        Component(c * indices.strides[-1], data.shape[batch + c], data.strides[batch + c])
        for c in range(count)
    )
    return moved, where, components


def views(spec: GatherSpec) -> Views:
    """Data and indices along the output's loops, and the components of an index."""
    return _VIEWS[spec.kind](spec)


_VIEWS = {"axis": _axis_views, "elements": _element_views, "nd": _nd_views}


def _as_bits(tensor: Tensor) -> Tensor:
    return Tensor(bits_type(tensor.dtype), tensor.shape, tensor.strides, tensor.offset)


def _signature(problem: Problem) -> Signature:
    signature = Signature()
    for view in problem.views:
        signature.buffer(view.kind, view.index, view.dtype, view.name)
    declare_sizes(signature, problem.sizes)
    for view in problem.views:
        declare_strides(signature, view.name, view.offset, enumerate(view.strides))
    for number, component in enumerate(problem.components):
        signature.scalar(f"c{number}", component.at)
        signature.scalar(f"d{number}", component.size)
        signature.scalar(f"a{number}", component.stride)
    if problem.is_checked:
        signature.status()
    return signature


def _without_places(problem: Problem, by_rows: bool) -> list[str]:
    """Statements that end a kernel where an axis that indices select has no elements.

    `seen` is the place of the indices that were looked at last.
    """
    if not problem.is_checked:
        return []
    lines: list[str] = []
    for number in range(len(problem.components)):
        first = positions.place(problem.rule, f"x1[x1_o + c{number}]", f"d{number}", number)
        lines += [f"if (d{number} <= 0) {{", f"    {first};", "    return;", "}"]
    return [*lines, *(["int seen = -1;"] if by_rows else [])]


def _source(problem: Problem, index: str, at_once: bool = True) -> list[str]:
    """Statements that declare `source`, the offset that the index tuple adds.

    An index outside is reported `at_once`, or by who looks at the row.
    """
    lines = []
    for number in range(len(problem.components)):
        place = _place(problem, index, number)
        if problem.is_checked and at_once:
            place = f"max({place}, 0)"
        elif problem.is_checked:
            place = positions.near(problem.rule, _index(problem, index, number), f"d{number}")
        lines.append(f"const int p{number} = {place};")
    terms = [f"p{number} * a{number}" for number in range(len(problem.components))]
    return [*lines, f"const int source = {' + '.join(terms) or '0'};"]


def _index(problem: Problem, index: str, number: int) -> str:
    at = problem.indices.at(index) if index else "x1_at"
    return f"x1[{at} + c{number}]"


def _place(problem: Problem, index: str, number: int) -> str:
    return positions.place(problem.rule, _index(problem, index, number), f"d{number}", number)


def _element(problem: Problem, index: str, at_once: bool = True) -> list[str]:
    data, out = problem.data, problem.out
    value = memory.load(data.dtype, data.name, f"{data.at(index)} + source")
    put = memory.store(out.dtype, value, out.name, out.at(index))
    return [*_source(problem, index, at_once), put]


def _looked_at(problem: Problem, loop: str) -> list[str]:
    """Statements that look for indices outside in a row, once for rows that read the same ones."""
    if not problem.is_checked:
        return []
    numbers = range(len(problem.components))
    spans = [
        positions.span(problem.rule, _index(problem, "i", number), f"d{number}")
        for number in numbers
    ]
    reports = [f"{_place(problem, 'i', number)};" for number in numbers]
    return [
        "if (x1_at != seen) {",
        "    seen = x1_at;",
        "    long outside = 0;",
        f"    {loop}",
        f"        outside |= {' | '.join(spans)};",
        "    }",
        f"    if (outside < 0) {loop}",
        *(f"        {report}" for report in reports),
        "    }",
        "}",
    ]


def _row(problem: Problem, size: str, width: int) -> list[str]:
    """The row as vectors where its elements share an index, else element by element."""
    if problem.indices.inner != "0":
        loop = f"for (int i = 0; i < {size}; ++i) {{"
        moved = [loop, *(f"    {x}" for x in _element(problem, "i", at_once=False)), "}"]
        return [*moved, *_looked_at(problem, loop)]
    data, out = problem.data, problem.out
    at = f"{data.at('i')} + source"
    whole = memory.load(data.dtype, data.name, at, width, data.step)
    part = memory.load_part(data.dtype, data.name, at, width, f"{size} - i", data.step)
    put = memory.store(out.dtype, whole, out.name, out.at("i"), width, out.step)
    rest = memory.store_part(out.dtype, part, out.name, out.at("i"), width, f"{size} - i", out.step)
    return [
        *_source(problem, ""),
        "int i = 0;",
        f"for (; i + {width} <= {size}; i += {width}) {{",
        f"    {put}",
        "}",
        f"if (i < {size}) {{",
        f"    {rest}",
        "}",
    ]

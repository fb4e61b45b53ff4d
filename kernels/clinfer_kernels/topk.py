"""The k largest or smallest elements along an axis, sorted, with their indices.

A work-item selects from a whole line with a heap: n log k comparisons at most, and one per element
once the heap holds good elements.
"""

from __future__ import annotations

from dataclasses import dataclass

from clinfer_kernels import memory
from clinfer_kernels.common import kernel_head
from clinfer_kernels.dims import ceildiv, minimum
from clinfer_kernels.nest import count_text
from clinfer_kernels.rows import kept_base, kept_indices, row_problem
from clinfer_kernels.spec import Kernel, Launch, Target
from clinfer_kernels.specs import TopKSpec
from clinfer_kernels.template import block, fill
from clinfer_kernels.types import is_float, register, storage


@dataclass(frozen=True)
class TopKTile:
    """local: work-items of a work-group. waves: work-groups per compute unit at most.
    width: elements of a line that are compared at a time."""

    local: int
    waves: int
    width: int


def candidates(spec: TopKSpec, target: Target) -> tuple[TopKTile, ...]:
    """The tiles that can run `spec`, the best first."""
    if target.cls == "gpu":
        return (TopKTile(min(target.max_work_group, 64), 64, 1),)
    is_contiguous = spec.ins[0].strides[spec.axis] == 1
    return (TopKTile(1, 8, 16 if is_contiguous else 1),)


def emit(spec: TopKSpec, tile: TopKTile, target: Target) -> Kernel:
    """The kernel of `spec`: one launch."""
    problem = row_problem(spec.ins, (), spec.outs, (spec.axis,))
    dtype = spec.ins[0].dtype
    signature = problem.signature()
    signature.scalar("best", spec.outs[0].shape[spec.axis])
    kept = len(problem.kept)
    better = ">" if spec.largest else "<"
    nan_first = "a" if spec.largest else "b"
    name = f"topk_{'largest' if spec.largest else 'smallest'}_r{kept}"
    text = fill(
        "topk",
        target,
        head=kernel_head(name, (tile.local,)),
        parameters=signature.text,
        type=register(dtype),
        storage=storage(dtype),
        better=better,
        nan=_NAN.format(nan_first, "b" if spec.largest else "a") if is_float(dtype) else "false",
        child=memory.load(dtype, "values", "child * value_step"),
        sibling=memory.load(dtype, "values", "(child + 1) * value_step"),
        raise_=memory.store(dtype, "worse", "values", "e * value_step"),
        put=memory.store(dtype, "v", "values", "e * value_step"),
        lines=count_text(range(kept)),
        indices=block(kept_indices(kept, "flat"), 2),
        bases=block([kept_base(v, kept) for v in problem.views], 2),
        element=memory.load(dtype, "x0", "x0_at + r * x0_t0"),
        width=tile.width,
        skip=block(_skip(dtype, tile.width, better), 3),
        append=memory.store(dtype, "v", "values", "r * y0_t0"),
        node=memory.load(dtype, "values", "e * y0_t0"),
        root=memory.load(dtype, "values", "0"),
        behind=memory.store(dtype, "worst", "values", "e * y0_t0"),
    )
    groups = minimum(ceildiv(problem.rows, tile.local), tile.waves * target.compute_units)
    launch = Launch(name, text, signature.args, (groups * tile.local,), (tile.local,))
    return Kernel((launch,))


# Whether a's being NaN, or b's, makes a better: NaN is larger than any number.
_NAN = "({0} != {0} && ({1} == {1} || i < j))"


def _skip(dtype: str, width: int, better: str) -> list[str]:
    """Statements that pass over `width` elements none of which is better than the root."""
    if width == 1:
        return []
    elements = memory.load(dtype, "x0", "x0_at + r", width)
    worst = f"({register(dtype, width)})({memory.load(dtype, 'values', '0')})"
    some = f"{elements} {better} {worst}"
    if is_float(dtype):
        nan = f"{worst} != {worst}" if better == "<" else f"{elements} != {elements}"
        some = f"({some}) | ({nan})"
    return [
        f"if (end - r == {width} && !any({some})) {{",
        "    r = end;",
        "    continue;",
        "}",
    ]

"""Forests: rows of features go down trees, and the leaves that they reach vote.

On CPUs a work-group takes a share of the rows, several side by side down one tree; on GPUs a
work-item takes a row. All operands are dense. `ForestSpec` says how nodes lie.
"""

from __future__ import annotations

from dataclasses import dataclass

from clinfer_kernels import memory
from clinfer_kernels.common import kernel_head
from clinfer_kernels.dims import ceildiv, minimum
from clinfer_kernels.signature import Signature
from clinfer_kernels.spec import Kernel, Launch, Target
from clinfer_kernels.specs import ForestSpec
from clinfer_kernels.template import block, fill, template

_COMPARED = {1: "value < threshold", 2: "value == threshold", 4: "value > threshold"}
_NONE_OF_THEM = 8
_NAN, _SOME_NAN = 16, 32
_PLAIN = {
    1: "value < threshold",
    2: "value == threshold",
    3: "value <= threshold",
    4: "value > threshold",
    6: "value >= threshold",
    1 | 4 | _NONE_OF_THEM: "value != threshold",
}
_START = {"sum": "0.0f", "min": "INFINITY", "max": "-INFINITY"}
_ADDED = {"sum": "{} + {}", "min": "fmin({}, {})", "max": "fmax({}, {})"}


@dataclass(frozen=True)
class ForestTile:
    """local: work-items of a work-group. waves: work-groups per compute unit at most.

    block, ways: rows that go down a tree one after another, and of those side by side; 0 for none.
    """

    local: int
    waves: int
    block: int = 0
    ways: int = 0


def candidates(spec: ForestSpec, target: Target) -> tuple[ForestTile, ...]:
    """The best first; none for operands that are not dense."""
    if not all(t.is_contiguous and t.offset == 0 for t in (*spec.ins, *spec.outs)):
        return ()
    if target.cls == "cpu":
        return (ForestTile(1, 8, 128, 8), ForestTile(1, 8))
    return (ForestTile(min(64, target.max_work_group), 32),)


def emit(spec: ForestSpec, tile: ForestTile, target: Target) -> Kernel:
    """The one launch."""
    x, nodes, roots, *votes = spec.ins
    out = spec.outs[0]
    signature = Signature()
    for number, (tensor, name) in enumerate(
        zip(spec.ins, ("x", "nodes", "roots", "votes"), strict=False)
    ):
        signature.buffer("in", number, tensor.dtype, name)
    signature.buffer("out", 0, out.dtype, "y")
    rows, targets = out.shape
    for name, value in (
        ("rows", rows),
        ("width", x.shape[1]),
        ("targets", targets),
        ("trees", roots.shape[0]),
    ):
        signature.scalar(name, value)
    node = memory.load(nodes.dtype, "nodes", "4 * at", 4, is_aligned=True)
    fields: dict[str, str | int] = {"ways": tile.ways, "block": tile.block} if tile.ways else {}
    name = "forest_rows" if tile.ways else "forest"
    text = fill(
        name,
        target,
        head=kernel_head(name, (tile.local,)),
        parameters=signature.text,
        walk=template("forest_walk", goes=_goes(spec.mask), node=node, votes=_votes(spec)),
        node=node,
        votes="votes" if votes else "nodes",
        start=_START[spec.aggregate],
        end=_end(spec, "y[i]" if tile.ways else "scores[target]"),
        **fields,
    )
    items = ceildiv(rows, 2 * tile.ways or tile.local)
    groups = minimum(items, tile.waves * target.compute_units)
    launch = Launch(name, text, signature.args, (groups * tile.local,), (tile.local,))
    return Kernel((launch,))


def _goes(mask: int) -> str:
    """C for whether `value` leads to the first child; `mask` as in `ForestSpec`."""
    if mask >= 0:
        plain = _PLAIN[mask & ~(_NAN | _SOME_NAN)]
        if mask & _SOME_NAN:
            return f"{plain} || (value != value && (node.w & {_NAN}))"
        return f"{plain} || value != value" if mask & _NAN else plain
    found = " | ".join(f"({c} ? {bit} : 0)" for bit, c in _COMPARED.items())
    nan = f"(value != value ? {_NAN} : 0)"
    return f"(((({found}) ? ({found}) : {_NONE_OF_THEM}) | {nan}) & node.w) != 0"


def _votes(spec: ForestSpec) -> str:
    if spec.alone:
        added = _ADDED[spec.aggregate].format("scores[leaf.w]", "as_float(leaf.y)")
        return block([f"scores[leaf.w] = {added};"], 1)
    added = _ADDED[spec.aggregate].format("scores[target]", "as_float(votes[2 * i + 1])")
    lines = [
        "for (int i = ~leaf.z; i < leaf.w; ++i) {",
        "    const int target = votes[2 * i];",
        f"    scores[target] = {added};",
        "}",
    ]
    return block(lines, 1)


def _end(spec: ForestSpec, score: str) -> str:
    """A score for which there are no votes is 0."""
    return score if spec.aggregate == "sum" else f"isinf({score}) ? 0.0f : {score}"

"""A product's results as an operand of the next one, without leaving the lane.

Results of rows x keys are A of the next product where each lane has, of the rows whose registers
of A it has, just the keys; B, where keys are the rows. Which result an element of a register is
follows from both layouts: that at the same row, and at the place along k that its slot has.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from itertools import product

from clinfer_kernels.contraction.fragments import Side
from clinfer_kernels.contraction.instructions import MatrixUnit, Register
from clinfer_kernels.contraction.units import Shape
from clinfer_kernels.template import inside

Source = tuple[int, int]
"""A lane's own numbers of a result's place beside k, and of its place along k."""


@lru_cache(maxsize=64)
def sources(
    scores: MatrixUnit, unit: MatrixUnit, name: str, counts: tuple[int, int]
) -> Mapping[tuple[Register, int], Source] | None:
    """Of each element of `unit`'s registers of operand `name`, the result of `scores` that it is,
    by register and number; None where a lane does not have them. `counts`: fragments, and k that
    the results have, in whole steps: registers' `s` counts through all of them."""
    fragments, depth = counts
    layout = unit.a if name == "a" else unit.b
    beside, along = (unit.rows, scores.cols) if name == "a" else (unit.cols, scores.rows)
    found: dict[tuple[Register, int], Source] = {}
    if layout.is_across:
        return None
    for lane in range(unit.lanes):
        own_beside = _own(beside, lane, fragments)
        own_along = _own(along, lane, depth // along.count)
        for f, s in product(range(fragments), range(depth // unit.k)):
            step, part = divmod(s, unit.depth // unit.k)
            for number, (index, slot) in enumerate(layout.registers):
                at = beside.place(_text(layout.index, lane) + index, f)
                for element in range(4 // unit.packing.size):
                    first = _text(layout.k, lane) + slot + element
                    k = step * unit.depth + unit.order.k(first, part)
                    if at not in own_beside or k not in own_along:
                        return None
                    source = own_beside[at], own_along[k]
                    if found.setdefault((Register(name, f, s, number), element), source) != source:
                        return None
    return found


def _own(side: Side, lane: int, fragments: int) -> dict[int, int]:
    """A lane's own numbers by place."""
    first = _text(side.lane, lane)
    return {
        side.place(own * side.lanes + first if not side.is_outer else first * side.each + own, f):
        side.number(own, f)
        for f, own in product(range(fragments), range(side.each))
    }  # fmt: skip


@lru_cache(maxsize=1024)
def _text(text: str, lane: int) -> int:
    """The value of C text of `lane`."""
    return int(eval(text.replace("/", "//"), {"__builtins__": {}}, {"lane": lane}))


def chained(
    scores: MatrixUnit, unit: MatrixUnit, name: str, tile: Shape, value: Callable[[int, int], str]
) -> list[str]:
    """Statements that add the products of all of `tile`'s k, as `unit.step` does, with results of
    `scores` for operand `name`: `value` is the text of one, by the lane's numbers beside k and
    along k."""
    fragments = unit.fragments(tile)[0 if name == "a" else 1]
    found = sources(scores, unit, name, (fragments, tile.k_step))
    assert found is not None, f"{unit.name} does not take its results for {name}"
    each = 4 // unit.packing.size
    lines = unit.from_tile("b" if name == "a" else "a")
    parts = unit.depth // unit.k
    for step in range(tile.k_step // unit.depth):
        kept: dict[Register, str] = {}
        inner = [f"const int k = {step * unit.depth};"]
        registers = [
            Register(name, f, s, number)
            for f in range(fragments)
            for s in range(parts)
            for number in range(len((unit.a if name == "a" else unit.b).registers))
        ]
        for first in range(0, len(registers), 4 // each):
            group = registers[first : first + 4 // each]
            elements = [
                value(*found[register._replace(s=step * parts + register.s), element])
                for register in group
                for element in range(each)
            ]
            vector = f"kept{first // (4 // each)}"
            inner += unit.packed_lines(vector, elements)
            for n, register in enumerate(group):
                kept[register] = f"{vector}@.s{n}"
        inner += unit.multiplied_lines(tile, kept)
        lines += ["{", *inside(inner), "}"]
    return lines + unit.settled(tile)

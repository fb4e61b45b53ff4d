"""What must hold for sizes that come during a run, looked at once for the same values.

A step of a loop binds sizes several times, and steps and runs come to the same ones again. So what
is found is kept: of a list of requirements and the values of the symbols in them, what cannot be
checked yet; of what a step reads, the sizes that it gives.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from clinfer.lowering.binding import (
    Sizes,
    check_requirement,
    read_sizes,
    require_runnable,
    required_sizes,
)
from clinfer.lowering.plan import Block, Constraint, Reach, SizesStep
from clinfer_kernels.dims import symbols

Requirement = Constraint | Reach
Requirements = Sequence[Requirement]

_MOST_KEPT = 1 << 16  # findings; then all are forgotten


@dataclass
class _Listed:
    """A list of requirements, which its identity stands for, and what has been found of it."""

    requirements: Requirements
    names: tuple[str, ...]
    left: dict[tuple[int | None, ...], Requirements] = field(default_factory=dict)


class Checks:
    """The findings of one instance."""

    def __init__(self) -> None:
        self._names: dict[int, tuple[str, ...]] = {}  # of symbols, by requirements' ids
        self._met: set[tuple[int, tuple[int, ...]]] = set()  # requirements, with values they fit
        self._blocks: dict[tuple[int, int], Requirements] = {}
        self._lists: dict[int, _Listed] = {}
        self._joined: dict[tuple[int, int], tuple[Requirements, Requirements, Requirements]] = {}
        self._given: dict[tuple[int | None, ...], dict[str, int]] = {}
        self._needed: dict[int, tuple[str, ...]] = {}
        self._kept = 0

    def enter(self, block: Block, sizes: Sizes) -> Requirements:
        """What of a block that is to run cannot be checked yet. Raises `ShapeError`."""
        require_runnable(block)
        requirements = self._blocks.get(block[:2])
        if requirements is None:
            requirements = self._blocks[block[:2]] = tuple(block.requirements)
        return self.still_open(requirements, sizes)

    def still_open(self, requirements: Requirements, sizes: Sizes) -> Requirements:
        """Those that cannot be checked yet. Raises `ShapeError` where one does not hold."""
        if not requirements:
            return requirements
        listed = self._lists.get(id(requirements))
        if listed is None:
            names = sorted({name for r in requirements for name in self._symbols(r)})
            listed = self._lists[id(requirements)] = _Listed(requirements, tuple(names))
        key = tuple(map(sizes.values.get, listed.names))
        left = listed.left.get(key)
        if left is None:
            left = [r for r in requirements if not self._is_met(r, sizes)]
            self._keep()
            listed.left[key] = left
        return left

    def joined(self, first: Requirements, second: Requirements) -> Requirements:
        """Both; the same list for the same two."""
        if not first or not second:
            return first or second
        key = (id(first), id(second))
        if key not in self._joined:
            self._keep()
            self._joined[key] = (first, second, [*first, *second])
        return self._joined[key][2]

    def read(self, step: SizesStep, read: Sequence[int], sizes: Sizes) -> None:
        """Binds the sizes that a step gives. Raises as `read_sizes`."""
        names = self._needed.get(id(step))
        if names is None:
            names = self._needed[id(step)] = tuple(sorted(_symbols_of(step)))
        key = (id(step), *read, *map(sizes.values.get, names))
        given = self._given.get(key)
        if given is None:
            given = read_sizes(step, read, sizes)
            self._keep()
            self._given[key] = given
        sizes.bind_all(given)

    def _symbols(self, requirement: Requirement) -> tuple[str, ...]:
        names = self._names.get(id(requirement))
        if names is None:
            found = {name for dim in required_sizes(requirement) for name in symbols(dim)}
            names = self._names[id(requirement)] = tuple(found)
        return names

    def _is_met(self, requirement: Requirement, sizes: Sizes) -> bool:
        """Whether it holds; False where a size of it is not known. Raises `ShapeError`."""
        found: list[Any] = [sizes.values.get(name) for name in self._symbols(requirement)]
        if None in found:
            return False
        key = (id(requirement), tuple(found))
        if key not in self._met:
            check_requirement(requirement, sizes)
            if len(self._met) < _MOST_KEPT:
                self._met.add(key)
        return True

    def _keep(self) -> None:
        """Makes room for one more finding."""
        self._kept += 1
        if self._kept > _MOST_KEPT:
            self._kept = 0
            for findings in (self._lists, self._joined, self._given):
                findings.clear()


def _symbols_of(step: SizesStep) -> set[str]:
    """The symbols that decide what a step gives, besides those of what it reads."""
    dims: list[Any] = [value for _, value in step.definitions]
    dims += [bound for _, check in step.checks for bound in (check.low, check.high)]
    dims += [side for c in step.constraints for side in required_sizes(c)]
    own = {*step.names, *(name for name, _ in step.definitions)}
    return {name for dim in dims for name in symbols(dim)} - own

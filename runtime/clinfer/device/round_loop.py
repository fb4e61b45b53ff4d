"""A loop's steps as instructions, written for sizes that are known.

Where a step reads sizes, instructions compute what it gives as the step would, and go on where it
is what launches and requirements have been bound to (`clinfer.device.rounds`).
"""

from __future__ import annotations

from collections.abc import Mapping

from clinfer.device.round_script import Launches, Script, Stage, Unplayable
from clinfer.device.round_sizes import names_computed
from clinfer.lowering.binding import MOST_ELEMENTS, required_sizes
from clinfer.lowering.plan import (
    AgainStep,
    BranchStep,
    Constraint,
    LaunchStep,
    LoopStep,
    Part,
    Reach,
    SizesStep,
)
from clinfer_kernels.dims import symbols
from clinfer_kernels.player import (
    ENDS,
    GOES_ON,
    JUMPS,
    LOADS,
    LOOKS,
    NOTHING,
    ROUND,
    ROUND_FROM_LAST,
    STOP_ROUND,
    STORES,
)

_EXCHANGED = 4096  # bytes of a state from which on it is not copied
Requirement = Constraint | Reach


class LoopScript(Script):
    """The instructions of a loop's steps. Raises `Unplayable` where there are none."""

    def __init__(self, stage: Stage, step: LoopStep, expected: Mapping[str, int]) -> None:
        super().__init__(stage)
        self._expected = expected
        self._open: list[Requirement] = list(step.block.requirements)
        self._computed = names_computed(stage.plan, step.block)
        self._launches: dict[int, tuple[Launches | None, int]] = {}
        top = 0
        is_over = self.compute("at most", STOP_ROUND, ROUND, 0)
        self.do(JUMPS, is_over, 3)
        self._end = self.do(ENDS)
        self.do(LOOKS)
        if step.counter >= 0:
            self.do(STORES, self.address(step.counter), ROUND)
        for part in step.parts:
            self.copy(part.whole, part.row, self._nbytes(part.row), of_at=_row_of(part))
        self._write(step.block.first, step.block.end)
        if self._require(self._open, step.block.end - 1):
            raise Unplayable
        self.do(JUMPS, NOTHING, top)

    def _nbytes(self, number: int) -> int:
        return self.stage.plan.buffers[number].nbytes(self.stage.sizes)

    def _write(self, first: int, end: int, outermost: int | None = None) -> None:
        """The steps `first` to `end` - 1; `outermost` is the step of the branch that they are in.

        Within a branch nothing is left that is to be done by the branch's other steps: whatever may
        leave them comes before it. Only a position that was reported is seen there, and whoever
        goes on from it looks at that first.
        """
        plan, index = self.stage.plan, first
        while index < end:
            number, step = index, plan.steps[index]
            index += 1
            if isinstance(step, LaunchStep):
                launches, index = self._row(number, end)
                if launches is not None:
                    if outermost is None:
                        self.prepare(launches, number)
                    self.play(launches)
            elif isinstance(step, BranchStep):
                if outermost is None:
                    self._prepare(step, number)
                self._branch(number, step, number if outermost is None else outermost)
                index = step.blocks[-1].end
            elif isinstance(step, SizesStep) and outermost is None:
                self._read_sizes(number, step)
            elif isinstance(step, AgainStep):
                self._again(number, step)
            else:
                raise Unplayable

    def _row(self, first: int, end: int) -> tuple[Launches | None, int]:
        """See `Stage.row_of_launches`; asked once for each row."""
        if first not in self._launches:
            self._launches[first] = self.stage.row_of_launches(first, end)
        return self._launches[first]

    def _prepare(self, branch: BranchStep, number: int) -> None:
        """What must hold in either block of a branch, and in Ifs in it, and launches' arguments."""
        taken = self.stage.block_taken(branch)
        for block in branch.blocks if taken is None else (taken,):
            if self._require(list(block.requirements), number):
                raise Unplayable
            index = block.first
            while index < block.end:
                step = self.stage.plan.steps[index]
                if isinstance(step, LaunchStep):
                    launches, index = self._row(index, block.end)
                    if launches is not None:
                        self.prepare(launches, number)
                elif isinstance(step, BranchStep):
                    self._prepare(step, number)
                    index = step.blocks[-1].end
                else:
                    raise Unplayable

    def _need_no_report(self, step: int) -> None:
        if self.stage.plan.checks:
            found = self.register()
            address = self.constant(self.stage.reports.ctypes.data)
            self.do(LOADS, found, address, 0, self.stage.reports.itemsize)
            self.need(self.compute("equal", found, NOTHING, step), step)

    def _branch(self, number: int, step: BranchStep, outermost: int) -> None:
        block = self.stage.block_taken(step)
        if block is not None:
            self._write(block.first, block.end, outermost)
            return
        self._need_no_report(number)
        skip = self.do(JUMPS, self.element(step.condition, number))
        self._write(step.blocks[0].first, step.blocks[0].end, outermost)
        leave = self.do(JUMPS, NOTHING)
        self.words[skip][2] = len(self.words)
        self._write(step.blocks[1].first, step.blocks[1].end, outermost)
        self.words[leave][2] = len(self.words)

    def _read_sizes(self, number: int, step: SizesStep) -> None:
        self._need_no_report(number)
        read = [register for value in step.values for register in self.elements(value, number)]
        if len(read) != len(step.names):
            raise Unplayable
        self.read[number] = read
        for name, register in zip(step.names, read, strict=True):
            self.bind(name, register)
        for name, check in step.checks:
            register = self.known[name]
            low, high = self.size(check.low, number), self.size(check.high, number)
            self.need(self.compute("at most", low, register, number), number)
            is_above = self.compute("at most", high, register, number)
            self.need(self.compute("equal", is_above, NOTHING, number), number)
        for name, value in step.definitions:
            self.bind(name, self.size(value, number))
        for constraint in step.constraints:
            left, right = self.size(constraint.left, number), self.size(constraint.right, number)
            self.need(self._holds(constraint.relation, left, right, number), number)
        for name in step.gives:
            register = self.known[name]
            if name in self._expected:
                wanted = self.constant(self._expected[name])
                self.need(self.compute("equal", register, wanted, number), number)
            else:
                self.need(self.compute("at most", NOTHING, register, number), number)

        self._open = self._require(self._open, number)

    def _require(self, requirements: list[Requirement], number: int) -> list[Requirement]:
        """Checks what step `number` needs of sizes that may be others in each step.

        Gives those that have sizes not known yet.
        """
        left: list[Requirement] = []
        for requirement in requirements:
            sides = required_sizes(requirement)
            free = {n for d in sides for n in symbols(d)} & self._computed - self._expected.keys()
            if not free <= self.known.keys():
                left.append(requirement)
            elif not free:
                continue
            elif isinstance(requirement, Constraint):
                pair = (self.size(requirement.left, number), self.size(requirement.right, number))
                self.need(self._holds(requirement.relation, *pair, number), number)
            else:
                self.need(self._reaches(requirement, number), number)
        return left

    def _reaches(self, reach: Reach, step: int) -> int:
        """What `check_reach` asks for."""
        one = self.constant(1)
        size = self.size(reach.size, step)
        first = last = self.size(reach.offset, step)
        total, is_none, holds = one, NOTHING, one
        for count, stride in zip(reach.shape, reach.strides, strict=True):
            places = self.size(count, step)
            is_none = self._with("max", is_none, self._with("equal", places, NOTHING, step), step)
            holds = self._with("min", holds, self._with("at most", NOTHING, places, step), step)
            total = self._with("mul", total, places, step)
            behind = self._with("add", places, self.constant(-1), step)
            way = self._with("mul", behind, self.size(stride, step), step)
            last = self._with("add", last, self._with("max", way, NOTHING, step), step)
            first = self._with("add", first, self._with("min", way, NOTHING, step), step)
        limits = [(NOTHING, first), (self._with("add", last, one, step), size)]
        if reach.is_counted:
            most = self.constant(MOST_ELEMENTS)
            limits += [(total, most), (size, most)]
        for low, high in limits:
            holds = self._with("min", holds, self._with("at most", low, high, step), step)
        return self._with("max", holds, is_none, step)

    def _holds(self, relation: str, left: int, right: int, step: int) -> int:
        """Of `clinfer_kernels.dims.RELATIONS`."""
        if relation == "at most":
            return self.compute("at most", left, right, step)
        holds = self.compute("equal", left, right, step)
        ones = {"fits": (left,), "join": (left, right)}.get(relation, ())
        for side in ones:
            is_one = self.compute("equal", side, self.constant(1), step)
            holds = self.compute("max", holds, is_one, step)
        return holds

    def _again(self, number: int, step: AgainStep) -> None:
        if step.sizes:
            raise Unplayable
        if step.goes_on is not None:
            self._need_no_report(number)
        for part in step.rows:
            self.copy(part.row, part.whole, self._nbytes(part.row), to_at=_row_of(part))
        goes_on = None if step.goes_on is None else self.element(step.goes_on, number)
        for of, to in step.moves:
            nbytes = self._nbytes(to)
            kinds = {self.stage.plan.buffers[number].kind for number in (of, to)}
            if nbytes >= _EXCHANGED and nbytes == self._nbytes(of) and kinds == {"temp"}:
                self.exchange(of, to)
            else:
                self.copy(of, to, nbytes)
        self.compute("add", ROUND, self.constant(1), number, ROUND)
        self.compute("add", ROUND_FROM_LAST, self.constant(-1), number, ROUND_FROM_LAST)
        if goes_on is not None:
            self.compute("add", goes_on, NOTHING, number, GOES_ON)
            self.do(JUMPS, GOES_ON, self._end)


def _row_of(part: Part) -> int:
    return ROUND_FROM_LAST if part.is_reversed else ROUND

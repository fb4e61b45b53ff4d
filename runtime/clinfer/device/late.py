"""A plan some of whose sizes only a run gives: each step is bound when its sizes are known."""

from __future__ import annotations

from abc import abstractmethod
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from clinfer.device.instance import Instance
from clinfer.device.late_checks import Checks, Requirements
from clinfer.device.loops import Turn
from clinfer.errors import ShapeError
from clinfer.lowering.binding import Sizes, check_sizes
from clinfer.lowering.plan import (
    AgainStep,
    Buffer,
    HostStep,
    HostValue,
    LaunchStep,
    LoopStep,
    SizesStep,
)
from clinfer.runs import require_wanted
from clinfer_kernels.dims import Dim, symbols


class Late(Instance):
    """Goes through the steps of a run; how one is done, and where memory is, is left open."""

    _input_values: Mapping[str, int]
    _open: Requirements

    def _await_sizes(self) -> None:
        """Checks what the sizes of the inputs tell; before the first run."""
        self._input_values = dict(self.sizes.values)
        self._open = check_sizes(self.plan.requirements, self.sizes)
        self._ends: dict[int, list[int]] = defaultdict(list)
        """Temporaries by the step that reads them last; what lives through a loop goes with it."""
        self._renewed: dict[int, list[int]] = {}
        self._row_sizes: dict[int, dict[str, int]] = {}
        self._memo: dict[Any, Any] = {}  # sizes computed of the same symbols' values
        self._checks = Checks()
        for number, buffer in enumerate(self.plan.buffers):
            if buffer.kind == "temp":
                self._ends[self._end_of(buffer)].append(number)

    def _end_of(self, buffer: Buffer) -> int:
        for number, step in enumerate(self.plan.steps[: buffer.last]):
            if isinstance(step, LoopStep) and buffer.first <= number < buffer.last < step.block.end:
                return number
        return buffer.last

    def _run_all(self) -> None:
        """All steps, for the sizes of the inputs."""
        self.sizes = Sizes(self._input_values)
        self._unchecked = self._open
        self._row_sizes.clear()
        self._run_steps(0, len(self.plan.steps))

    def _run_steps(self, first: int, end: int) -> None:
        index = first
        while index < end:
            step, number = self.plan.steps[index], index
            index += 1
            if isinstance(step, LaunchStep):
                index = self._do_launches(number, end)
            elif isinstance(step, HostStep):
                self._touch(v.buffer for v in step.inputs if v is not None)
                self._do_host(step)
            elif isinstance(step, SizesStep):
                self._touch(v.buffer for v in step.values)
                self._read_sizes(step)
            elif isinstance(step, LoopStep):
                self._loop(number, step)
                index = step.block.end
            elif isinstance(step, AgainStep):
                self._end_turn(step)
            else:
                self._touch([step.condition.buffer])
                block = step.blocks[0 if self._holds(step) else 1]
                self._unchecked = self._checks.joined(
                    self._unchecked, self._checks.enter(block, self.sizes)
                )
                self._run_steps(block.first, block.end)
                index = step.blocks[-1].end
            for done in range(number, index):
                self._release(done)

    # -- loops -----------------------------------------------------------------------------------

    def _loop(self, number: int, step: LoopStep) -> None:
        """A Loop or Scan, of whose sizes each step may bind some anew."""
        turn = self.turns[number] = Turn()
        self._touch(v.buffer for v in (step.limit, step.going) if v is not None)
        turn.begin(self, step)
        self._bind_all(step.sizes)
        for of, to in step.states:
            self._hand_on(of, to)
        outside = self._unchecked
        has_new_sizes = True
        while not turn.is_over:
            require_wanted()
            first = self._go_round(number, step, turn)
            if first is None:
                continue
            if has_new_sizes:
                self._forget(number, step)
                self._unchecked = outside
                self._enter(step)
                has_new_sizes = bool(step.inner or step.sizes)
            if first == step.block.first:
                self._begin_round(step, turn)
            else:
                self._read_again(step, first)
            self._run_steps(first, step.block.end)
            turn.done += 1
            self._end_round(number, step)
        rows = self._row_sizes.pop(number, {})
        for name, none in step.gives:
            self.sizes.bind(name, turn.done if none < 0 else rows.get(name, none))
        self._touch(step.stacks)
        self._unchecked = self._checks.still_open(outside, self.sizes)

    def _begin_round(self, step: LoopStep, turn: Turn) -> None:
        """Lets a step have its number, and its rows of what is scanned."""
        if step.counter >= 0:
            self._touch([step.counter])
            self.count(step.counter, turn.done)
        for part in step.parts:
            self._touch(part[:2])
            nbytes = self._nbytes(part.row)
            if nbytes:
                self.copy(part.whole, part.row, nbytes, turn.row(part) * nbytes)

    def _go_round(self, number: int, step: LoopStep, turn: Turn) -> int | None:
        """Does steps of a loop in one go, where it can: None, where all that it began are done.

        Else what comes next is one step that begins, or goes on, at that step of the plan.
        """
        return step.block.first

    def _read_again(self, step: LoopStep, left: int) -> None:
        """Binds the sizes that a step of a loop has read before it was left at a step."""

    def _end_round(self, number: int, step: LoopStep) -> None:
        """After a step of a loop that was not done so."""

    def _enter(self, step: LoopStep) -> None:
        """Looks at what must hold in a step."""
        self.sizes.recall(self._memo)
        left = self._checks.enter(step.block, self.sizes)
        self._unchecked = self._checks.joined(self._unchecked, left)

    def _end_turn(self, step: AgainStep) -> None:
        turn = self.turns[step.loop]
        if step.rows:
            self._stack(step, turn)
        if step.goes_on is not None:
            self._touch([step.goes_on.buffer])
            turn.goes_on = bool(self.element(step.goes_on))
        nexts = {name: self.sizes(dim) for name, dim in step.sizes}
        for of, to in step.moves:
            self._touch([of])
            self._move(of, to)
        if nexts:
            self.sizes.bind_all(nexts)

    def _stack(self, step: AgainStep, turn: Turn) -> None:
        """Adds a step's rows to what is stacked: its size may be known only when all is over."""
        sizes = {name: self.sizes(dim) for name, dim in step.row_sizes}
        first = self._row_sizes.setdefault(step.loop, sizes)
        if sizes != first:
            raise ShapeError(
                f"{step.label}: what is stacked has other sizes in step {turn.done} than in the "
                f"first: {list(sizes.values())} where {list(first.values())} is expected"
            )
        for part in step.rows:
            self._touch([part.row])
            nbytes = self._nbytes(part.row)
            row = turn.row(part)
            self._grow(part.whole, row, nbytes)
            if nbytes:
                self.copy(part.row, part.whole, nbytes, 0, row * nbytes)

    def _bind_all(self, sizes: Sequence[tuple[str, Dim]]) -> None:
        """Binds symbols at once: what one was before may be in another's meaning."""
        self.sizes.bind_all({name: self.sizes(dim) for name, dim in sizes})

    def _forget(self, number: int, step: LoopStep) -> None:
        """Before a step: what the one before has bound, and tensors of sizes that have it."""
        self.sizes.forget(step.inner)
        if number not in self._renewed:
            names = {*step.inner, *(name for name, _ in step.sizes)}
            self._renewed[number] = [
                n
                for n, buffer in enumerate(self.plan.buffers)
                if any(not names.isdisjoint(symbols(dim)) for dim in buffer.content)
            ]
        self._drop_sizes(self._renewed[number])

    def _hand_on(self, of: int, to: int) -> None:
        """Copies a buffer, or hands on an object."""
        if self.plan.buffers[to].kind == "host":
            self.objects[to] = self.objects[of]
            return
        self._touch([of, to])
        nbytes = self._nbytes(to)
        if nbytes:
            self.copy(of, to, nbytes)

    def _nbytes(self, number: int) -> int:
        return self.plan.buffers[number].nbytes(self.sizes)

    @abstractmethod
    def _move(self, of: int, to: int) -> None:
        """Lets a buffer have what is in another, which is read no more."""

    @abstractmethod
    def _grow(self, number: int, row: int, nbytes: int) -> None:
        """Makes room for a row of so many bytes in a buffer, which keeps the rows before it."""

    @abstractmethod
    def _drop_sizes(self, numbers: Sequence[int]) -> None:
        """Tensors of sizes are other ones now."""

    # -- sizes from data -------------------------------------------------------------------------

    def _read_sizes(self, step: SizesStep) -> None:
        self._read_reports()
        read = [n for value in step.values for n in self._integers(value)]
        self._check()
        self._checks.read(step, read, self.sizes)
        self._unchecked = self._checks.still_open(self._unchecked, self.sizes)

    def _integers(self, value: HostValue) -> list[int]:
        if value.tensor is not None and set(value.tensor.shape) <= {1}:
            return [self._one(value)]
        return [int(n) for n in self._host_input(value).ravel()]

    def _prepare_output(self, value: HostValue, has_new_sizes: bool) -> None:
        if has_new_sizes:
            self._unchecked = self._checks.still_open(self._unchecked, self.sizes)
        if value.tensor is not None:
            self._touch([value.buffer])

    @abstractmethod
    def _do_launches(self, first: int, end: int) -> int:
        """Runs or queues launches from step `first` on; gives the first step that it has not."""

    @abstractmethod
    def _do_host(self, step: HostStep) -> None:
        """Runs a host step."""

    @abstractmethod
    def _touch(self, numbers: Iterable[int]) -> None:
        """Makes buffers that are not there yet, their sizes being known."""

    @abstractmethod
    def _release(self, index: int) -> None:
        """Gives back what no step after that one reads."""

"""Loops of a plan some of whose sizes only a run gives, played in rounds where sizes stay."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence, Set
from dataclasses import dataclass, field

from clinfer.device.late import Late
from clinfer.device.late_rows import BoundRow, Row, words_of_sizes
from clinfer.device.loops import Turn
from clinfer.device.player import Player, Words
from clinfer.device.round_loop import LoopScript
from clinfer.device.round_script import Launches, Unplayable
from clinfer.device.round_sizes import is_playable, names_computed, sizes_that_decide
from clinfer.device.rounds import Rounds
from clinfer.errors import DeviceError, ShapeError
from clinfer.lowering.binding import decided
from clinfer.lowering.plan import AgainStep, Block, BranchStep, LoopStep, SizesStep
from clinfer_kernels.dims import symbols

_STEPS_ALIKE = 3  # that come before instructions are written
_WORTH_IT = 8  # steps of a call from which on it pays, though one more is done without
_MOST_MISSES = 3  # calls of a run that did not pay
_MOST_KEPT = 16  # sets of sizes that instructions are kept for

Key = tuple[int | None, ...]


@dataclass
class _Loop:
    """What is known of a loop: instructions by the sizes they hold for, and those of this run."""

    before: tuple[str, ...]
    own: tuple[str, ...]
    known: dict[Key, tuple[Rounds, Sequence[BoundRow]] | None] = field(default_factory=dict)
    key: Key = ()
    alike: int = 0
    misses: int = 0


class LateRounds(Late):
    """Goes through steps of a loop alike in calls of the player, through others one by one."""

    _player: Player
    _places: Words
    _profiling: bool

    def _await_rounds(self) -> None:
        self._loops: dict[int, _Loop | None] = {}
        self._bound: list[BoundRow] = []
        self._free: Set[str] = set()
        self._was_read: dict[int, list[int]] = {}
        if self._profiling:  # each launch is timed by itself
            return
        for number, step in enumerate(self.plan.steps):
            if isinstance(step, LoopStep) and is_playable(self.plan, step.block):
                self._loops[number] = _Loop(*sizes_that_decide(self.plan, step))

    def _go_round(self, number: int, step: LoopStep, turn: Turn) -> int | None:
        loop = self._loops.get(number)
        if loop is None:
            return step.block.first
        if not turn.done:
            loop.misses = 0
        found = loop.known.get(loop.key) if turn.done and loop.misses < _MOST_MISSES else None
        if found is None:
            return step.block.first
        rounds, rows = found
        self.sizes.bind_all(rounds.expected)
        stop = self._room(step, turn)
        if stop is not None and stop <= turn.done:
            return step.block.first
        self._touch(rounds.buffers)
        self._point_all(rows)
        done = turn.done
        left = rounds.play(turn, stop, self._places)
        self._swap(rounds.swapped)
        for index in range(step.block.first, step.block.end if left is None else left):
            self._release(index)
        if left is None:
            return None
        loop.misses += turn.done - done < _WORTH_IT
        numbers = {*rounds.buffers, *(n for row in rows for n, _ in row.outer)}
        self._withdraw([n for n in numbers if self.plan.buffers[n].first >= left])
        self._was_read = dict(rounds.read(step.block.first, left))
        return left

    def _read_again(self, step: LoopStep, left: int) -> None:
        for number, read in self._was_read.items():
            sizes_step = self.plan.steps[number]
            assert isinstance(sizes_step, SizesStep)
            self._checks.read(sizes_step, read, self.sizes)
            self._unchecked = self._checks.still_open(self._unchecked, self.sizes)

    def _end_round(self, number: int, step: LoopStep) -> None:
        loop = self._loops.get(number)
        if loop is None:
            return
        values = self.sizes.values
        key = tuple([values.get(name) for name in (*loop.before, *loop.own)])
        if key != loop.key:
            loop.key, loop.alike = key, 0
        loop.alike += 1
        if loop.alike < _STEPS_ALIKE or key in loop.known:
            return
        if len(loop.known) >= _MOST_KEPT:
            loop.known.clear()
        loop.known[key] = None if None in key else self._written(step, loop)

    def _written(self, step: LoopStep, loop: _Loop) -> tuple[Rounds, Sequence[BoundRow]] | None:
        """The instructions for the sizes that the last step had."""
        expected = {name: self.sizes.values[name] for name in loop.own}
        self._bound = []
        self._free = names_computed(self.plan, step.block) - expected.keys()
        try:
            script = LoopScript(self, step, expected)
        except (Unplayable, ArithmeticError, DeviceError):  # of a branch that has not run, perhaps
            return None
        return Rounds(script, self._player, expected), self._bound

    def block_taken(self, step: BranchStep) -> Block | None:
        """See `round_script.Stage`."""
        holds = decided(self.plan, step, self.sizes)
        blocks = step.blocks if holds is None else [step.blocks[0 if holds else 1]]
        for block in blocks:
            try:
                left = self._checks.enter(block, self.sizes)
            except ShapeError as error:
                raise Unplayable from error
            if left:
                raise Unplayable
        return None if holds is None else blocks[0]

    def keep_apart(self, number: int) -> None:
        """See `round_script.Stage`: it has a block."""

    def slots_of(self, number: int) -> Sequence[int]:
        """See `round_script.Stage`."""
        return [
            bound.values.ctypes.data + 8 * int(place)
            for bound in self._bound
            for place in bound.places[bound.numbers == number]
        ]

    def row_of_launches(self, first: int, end: int) -> tuple[Launches | None, int]:
        """See `round_script.Stage`."""
        row = self._row(first, end)
        words = [
            (word, ctype, dim)
            for word, ctype, dim in words_of_sizes(self.plan, row, self.sizes)
            if symbols(dim) & self._free
        ]
        # Arguments that steps overwrite are these instructions' own.
        bound = self._bind(row) if words else self._bound_row(row)
        if bound.tables is None:
            return None, row.end
        self._bound.append(bound)
        first_word = bound.values.ctypes.data
        places = [(first_word + 8 * word, ctype, dim) for word, ctype, dim in words]
        count = len(bound.launches)
        return Launches(bound.tables, 0, count, bound.helpers, places), row.end

    def _room(self, step: LoopStep, turn: Turn) -> int | None:
        """The most steps that may be done before what rows are stacked in has to grow."""
        again = self.plan.steps[step.block.end - 1]
        assert isinstance(again, AgainStep)
        most = turn.limit
        for part in again.rows:
            nbytes = self._nbytes(part.row)
            self._grow(part.whole, turn.row(part), nbytes)
            if nbytes and not part.is_reversed:  # of a Scan the first row is the last of all
                room = self._room_of(part.whole) // nbytes
                most = room if most is None else min(most, room)
        return most

    @abstractmethod
    def _row(self, first: int, end: int) -> Row:
        """The launches that come from step `first` on, before step `end`."""

    @abstractmethod
    def _bind(self, row: Row) -> BoundRow:
        """A row bound to the sizes of the run."""

    @abstractmethod
    def _bound_row(self, row: Row) -> BoundRow:
        """The same, kept for all runs that come to these sizes."""

    @abstractmethod
    def _point_all(self, rows: Sequence[BoundRow]) -> None:
        """Gives launches the addresses that their buffers have in this run, until it is over."""

    @abstractmethod
    def _swap(self, pairs: Sequence[tuple[int, int]]) -> None:
        """Notes that buffers have each other's memory."""

    @abstractmethod
    def _room_of(self, number: int) -> int:
        """The bytes there are for a buffer."""

    @abstractmethod
    def _withdraw(self, numbers: Sequence[int]) -> None:
        """Gives back what buffers have that no step has touched yet."""

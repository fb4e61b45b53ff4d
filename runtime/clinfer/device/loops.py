"""Loops of a plan whose sizes are all bound: the steps of their block, again and again."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from clinfer.errors import ShapeError
from clinfer.lowering.plan import AgainStep, LoopStep, Part
from clinfer.runs import require_wanted

if TYPE_CHECKING:
    from clinfer.device.instance import Instance

Call = Callable[[], None]


class Turn:
    """Where a run is in a loop: the steps done, the most there may be, whether it goes on."""

    __slots__ = ("done", "goes_on", "limit")

    def __init__(self) -> None:
        self.done = 0
        self.limit: int | None = None
        self.goes_on = True

    def begin(self, instance: Instance, step: LoopStep) -> None:
        """Before the first step: what the loop's operands say.

        Raises `ShapeError` where no step runs and what comes after needs one.
        """
        self.done = 0
        self.limit = None if step.limit is None else instance.element(step.limit)
        self.goes_on = step.going is None or bool(instance.element(step.going))
        if step.needs and self.is_over:
            raise ShapeError(step.needs)

    @property
    def is_over(self) -> bool:
        """Whether no step comes any more."""
        return not self.goes_on or (self.limit is not None and self.done >= self.limit)

    def row(self, part: Part) -> int:
        """The row of a part that belongs to the step."""
        if not part.is_reversed:
            return self.done
        assert self.limit is not None, "a Scan knows its number of steps"
        return self.limit - 1 - self.done


def loop_call(instance: Instance, number: int, step: LoopStep) -> Call:
    """What step `number` of the plan, a loop, does in a run."""
    turn = instance.turns[number] = Turn()
    block = step.block
    error = instance.closed.why(block)
    calls = instance.calls(block.first, block.end) if error is None else []
    renew = instance.renewal(block.first, block.end) if error is None else None
    starts = [_copied(instance, of, to) for of, to in step.states]
    parts = [_row_copied(instance, turn, part, is_read=True) for part in step.parts]
    counter = step.counter

    def run() -> None:
        turn.begin(instance, step)
        for start in starts:
            start()
        while not turn.is_over:
            require_wanted()
            if error is not None:
                raise error.with_traceback(None)
            if instance.go_round(number, turn):
                continue
            if renew is not None:
                renew()
            if counter >= 0:
                instance.count(counter, turn.done)
            for part in parts:
                part()
            for call in calls:
                call()
            turn.done += 1

    return run


def again_call(instance: Instance, step: AgainStep) -> Call:
    """What ends a step of a loop."""
    turn = instance.turns[step.loop]
    calls = [_row_copied(instance, turn, part, is_read=False) for part in step.rows]
    calls += [_copied(instance, of, to) for of, to in step.moves]
    goes_on = step.goes_on

    def run() -> None:
        for call in calls:
            call()
        if goes_on is not None:
            turn.goes_on = bool(instance.element(goes_on))

    return run


def _copied(instance: Instance, of: int, to: int) -> Call:
    """What copies a whole buffer, or hands on an object."""
    objects = instance.objects
    if instance.plan.buffers[to].kind == "host":

        def hand_on() -> None:
            objects[to] = objects[of]

        return hand_on
    nbytes = instance.plan.buffers[to].nbytes(instance.sizes)
    copy = instance.copy
    return (lambda: copy(of, to, nbytes)) if nbytes else (lambda: None)


def _row_copied(instance: Instance, turn: Turn, part: Part, is_read: bool) -> Call:
    nbytes = instance.plan.buffers[part.row].nbytes(instance.sizes)
    whole, row, copy = part.whole, part.row, instance.copy

    def read() -> None:
        copy(whole, row, nbytes, turn.row(part) * nbytes)

    def write() -> None:
        copy(row, whole, nbytes, 0, turn.row(part) * nbytes)

    if not nbytes:
        return lambda: None
    return read if is_read else write


def counted(done: int) -> Any:
    """The number of a step as what lies in a counter's buffer."""
    return np.array([done], np.int64)

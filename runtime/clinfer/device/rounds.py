"""The steps of a loop as instructions, of which the player does any number in one call.

`clinfer_kernels/player_rounds.cl` says what each does. They are written for sizes that are known:
where a step reads sizes, instructions compute what it gives as the step would, and go on where it
is what launches and requirements have been bound to. Where it is not, where a position outside its
axis was reported, or a size leaves 64 bits, they are left before that step of the plan, and
whoever has called does the rest of the loop's step as if there were no instructions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np

from clinfer.device.round_script import Launches, Script
from clinfer.runs import require_wanted
from clinfer_kernels.player import (
    ASKED,
    AT,
    GOES_ON,
    GOES_ROUND,
    IS_LOOKING,
    IS_OVER,
    ROUND,
    ROUND_FROM_LAST,
    ROW,
    STOP_ROUND,
    WANTS_HELP,
    WHY,
)

if TYPE_CHECKING:
    from clinfer.device.loops import Turn
    from clinfer.device.player import Player, Words

_ENDLESS = 1 << 62  # steps of a loop without a limit
_LETS_IN, _SENT = 6, 7  # words of a row: whether helpers are let in, how often they were sent


class Rounds:
    """The instructions of one loop.

    `expected` are the symbols that the loop's steps give with what the instructions hold for,
    `buffers` those whose addresses they need.
    """

    def __init__(self, script: Script, player: Player, expected: Mapping[str, int]) -> None:
        self.expected = dict(expected)
        self.buffers = tuple(script.addresses)
        self.swapped: list[tuple[int, int]] = []
        """Pairs of buffers that have each other's memory after the last call."""
        self._exchanged = [(of, to, script.addresses[to]) for of, to in script.exchanged]
        self._read = script.read
        self._registers = np.array(list(script.addresses.values()), np.int64)
        self._numbers = np.array(script.numbers, np.int64)
        self._words = np.array(script.words, np.int64)
        self._rows = script.rows
        self._records = [np.array(_record(row), np.int64) for row in script.rows]
        for word, number in script.plays:
            self._words[word, 1] = self._records[number].ctypes.data
        self._senders = [
            row.helpers.sender(row.first, row.end)
            if row.helpers is not None and row.helpers.may_come
            else None
            for row in script.rows
        ]
        tables = self._words.ctypes.data, 0, 0
        role = (0, 0, 0, GOES_ROUND, self._numbers.ctypes.data)
        self._call = player.caller([*tables, *role])

    def play(self, turn: Turn, stop: int | None, places: Mapping[int, int] | Words) -> int | None:
        """Does steps of the loop, `stop` in all at most, `places` being the buffers' addresses.

        Gives the step of the plan to go on with where one is left in the middle, else None.
        """
        numbers = self._numbers
        numbers[self._registers] = [int(places[number]) for number in self.buffers]
        numbers[[AT, ASKED, GOES_ON]] = 0, 0, 1
        numbers[ROUND] = turn.done
        numbers[STOP_ROUND] = _ENDLESS if stop is None else min(stop, _ENDLESS)
        numbers[ROUND_FROM_LAST] = 0 if turn.limit is None else turn.limit - 1 - turn.done
        self._count_sent()
        try:
            while True:
                self._call()
                why = int(numbers[WHY])
                if why == WANTS_HELP:
                    self._send(int(numbers[ROW]))
                elif why != IS_LOOKING:
                    break
                require_wanted()
        except BaseException:
            for row in self._rows:
                row.tables.settle()
            raise
        self.swapped = [
            (of, to) for of, to, place in self._exchanged if int(numbers[place]) != int(places[to])
        ]
        turn.done = int(numbers[ROUND])
        turn.goes_on = bool(numbers[GOES_ON])
        return None if why == IS_OVER else why

    def read(self, first: int, end: int) -> Iterator[tuple[int, list[int]]]:
        """What steps `first` to `end` - 1 have read sizes from, when one has been left."""
        for step, registers in self._read.items():
            if first <= step < end:
                yield step, [int(self._numbers[register]) for register in registers]

    def _count_sent(self) -> None:
        for record, row in zip(self._records, self._rows, strict=True):
            if row.helpers is not None:
                record[_SENT] = row.helpers.sent
                record[_LETS_IN] = row.helpers.may_come

    def _send(self, number: int) -> None:
        send = self._senders[number]
        assert send is not None, "a row that wants help has helpers"
        send()
        self._count_sent()
        self._numbers[ASKED] = 1


def _record(row: Launches) -> list[int]:
    tables = row.tables
    addresses = [table.ctypes.data for table in (tables.steps, tables.state, tables.clock)]
    return [*addresses, row.first, row.end, tables.threads, row.helpers is not None, 0]

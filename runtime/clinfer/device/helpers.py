"""Who helps the leader of a plan that is played: the driver's threads, or some of this process.

A helper runs a work-group of the player (`clinfer_kernels/player.cl`): it comes when it can, takes
part in the runs that are open, and leaves soon after. The driver's threads are asked through a
queue. In a forked child they are not there; threads of Python take their place.
"""

from __future__ import annotations

import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import numpy as np

from clinfer import forks
from clinfer.device.failures import settle
from clinfer.device.instance import scalar_bytes
from clinfer.device.opencl import cl
from clinfer.errors import DeviceError
from clinfer.log import Log
from clinfer.threads import usable_cores
from clinfer_kernels.player import BEGINS, COME, CROWD_LINES, HELPS, LINE, PRESENT

if TYPE_CHECKING:
    from clinfer.device.player import Player, Tables

_LOG = Log("clinfer.device")
# Helpers sent by all instances, and helpers that have come, a line apart. Only who holds the lock
# changes the first, only helpers the second.
_CROWD = np.zeros(CROWD_LINES * LINE, np.int32)
_SENDING = forks.new_lock()


def helpers_for(player: Player, queue: Any, tables: Tables) -> Helpers:
    """Helpers for the launches of some tables, on a queue; without one on threads of Python."""
    return _OnThreads(tables) if queue is None else _OnQueue(player, queue, tables)


class Helpers(ABC):
    """Calls helpers; they touch the tables after a run, too, and have them kept alive.

    What makes a call of them takes longer than a small model: it is kept, and serves all tables
    that come to lie in the same place.
    """

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._threads = tables.threads
        self._sent = 0
        self._has_failed = False
        self._senders: dict[tuple[int, int], Callable[[int], None]] = {}

    def caller(self, first: int, end: int) -> Callable[[], None] | None:
        """The call that asks for help with launches first .. end - 1; None without helpers."""
        if self._threads == 1:
            return None
        send, groups = self._kept_sender(first, end), self._threads - 1
        crowd = _CROWD.ctypes.data
        begin, state = self._tables.caller(first, end, BEGINS, crowd), self._tables.state

        def call() -> None:
            begin()
            if state[PRESENT] < groups and state[COME] == self._sent:
                self._try(send, groups)

        return call

    @property
    def sent(self) -> int:
        """How often they have been sent."""
        return self._sent

    @property
    def may_come(self) -> bool:
        """Whether it is worth letting them in."""
        return self._threads > 1 and not self._has_failed

    def sender(self, first: int, end: int) -> Callable[[], None]:
        """The call that has helpers come, whether or not they are let in yet."""
        return partial(self._try, self._kept_sender(first, end), self._threads - 1)

    def _kept_sender(self, first: int, end: int) -> Callable[[int], None]:
        if (first, end) not in self._senders:
            self._senders[first, end] = self._sender(first, end)
        return self._senders[first, end]

    def _try(self, send: Callable[[int], None], groups: int) -> None:
        """Has helpers come; where there are none to be had, the leader computes alone."""
        try:
            with _SENDING:
                send(groups)
                _CROWD[0] += groups
                self._sent += 1
        except DeviceError as error:
            if not self._has_failed:  # as text: the error's traceback holds the run's memory
                _LOG.warning("one thread computes alone, for none comes to help: %s", str(error))
            self._has_failed = True

    @abstractmethod
    def _sender(self, first: int, end: int) -> Callable[[int], None]:
        """The call that has so many helpers come."""


class _OnQueue(Helpers):
    """Work-groups on a driver's queue."""

    def __init__(self, player: Player, queue: Any, tables: Tables) -> None:
        super().__init__(tables)
        opencl = cl()
        self._queue = queue
        flags = opencl.mem_flags.READ_WRITE | opencl.mem_flags.USE_HOST_PTR
        arrays = (tables.steps, tables.state, tables.clock)
        self._buffers = [
            opencl.Buffer(queue.context, flags, hostbuf=array.reshape(-1).view(np.uint8))
            for array in arrays
        ]
        self._player = player
        weakref.finalize(self, settle, queue, tables)

    def _sender(self, first: int, end: int) -> Callable[[int], None]:
        kernel = self._player.helper.kernel()
        for index, buffer in enumerate(self._buffers):
            kernel.set_arg(index, buffer)
        numbers = (
            *(("int", x) for x in (first, end, self._threads, HELPS)),
            ("long", _CROWD.ctypes.data),
        )
        for index, (kind, value) in enumerate(numbers, start=len(self._buffers)):
            kernel.set_arg(index, scalar_bytes(kind, value))
        return lambda groups: cl().enqueue_nd_range_kernel(self._queue, kernel, (groups,), (1,))


class _OnThreads(Helpers):
    """Threads of this process; which of them takes which work-group is all the same."""

    def _sender(self, first: int, end: int) -> Callable[[int], None]:
        help_with = self._tables.caller(first, end, HELPS, _CROWD.ctypes.data)

        def send(groups: int) -> None:
            _crew.grow(groups)
            for group in range(groups):
                _crew.tasks.put((help_with, group, self._tables))

        return send


class _Crew:
    """Threads that help whoever asks, at most one for each core but the leader's."""

    def __init__(self) -> None:
        self.tasks: SimpleQueue[tuple[Callable[[int], None], int, Tables]] = SimpleQueue()
        self._count = 0

    def grow(self, wanted: int) -> None:
        """Starts threads, so that there are as many as can be of use."""
        from threading import Thread

        while self._count < min(wanted, usable_cores() - 1):
            try:
                Thread(target=self._work, name="clinfer-helper", daemon=True).start()
            except RuntimeError as error:  # the system gives no more
                raise DeviceError(f"no thread can be started: {error}") from error
            self._count += 1

    def forget(self) -> None:
        """In a forked child: no helper is there, and none is on its way."""
        _CROWD[:] = 0
        self.tasks = SimpleQueue()
        self._count = 0

    def _work(self) -> None:
        while True:
            help_with, group, _tables = self.tasks.get()
            help_with(group)


_crew = _Crew()
forks.before_heirs(_crew.forget)

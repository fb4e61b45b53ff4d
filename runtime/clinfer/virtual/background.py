"""A compile in a thread of its own, which ends when nobody wants it any more."""

from __future__ import annotations

import atexit
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Thread
from typing import TYPE_CHECKING
from weakref import WeakSet

from clinfer import forks
from clinfer.boundary import Signal

if TYPE_CHECKING:
    from clinfer.compiled import CompiledModel
    from clinfer.plugins.base import Step, Watch


_PAUSES, _SECONDS = 10, 0.05


class Unwanted(Signal):
    """Ends a compile that nobody waits for."""


class Wanted:
    """Whether the compile is still wanted: until `drop`, and until the interpreter ends.

    At its end it waits for threads and what they build: a compile must not keep the process.
    """

    def __init__(self) -> None:
        self.is_dropped = False
        self._begin = Event()
        _wanted.add(self)

    def drop(self) -> None:
        self.is_dropped = True
        self._begin.set()

    def begin(self) -> None:
        """The first answer is there."""
        self._begin.set()

    def pause(self) -> None:
        """Waits for the first answer, at most a while: it would share Python's lock with this."""
        for _ in range(_PAUSES):
            if self._begin.wait(_SECONDS) or not threading.main_thread().is_alive():
                break
        _follow_the_end()
        self.require()

    def require(self) -> None:
        """Raises `Unwanted` where it is not."""
        if self.is_dropped:
            raise Unwanted

    def watch(self, told: Watch) -> Watch:
        """A `Watch` that tells another one, and ends the work where it is not wanted."""

        @contextmanager
        def opened(title: str, total: int) -> Iterator[Step]:
            self.require()
            with told(title, total) as step:
                yield _Checked(step, self)

        return opened


_wanted: WeakSet[Wanted] = WeakSet()
_following: list[bool] = []
_following_lock = forks.new_lock()


def _end() -> None:
    for wanted in list(_wanted):
        wanted.drop()


def _follow_the_end() -> None:
    """Has `_end` called when the interpreter begins to end. Raises `Unwanted` where it has.

    `atexit` comes when all threads have been waited for. `concurrent.futures` waits for those that
    build in the same hook of `threading`; the last one registered comes first, so that module is
    loaded before.
    """
    with _following_lock:
        if not _following:
            try:
                import concurrent.futures.thread  # noqa: F401

                getattr(threading, "_register_atexit", atexit.register)(_end)
            except RuntimeError as error:  # it is ending
                raise Unwanted from error
            _following.append(True)


class _Checked:
    def __init__(self, told: Step, wanted: Wanted) -> None:
        self._told = told
        self._wanted = wanted

    def step(self, label: str) -> None:
        self._wanted.require()
        self._told.step(label)


Compile = Callable[[Wanted], "CompiledModel"]
Done = Callable[["CompiledModel | BaseException"], None]


def start(compile_it: Compile, wanted: Wanted, done: Done) -> Thread:
    """Compiles in a thread; `done` gets the model or the error, where it is still wanted.

    Raises `RuntimeError` where no thread can be started.
    """

    def work() -> None:
        try:
            wanted.pause()
            found: CompiledModel | BaseException = compile_it(wanted)
            wanted.require()
        except Unwanted:
            return
        except BaseException as error:
            if wanted.is_dropped:  # what the end of the interpreter does to it is nobody's concern
                return
            found = error
        done(found)

    thread = Thread(target=work, name="clinfer-auto")
    thread.start()
    return thread

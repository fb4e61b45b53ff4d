"""Background runs under way, and the first error of those that are over."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from math import isnan
from threading import Condition
from typing import TYPE_CHECKING, Any

from clinfer.errors import ClinferError, DeviceError, InputError
from clinfer.threads import executor

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

_LONGEST = 1e9
"""Milliseconds: a longer time is more than what threads can wait at once."""


class Job:
    """A background run: its inputs, by position, and what its callback is told."""

    __slots__ = ("is_cancelled", "userdata", "values")

    def __init__(self, values: list[Any], userdata: Any) -> None:
        self.values = values
        self.userdata = userdata
        self.is_cancelled = False

    def require_wanted(self) -> None:
        """Raises `ClinferError` where the run was cancelled, or Ctrl-C has ended the program."""
        if self.is_cancelled or _current.is_interrupted:
            raise ClinferError("the run was cancelled: it has no results")


class _Current(threading.local):
    """The background run that a thread performs."""

    job: Job | None = None
    is_interrupted = False
    """Of the class: whether Ctrl-C has ended the program."""


_current = _Current()


@contextmanager
def performing(job: Job | None) -> Iterator[None]:
    """What this thread does now is done for that background run; None: for others, or for none."""
    before, _current.job = _current.job, job
    try:
        yield
    finally:
        _current.job = before


def require_wanted() -> None:
    """For what may take long, between its steps: as `Job.require_wanted` of this thread's run."""
    job = _current.job
    if job is not None:
        job.require_wanted()


class Runs:
    """Jobs from `begin` to `end`; an error stays until `wait` has raised it. Any thread may ask."""

    def __init__(self) -> None:
        self._changed = Condition()
        self._open: set[Job] = set()  # callbacks included
        self._computing: Job | None = None  # of one that runs alone, until it has its results
        self._error: BaseException | None = None

    def begin(self, job: Job, alone: bool = False) -> None:
        """A job is under way. Raises `ClinferError` where it is `alone` and another computes."""
        with self._changed:
            if alone:
                self.require_idle()
                self._computing = job
            self._open.add(job)

    def computed(self, job: Job) -> None:
        """The job has its results; its callback is to come."""
        with self._changed:
            if self._computing is job:
                self._computing = None

    def end(self, job: Job, error: BaseException | None = None) -> None:
        """The job is over, with its callback."""
        self.computed(job)
        with self._changed:
            self._open.discard(job)
            if self._error is None:
                self._error = error
            self._changed.notify_all()

    def cancel(self) -> None:
        """Marks the jobs under way as cancelled."""
        with self._changed:
            for job in self._open:
                job.is_cancelled = True

    def __contains__(self, job: Job) -> bool:
        return job in self._open

    def require_idle(self) -> None:
        """Raises `ClinferError` while a job that runs alone computes."""
        if self._computing is not None:
            raise ClinferError("the request is still running: call wait() first")

    def require_last(self) -> None:
        """For a callback: raises `ClinferError` where another job is to follow."""
        if len(self._open) > 1:
            raise ClinferError(
                "a callback cannot wait for the run that it has started: that begins when the "
                "callback has ended; wait elsewhere, or in the next run's callback"
            )

    def wait(self, seconds: float | None) -> bool:
        """Returns when no job is under way, or with False when the time is over.

        Raises the first error since it raised the last one.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: not self._open, seconds):
                return False
            error, self._error = self._error, None
        if error is not None:
            raise error
        return True

    def after_fork(self) -> None:
        """In a forked child: what was under way has stayed in the parent, and `wait` says so."""
        self._changed = Condition()
        if self._open and self._error is None:
            self._error = DeviceError(
                "a run was under way when this process was forked, and goes on in the parent only; "
                "start it here again"
            )
        self._open = set()
        self._computing = None


def workers(count: int, name: str) -> ThreadPoolExecutor:
    """Threads for background runs.

    The interpreter waits for them at its end. Where Ctrl-C has ended the program nobody waits for
    results any more: runs end as cancelled ones do. Raises `ClinferError` where it is ending
    already.
    """
    try:
        made = executor(count, name)
        _watch_the_end()
    except (OSError, RuntimeError) as error:
        raise no_thread(error) from error
    return made


@cache
def _watch_the_end() -> None:
    """Once the executor's module is there: what is registered last is called first."""
    register = getattr(threading, "_register_atexit", None)
    if register is not None:
        register(_end)


def _end() -> None:
    if getattr(sys, "last_type", None) is KeyboardInterrupt:  # what has ended the main thread
        _Current.is_interrupted = True


def error_of(action: Callable[[], None]) -> BaseException | None:
    """The error that an action raises, None where it raises none."""
    try:
        action()
    except BaseException as error:
        return error
    return None


def submit(pool: ThreadPoolExecutor, work: Callable[..., None], *arguments: Any) -> None:
    """Has a thread work. Raises `ClinferError` where none can be started."""
    try:
        pool.submit(work, *arguments)
    except RuntimeError as error:
        raise no_thread(error) from error


def no_thread(error: BaseException) -> ClinferError:
    """Says that a run cannot be had in the background."""
    return ClinferError(
        f"no thread can be started for the run: {error}; one that is waited for needs none"
    )


def milliseconds(value: Any) -> float:
    """A time to wait. Raises `InputError` for what is no number."""
    try:
        time = float(value) if not isinstance(value, (str, bytes)) else float("nan")
    except (TypeError, ValueError, OverflowError):
        time = float("nan")
    if isnan(time):
        raise InputError(f"a time to wait is a number of milliseconds; found {value!r}")
    return min(time, _LONGEST)


def callable_or_none(callback: Any) -> Any:
    """What is to be called after a run. Raises `InputError` for what cannot be called."""
    if callback is not None and not callable(callback):
        raise InputError(f"a callback is a function, or None; found {callback!r}")
    return callback

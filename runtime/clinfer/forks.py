"""What a child made by fork has to make new.

A child has the parent's memory, but only the thread that forked. A lock that another thread held
stays held for ever, a thread pool waits for threads that are not there, a driver's queue for the
driver's. So locks come from here, and objects that stand on threads say what becomes of them: in
the child all of that is renewed before anything else runs. No run asks whether there was a fork.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from threading import Lock, RLock
from typing import Any, Protocol
from weakref import WeakSet


class _Heir(Protocol):
    def after_fork(self) -> None:
        """Called in the child, where only the calling thread is left."""


_locks: WeakSet[Any] = WeakSet()
_heirs: WeakSet[_Heir] = WeakSet()
_first: list[Callable[[], None]] = []


def new_lock() -> Lock:
    """A lock that is free in a forked child, whoever held it."""
    made = Lock()
    _locks.add(made)
    return made


def new_rlock() -> Any:
    """As `new_lock`; the thread that holds it may take it again."""
    made = RLock()
    _locks.add(made)
    return made


def inherit(heir: _Heir) -> None:
    """Has `heir.after_fork()` called in every forked child, as long as there is the object."""
    _heirs.add(heir)


def before_heirs(action: Callable[[], None]) -> None:
    """Has an action called in every forked child before any object is renewed."""
    _first.append(action)


def _renew() -> None:
    for lock in list(_locks):
        if not getattr(lock, "_is_owned", bool)():
            lock._at_fork_reinit()  # what the standard library's own modules do
    for action in _first:
        action()
    for heir in list(_heirs):
        heir.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)

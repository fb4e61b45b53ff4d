"""When a driver fails: the error says which device it was, and no memory goes that is still in use.

A call that fails does not end what was queued before it. Kernels and copies may go on, with memory
of this process: results that nobody will see, tables of helpers, inputs. So whoever gives up a
queue settles it first.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from clinfer import forks
from clinfer.boundary import as_ours
from clinfer.device.opencl import cl
from clinfer.errors import ClinferError, DeviceError

if TYPE_CHECKING:
    from clinfer.device.discover import DeviceInfo


@contextmanager
def driver_errors(device: DeviceInfo, doing: str = "") -> Iterator[None]:
    """Errors of the driver with the device's name, and what may help.

    Where it says what is done, only clinfer's errors leave.
    """
    try:
        yield
    except cl().Error as error:
        raise DeviceError(
            f"{device.full_name} failed: {error}; where memory is short, use a smaller model, "
            "smaller inputs or fewer requests"
        ) from error
    except ClinferError:
        raise
    except Exception as error:
        if not doing:
            raise
        raise as_ours(error, f"{doing} on {device.full_name}") from error


class _Unsettled:
    """Queues whose driver did not say that they are done, each with what they may still use."""

    def __init__(self) -> None:
        self._lock = forks.new_lock()
        self._found: list[tuple[Any, Any]] = []
        forks.inherit(self)

    def add(self, queue: Any, kept: Any) -> None:
        with self._lock:
            self._found.append((queue, kept))

    def settle(self) -> None:
        if not self._found:
            return
        with self._lock:
            left, self._found = self._found, []
        try:
            left = [pair for pair in left if not _finishes(pair[0])]
        finally:  # an interrupt ends the waiting: all are asked again
            with self._lock:
                self._found += left

    def after_fork(self) -> None:
        """In a forked child: the queues are the parent's, and so is what they are at."""
        self._found = []


def _finishes(queue: Any) -> bool:
    try:
        queue.wait()
    except DeviceError:
        return False
    return True


_unsettled = _Unsettled()


def settle(queue: Any, kept: Any) -> None:
    """Returns when nothing queued uses `kept` any more; raises nothing.

    Where the driver does not say so, `kept` stays alive until it does: see `settle_others`.
    """
    _unsettled.add(queue, kept)
    _unsettled.settle()


def leave(queue: Any, kept: Any) -> None:
    """As `settle`, of an interrupted run: does not wait now, `settle_others` does."""
    _unsettled.add(queue, kept)


def settle_others() -> None:
    """Asks again for the queues that could not be settled."""
    _unsettled.settle()

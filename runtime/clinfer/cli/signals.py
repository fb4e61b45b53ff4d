"""How a command ends that is interrupted or terminated."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

TERMINATED = 143
_UNTIL_IMPORTED = 0.02  # seconds between two looks whether an import is done


@contextmanager
def terminable() -> Iterator[None]:
    """Ends a command that gets SIGTERM as if it were done, so that it puts away its files.

    After the first Ctrl-C the next one ends the process at once. While a module is imported, an
    interrupt waits until that is done: extension modules (numpy, onnx) abort or fail with another
    error. An error that follows an interrupt is what interrupted code made of it.
    """
    interrupted = False

    def terminate(number: int, frame: FrameType | None) -> None:
        raise SystemExit(TERMINATED)

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal interrupted
        interrupted = True
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        if _imports(frame):
            signal.signal(signal.SIGALRM, interrupt)
            signal.setitimer(signal.ITIMER_REAL, _UNTIL_IMPORTED)
        else:
            raise KeyboardInterrupt

    handlers = {signal.SIGTERM: terminate}
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        handlers[signal.SIGINT] = interrupt
    try:
        before = {number: signal.signal(number, handlers[number]) for number in handlers}
    except ValueError:  # not the main thread, which alone has handlers
        yield
        return
    try:
        yield
    except (KeyboardInterrupt, Exception) as error:
        if not interrupted:
            raise
        before.pop(signal.SIGINT, None)
        raise KeyboardInterrupt from error
    finally:
        if interrupted:
            signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)


def _imports(frame: FrameType | None) -> bool:
    """Whether a module is being imported where the frame is."""
    while frame is not None and not frame.f_code.co_filename.startswith("<frozen importlib"):
        frame = frame.f_back
    return frame is not None

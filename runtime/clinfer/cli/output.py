"""What commands print: lines and tables for people, or one JSON document; progress on stderr."""

from __future__ import annotations

import json
import math
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from threading import Lock
from typing import Any, NamedTuple, Protocol

from clinfer import config


class Progress(Protocol):
    """Told of each finished piece of work."""

    def step(self, label: str) -> None:
        """One more piece is done."""


class _Lines:
    def __init__(self, title: str, total: int) -> None:
        self._title = title
        self._total = total
        self._done = 0
        self._start = time.monotonic()

    def step(self, label: str) -> None:
        self._done += 1
        pace = pace_text(self._done, self._total, time.monotonic() - self._start)
        line = f"{self._title} {self._done}/{self._total}: {label}{pace}"
        print(line, file=sys.stderr, flush=True)


def pace_text(done: int, total: int, seconds: float) -> str:
    """' (2.5/s, 12 s left)'; nothing where all is done or nothing can be said yet."""
    if done >= total or seconds <= 0 or done == 0:
        return ""
    rate = done / seconds
    left = (total - done) / rate
    shown = f"{left:.0f} s" if left < 120 else f"{left / 60:.0f} min"
    return f" ({rate_text(rate)}, {shown} left)"


def rate_text(rate: float) -> str:
    """'2.5/s', '130/s'."""
    return f"{rate:.2g}/s" if rate < 10 else f"{rate:.0f}/s"


class _Line:
    """One line of a terminal, written anew at each step and wiped at the end."""

    def __init__(self, title: str, total: int) -> None:
        self._title = title
        self._total = total
        self._done = 0
        self._lock = Lock()
        self._write(f"{title} 0/{total}")

    def step(self, label: str) -> None:
        with self._lock:
            self._done += 1
            self._write(f"{self._title} {self._done}/{self._total}: {label}")

    def wipe(self) -> None:
        """Leaves the line empty."""
        self._write("")

    def _write(self, text: str) -> None:
        with suppress(OSError, ValueError):
            width = shutil.get_terminal_size().columns - 1
            print(f"\r\x1b[K{text[:width]}", end="", file=sys.stderr, flush=True)


class _Rich:
    def __init__(self, bar: Any, task: Any) -> None:
        self._bar = bar
        self._task = task

    def step(self, label: str) -> None:
        self._bar.update(self._task, advance=1, description=label, refresh=True)


@contextmanager
def progress(title: str, total: int, quiet: bool = False) -> Iterator[Progress]:
    """A bar on a terminal, or one line where rich is not installed; elsewhere a line a step."""
    if quiet:
        yield _Silent()
        return
    if not sys.stderr.isatty():
        yield _Lines(title, total)
        return
    try:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar
    except ImportError:
        line = _Line(title, total)
        try:
            yield line
        finally:
            line.wipe()
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _rate_column(),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        yield _Rich(bar, bar.add_task(title, total=total))


def progress_on_terminal(title: str, total: int) -> AbstractContextManager[Progress]:
    """`progress` of what a command does beside its task, for who sits before it.

    Not among the messages of a log that tells of each step.
    """
    told = config.LOG.get() in ("info", "debug")
    return progress(title, total, quiet=told or not sys.stderr.isatty())


def _rate_column() -> Any:
    from rich.progress import ProgressColumn, Task
    from rich.text import Text

    class Rate(ProgressColumn):
        """How many a second."""

        def render(self, task: Task) -> Text:
            return Text("" if task.speed is None else rate_text(task.speed))

    return Rate()


class _Silent:
    def step(self, label: str) -> None:
        pass


def complain(text: str) -> None:
    """One line on stderr, where somebody takes it."""
    with suppress(OSError, ValueError):
        print(f"clinfer: {' '.join(text.split())}", file=sys.stderr, flush=True)


class Failure(NamedTuple):
    """Why a command did not do its work: the error's class, what it says, the exit code."""

    kind: str
    message: str
    code: int

    @classmethod
    def of_exit(cls, end: SystemExit) -> Failure:
        """Of an end that argparse (its `message` is kept by our parser) or a signal asked for."""
        if not isinstance(end, UsageExit):
            return cls("Terminated", "terminated", int(end.code or 0))
        return cls("UsageError", end.message, USAGE)


USAGE = 2


class UsageExit(SystemExit):
    """The end of a command that was called in a wrong way, which stderr has been told."""

    def __init__(self, message: str) -> None:
        super().__init__(USAGE)
        self.message = message


def fail(given: Sequence[str], failure: Failure, told: bool = False) -> int:
    """The exit code of a command that has failed; says why, unless stderr has been `told`.

    Where its words ask for --json, stdout gets {"error": {"type", "message"}, "exit_code"}.
    """
    if not told:
        complain(failure.message)
    if "--json" in given:
        error = {"type": failure.kind, "message": failure.message}
        with suppress(OSError, ValueError):
            emit_json({"error": error, "exit_code": failure.code})
            sys.stdout.flush()
    return failure.code


def emit_json(document: Any) -> None:
    """One JSON document on stdout; numbers that JSON does not have (NaN, infinities) as null."""
    print(json.dumps(_finite(document), indent=2, default=_plain, allow_nan=False))


def _plain(value: Any) -> Any:
    """What JSON has no word for: NumPy's numbers as numbers, paths and the like as their text."""
    return value.item() if hasattr(value, "item") else str(value)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value


def table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    """Rows in columns, numbers to the right."""
    texts = [[_text(row.get(c, "")) for c in columns] for row in rows]
    widths = [max(len(c), *(len(r[i]) for r in texts), 0) for i, c in enumerate(columns)]
    right = [all(isinstance(row.get(c), (int, float)) for row in rows) for c in columns]
    for cells in ([*columns], *texts):
        padded = [
            cell.rjust(w) if r else cell.ljust(w)
            for cell, w, r in zip(cells, widths, right, strict=True)
        ]
        print("  ".join(padded).rstrip())


def _text(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def size_text(nbytes: float) -> str:
    """Bytes for people: '12.3 MiB'."""
    for unit in ("B", "KiB", "MiB"):
        if nbytes < 1024:
            return f"{nbytes:.0f} {unit}" if unit == "B" else f"{nbytes:.1f} {unit}"
        nbytes /= 1024
    return f"{nbytes:.1f} GiB"


def cache_text(counts: Mapping[str, Any]) -> str:
    """One cache of `Core.cache_statistics` for people: hits, misses by reason, bytes, seconds."""
    place = counts["directory"] or counts["store"] or "CLINFER_CACHE_PATH"
    return (
        f"cache {place}: {counts['hits']} hits ({size_text(counts['bytes_read'])}, "
        f"{counts['seconds_saved']:.2f} s of building saved), "
        f"misses: {_reasons(counts['misses'])}; "
        f"{counts['stored']} stored ({size_text(counts['bytes_written'])}), "
        f"not stored: {_reasons(counts['unstored'])}"
    )


def _reasons(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{number} {reason}" for reason, number in counts.items()) or "0"

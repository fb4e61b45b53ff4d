"""Giving a cache's binaries to their drivers in a child process, where a crash costs nothing.

An intact entry may still hold a binary that a driver crashes on: made by a broken compiler, or on
purpose. The child loads one entry after the other and answers a line for each; where it dies, the
entry it was at is the one, and another child goes on with the rest. Entries of devices that are not
in this machine are passed over.

    python -m clinfer.plugins.probe DIRECTORY    (the child; digests come on its standard input)
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from threading import Timer
from typing import IO

from clinfer.cache.inventory import Problem
from clinfer.cache.stats import Reason
from clinfer.cache.store import Store
from clinfer.errors import ClinferError

SECONDS_PER_ENTRY = 60.0
_KINDS = ("model", "program")


def probe(
    store: Store, *, remove: bool = False, seconds: float = SECONDS_PER_ENTRY
) -> list[Problem]:
    """The entries that their driver refuses, crashes on or takes longer than `seconds` for.

    With `remove` they are removed.
    """
    waiting = [info.digest for info in store.entries() if info.record.kind in _KINDS]
    problems: list[Problem] = []
    while waiting:
        done = 0
        for answer in _answers(store.directory, waiting, seconds):
            if answer:
                problems.append(_problem(store, waiting[done], answer, remove))
            done += 1
        waiting = waiting[max(done, 1) :]
    return problems


def _problem(store: Store, digest: str, detail: str, remove: bool) -> Problem:
    gone = remove and store.remove_file(store.folder.entry(digest))
    return Problem(digest, Reason.REJECTED, detail, gone)


def _answers(directory: Path, digests: Sequence[str], seconds: float) -> Iterator[str]:
    """What a child says of each entry, '' for nothing wrong, up to the first that ends it."""
    child = subprocess.Popen(
        [sys.executable, "-m", "clinfer.plugins.probe", str(directory)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        text=True,
    )
    assert child.stdin is not None
    assert child.stdout is not None
    with child:
        for digest in digests:
            timer = Timer(seconds, child.kill)
            timer.start()
            line = _ask(child.stdin, child.stdout, digest)
            expired = not timer.is_alive()
            timer.cancel()
            if not line:
                yield f"over {seconds:g} s in the driver" if expired else _epitaph(child)
                return
            yield str(json.loads(line))
        child.stdin.close()


def _epitaph(child: subprocess.Popen[str]) -> str:
    """How a child ended whose answers have ended."""
    try:
        return f"the driver died: {child.wait(10.0)}"
    except subprocess.TimeoutExpired:
        child.kill()
        return "the driver closed the program's output"


def _ask(questions: IO[str], answers: IO[str], digest: str) -> str:
    """The child's line on an entry, '' where it has died."""
    try:
        questions.write(f"{digest}\n")
        questions.flush()
    except OSError:
        return ""
    return answers.readline()


def main() -> None:
    """The child: loads each entry, and says what its driver said."""
    store = Store(sys.argv[1], readonly=True)
    answers = os.fdopen(os.dup(1), "w")  # drivers may print to stdout
    os.dup2(2, 1)
    for line in sys.stdin:
        try:
            said = _load(store, line.strip())
        except ClinferError as error:
            said = str(error)
        answers.write(json.dumps(said) + "\n")
        answers.flush()


def _load(store: Store, digest: str) -> str:
    from clinfer.cache.entry import read
    from clinfer.device.discover import list_devices, open_device
    from clinfer.plugins.compiler import device_fields
    from clinfer.plugins.cpu import CpuPlugin
    from clinfer.plugins.gpu import GpuPlugin

    entry = read(store.folder.entry(digest))
    plugin = {"model": CpuPlugin, "program": GpuPlugin}[entry.record.kind]()
    for info in list_devices():
        device = open_device(info.name)
        if all(entry.record.get(name) == value for name, value in device_fields(device).items()):
            plugin.probe(entry, device)
            return ""
    return ""


if __name__ == "__main__":
    main()

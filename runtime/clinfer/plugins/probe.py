"""Giving a cache's binaries to their drivers in a child process, where a crash costs nothing.

An intact entry may still hold a binary that a driver crashes on: made by a broken compiler, or on
purpose. The child opens the devices and says so in a line; then it loads one entry after the other
and answers a line for each. Where it dies, the entry it was at is the one, and another child goes
on with the rest. Entries of devices that are not in this machine are passed over; where the devices
cannot be opened, no entry is to blame.

    python -m clinfer.plugins.probe DIRECTORY    (the child; digests come on its standard input)
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from threading import Event, Timer
from typing import TYPE_CHECKING

from clinfer.cache.inventory import Problem
from clinfer.cache.stats import Reason
from clinfer.cache.store import Store
from clinfer.errors import ClinferError, DeviceError

if TYPE_CHECKING:
    from clinfer.device.discover import Device

SECONDS_PER_ENTRY = 60.0
_KINDS = ("model", "program")


def probe(
    store: Store, *, remove: bool = False, seconds: float = SECONDS_PER_ENTRY
) -> list[Problem]:
    """The entries that their driver refuses, crashes on or takes longer than `seconds` for.

    With `remove` they are removed. Raises DeviceError where the devices here cannot be opened.
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
        trouble, ended = _hear(child, seconds)
        if trouble:
            child.kill()
            raise DeviceError(f"no binary can be tried on the devices here: {trouble}")
        for digest in digests:
            with suppress(OSError):  # then it has died, and does not answer
                child.stdin.write(f"{digest}\n")
                child.stdin.flush()
            said, ended = _hear(child, seconds)
            yield said
            if ended:
                break
        with suppress(OSError):
            child.stdin.close()


def _hear(child: subprocess.Popen[str], seconds: float) -> tuple[str, bool]:
    """The child's next line, or how it ended in that time; and whether it did."""
    assert child.stdout is not None
    expired = Event()

    def end() -> None:
        expired.set()
        child.kill()

    timer = Timer(seconds, end)
    timer.start()
    line = child.stdout.readline()
    timer.cancel()
    if line:
        return str(json.loads(line)), False
    return f"over {seconds:g} s in the driver" if expired.is_set() else _epitaph(child), True


def _epitaph(child: subprocess.Popen[str]) -> str:
    """How a child ended whose answers have ended."""
    try:
        return f"the driver died: {child.wait(10.0)}"
    except subprocess.TimeoutExpired:
        child.kill()
        return "the driver closed the program's output"


def main() -> None:
    """The child: opens the devices, loads each entry, and says what went wrong ('': nothing)."""
    store = Store(sys.argv[1], readonly=True)
    answers = os.fdopen(os.dup(1), "w")  # drivers may print to stdout
    os.dup2(2, 1)
    devices: list[Device] = []

    def answer(work: Callable[[], object]) -> None:
        said = ""
        try:
            work()
        except ClinferError as error:
            said = str(error)
        answers.write(json.dumps(said) + "\n")
        answers.flush()

    answer(lambda: devices.extend(_devices()))
    for line in sys.stdin:
        answer(partial(_load, store, line.strip(), devices))


def _devices() -> list[Device]:
    from clinfer.device.discover import list_devices, open_device

    return [open_device(info.name) for info in list_devices()]


def _load(store: Store, digest: str, devices: Sequence[Device]) -> None:
    """Gives an entry to the device it is for, if that is here."""
    from clinfer.cache.entry import read
    from clinfer.device.cpu_target import TARGETS
    from clinfer.device.processor import flags
    from clinfer.plugins.compiler import device_fields
    from clinfer.plugins.cpu import CpuPlugin
    from clinfer.plugins.gpu import GpuPlugin

    entry = read(store.folder.entry(digest))
    plugin = {"model": CpuPlugin, "program": GpuPlugin}[entry.record.kind]()
    target = TARGETS.get(str(entry.record.get("device")))
    if target is not None:
        if target.needs - flags():
            return  # code for a processor that this one is not
        devices = [device.aimed(target.name) for device in devices]
    for device in devices:
        if all(entry.record.get(name) == value for name, value in device_fields(device).items()):
            plugin.probe(entry, device)
            return


if __name__ == "__main__":
    main()

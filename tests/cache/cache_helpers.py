"""Records, entries and children for the tests of the cache."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from clinfer.cache import KeyRecord, Store
from clocks import LIMIT

posix_only = pytest.mark.skipif(os.name == "nt", reason="needs POSIX")
NOBODY = 65534


def program_record(number: int = 0, **changes: str | int | bool) -> KeyRecord:
    """A key like that of a program; equal numbers and changes give equal keys."""
    fields: dict[str, str | int | bool] = {
        "format": 1,
        "source": f"{number:064x}",
        "options": "-cl-std=CL1.2",
        "device": "Some Device",
        "driver": "1.2.3",
    }
    fields.update(changes)
    return KeyRecord.make("program", fields.items())


def noise(size: int, seed: int = 0) -> bytes:
    """`size` bytes, the same for the same seed."""
    return random.Random(seed).randbytes(size)


def only_file(store: Store) -> Path:
    """The file of the only entry in a store."""
    files = [path for path in (store.directory / "entries").rglob("*") if path.is_file()]
    assert len(files) == 1
    return files[0]


def in_child(body: Callable[[], bool]) -> bool:
    """Runs `body` in a forked child, which may then give up rights or limits for good."""
    child = os.fork()
    if child == 0:
        result = 2
        try:
            result = 0 if body() else 1
        finally:
            os._exit(result)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status) == 0


def run_python(code: str, *arguments: str, **environment: str) -> str:
    """What a fresh interpreter prints."""
    paths = [path for path in sys.path if path]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), **environment},
        capture_output=True,
        text=True,
        check=True,
        timeout=LIMIT,
    )
    return done.stdout

"""Ctrl-C in the middle of a build: quiet, nothing half written, and the next run works."""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cli.conftest import DIGITS, child, child_environment
from clinfer.cli.signals import terminable
from clocks import LIMIT


def interrupted(command: list[object], drivers: Path, watched: Path) -> tuple[int, str]:
    """Starts a command, sends SIGINT to its group when a file is in `watched`: code, stderr."""
    drivers.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-m", "clinfer", *map(str, command)],
        env=child_environment(POCL_CACHE_DIR=str(drivers), CLINFER_COMPILE_JOBS="1"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    end = time.monotonic() + LIMIT
    while process.poll() is None and time.monotonic() < end and not _has_file(watched):
        time.sleep(0.02)
    assert process.poll() is None, "it ended before anything was compiled"
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=LIMIT)
    return process.returncode, said


# What a shell shows as 130: the exit code, or an end by the signal itself, which CPython may put in
# its place when it ends.
STOPPED = (130, -signal.SIGINT)


def _has_file(folder: Path) -> bool:
    return any(path.is_file() for path in folder.rglob("*"))


def test_compile_leaves_no_file(tmp_path):
    command = [
        "compile",
        DIGITS,
        "--device",
        "CPU",
        "--no-cache",
        "-o",
        tmp_path / "out" / "digits.blob",
    ]
    (tmp_path / "out").mkdir()
    code, said = interrupted(command, tmp_path / "drivers", tmp_path / "drivers")
    assert code in STOPPED
    assert said == "clinfer: interrupted\n"
    assert list((tmp_path / "out").iterdir()) == []


def test_warm_leaves_no_damaged_entry_and_goes_on(tmp_path):
    cache = tmp_path / "cache"
    command = ["warm", DIGITS, "--device", "CPU", "--cache-dir", cache]
    code, said = interrupted(command, tmp_path / "drivers", cache / "memos")
    assert code in STOPPED
    assert "Traceback" not in said
    assert "clinfer: interrupted" in said
    assert child("cache", "verify", cache).returncode == 0
    assert child(*command).returncode == 0
    done = child("run", DIGITS, "--device", "CPU", "--cache-dir", cache, "--json")
    report = json.loads(done.stdout)
    assert report["loaded_from_cache"]
    assert report["accuracy"] >= 0.95


@pytest.mark.usefixtures("handled")
def test_an_interrupt_waits_for_a_module_that_is_being_imported(tmp_path, monkeypatch):
    """numpy turns one into an ImportError, onnx aborts."""
    (tmp_path / "slow_to_import.py").write_text(
        "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\ndone = True\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    imported = None
    with pytest.raises(KeyboardInterrupt), terminable():
        imported = importlib.import_module("slow_to_import")
        while True:
            time.sleep(1)
    assert imported.done


@pytest.mark.usefixtures("handled")
def test_an_error_after_an_interrupt_is_an_interrupt():
    with pytest.raises(KeyboardInterrupt), terminable():
        try:
            os.kill(os.getpid(), signal.SIGINT)
        except KeyboardInterrupt:
            raise RuntimeError("a worker died") from None

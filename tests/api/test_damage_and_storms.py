"""Samples of the long checks in tools/: bits flipped in entries, and processes that are killed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from clocks import LIMIT

TOOLS = Path(__file__).parent.parent.parent / "tools"


def run(*command: object) -> str:
    paths = {"PYTHONPATH": ":".join(path for path in sys.path if path)}
    done = subprocess.run(
        [sys.executable, *map(str, command)],
        env={**os.environ, **paths},
        capture_output=True,
        text=True,
        check=False,
        timeout=LIMIT,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_no_flipped_bit_changes_an_answer(device) -> None:
    """Each flip is found, the answer keeps its bits, `import_model` refuses the blob."""
    said = run(TOOLS / "bitflips.py", "--device", device, "--flips", 25)
    assert said.startswith(f"{device}: 25 flips, 0 wrong answers, 0 flips not noticed")


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs Linux's /proc")
def test_killed_processes_leave_right_answers_and_no_damage(device) -> None:
    """No damaged entry, no orphaned build worker, nothing built three times."""
    options = ("--device", device, "--processes", 6, "--rounds", 1)
    assert "0 faults" in run(TOOLS / "cache_storm.py", *options)

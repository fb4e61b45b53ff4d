"""What clinfer says on standard error, and when."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

_PROGRAM = """
import clinfer
from clinfer.log import Log
core = clinfer.Core()
{before}
log = Log("clinfer.device")
log.debug("one %d", 1)
log.info("two")
log.warning("three %s", "words")
"""


def written(level: str | None, before: str = "") -> list[str]:
    environment = {k: v for k, v in os.environ.items() if k != "CLINFER_LOG"}
    if level is not None:
        environment["CLINFER_LOG"] = level
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM.format(before=before)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return done.stderr.splitlines()


@pytest.mark.parametrize(
    ("level", "texts"),
    [
        (None, ["three words"]),
        ("debug", ["one 1", "two", "three words"]),
        ("info", ["two", "three words"]),
        ("error", []),
        ("off", []),
    ],
)
def test_messages_follow_the_level(level, texts):
    assert [line.rpartition(": ")[2] for line in written(level)] == texts


def test_the_users_own_logging_is_left_as_it_is():
    lines = written(None, "import logging; logging.basicConfig(format='MINE %(message)s')")
    assert lines == ["MINE three words"]

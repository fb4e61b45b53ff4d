"""Programs built once for all tests: the processes of a run of the suite share what they compile.

A program of the same text, for the same device and kind of process, is compiled by the first test
that needs it (`tools/shared_builds.py`). Tests that are about the compiler's processes themselves
ask for the fixture `own_programs` (see conftest.py). Schedules of GPUs are compiled as
`platforms.options` says. Commands that tests start are processes of
their own and compile what they need.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import platforms
from clinfer.device import workers
from clinfer.device.programs import SourceProgram
from shared_builds import Built, looking_up

_BUILD = workers.Pool.build
_START = workers._START


class Folder:
    """Binaries as files; an error is not kept."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def get(self, key: str, /) -> bytes | None:
        """None where no test has compiled it."""
        try:
            return (self._path / key).read_bytes()
        except FileNotFoundError:
            return None

    def __setitem__(self, key: str, made: Built, /) -> None:
        """Whole at once, whoever reads meanwhile."""
        if isinstance(made, bytes):
            scratch = self._path / f"{key}.{os.getpid()}"
            scratch.write_bytes(made)
            scratch.replace(self._path / key)


def install(path: Path) -> None:
    """Shares the programs that this process builds from now on."""
    sharing = looking_up(Folder(path), _BUILD)

    def build(pool: workers.Pool, sources: Sequence[SourceProgram], *args: Any) -> list[Built]:
        own = workers._START != _START  # a test has put another compiler in its place
        if own:
            return _BUILD(pool, sources, *args)
        return sharing(pool, [_as_tests_have_it(source) for source in sources], *args)

    workers.Pool.build = build  # type: ignore[method-assign, assignment]


def _as_tests_have_it(source: SourceProgram) -> SourceProgram:
    more = platforms.options(source.group)
    return source._replace(options=" ".join([source.options, *more])) if more else source


def uninstall() -> None:
    """Compiles everything again."""
    workers.Pool.build = _BUILD  # type: ignore[method-assign]

"""Programs built once for all tests: the processes of a run of the suite share what they compile.

`install(folder)` puts a look-up in front of `workers.Pool.build`: a program of the same text, for
the same device and kind of process, is compiled by the first test that needs it. Callers see no
difference but the time. Tests that are about the compiler's processes themselves ask for the
fixture `own_programs` (see conftest.py). Commands that tests start are processes of their own and
compile what they need.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path

from clinfer.device import workers
from clinfer.device.programs import SourceProgram
from clinfer.errors import BuildError

_BUILD = workers.Pool.build
_START = workers._START


def install(folder: Path) -> None:
    """Shares the programs that this process builds from now on."""

    def build(
        self: workers.Pool,
        sources: Sequence[SourceProgram],
        jobs: int,
        progress: Callable[[str], None] | None,
        seconds: float,
        done: workers.Done | None = None,
        wanted: workers.Wanted = lambda _: True,
    ) -> list[bytes | BuildError]:
        if workers._START != _START:  # a test has put another compiler in its place
            return _BUILD(self, sources, jobs, progress, seconds, done, wanted)
        paths = [folder / _key(self, source) for source in sources]
        results: dict[int, bytes | BuildError] = {}
        missing = []
        for index, path in enumerate(paths):
            try:
                binary = path.read_bytes()
            except FileNotFoundError:
                missing.append(index)
                continue
            if wanted(index):
                results[index] = binary
                if done is not None:
                    done(index, binary, 0.0)
                if progress is not None:
                    progress(sources[index].entry)

        def built(place: int, made: bytes | BuildError, took: float) -> None:
            index = missing[place]
            results[index] = made
            if isinstance(made, bytes):
                _store(paths[index], made)
            if done is not None:
                done(index, made, took)

        if missing:
            texts = [sources[index] for index in missing]
            asked = min(jobs, len(missing))
            _BUILD(self, texts, asked, progress, seconds, built, lambda i: wanted(missing[i]))
        return [results[index] for index in sorted(results)]

    workers.Pool.build = build  # type: ignore[method-assign]


def uninstall() -> None:
    """Compiles everything again."""
    workers.Pool.build = _BUILD  # type: ignore[method-assign]


def _key(pool: workers.Pool, source: SourceProgram) -> str:
    parts = [pool._place, pool._one_group, source._asdict()]
    return sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _store(path: Path, binary: bytes) -> None:
    scratch = path.with_suffix(f".{os.getpid()}")
    scratch.write_bytes(binary)
    scratch.replace(path)

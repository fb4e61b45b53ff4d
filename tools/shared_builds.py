"""Programs that are built once, for tests that compile the same ones again and again.

`looking_up` puts a look-up in front of `workers.Pool.build`; callers see no difference but the
time. `tests/shared_programs.py` does so for a whole run of the suite.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from typing import Protocol
from unittest import mock

from clinfer.device import programs, workers
from clinfer.device.sources import SourceProgram
from clinfer.errors import BuildError

Built = bytes | BuildError
Binaries = dict[str, Built]
"""What was built, by the key of the program, for one device and kind of process."""
Build = Callable[..., list[Built]]


class Known(Protocol):
    """Where what was built is found."""

    def get(self, key: str, /) -> Built | None:
        """None where it is not known."""

    def __setitem__(self, key: str, made: Built, /) -> None:
        """Keeps it."""


def looking_up(known: Known, build: Build) -> Build:
    """`build`, which is `Pool.build`, for those programs only that are not known."""

    def built(
        pool: workers.Pool,
        sources: Sequence[SourceProgram],
        jobs: int,
        progress: Callable[[str], None] | None,
        seconds: float,
        done: workers.Done | None = None,
        wanted: workers.Wanted = lambda _: True,
    ) -> list[Built]:
        results: dict[int, Built] = {}
        missing = []
        for index, source in enumerate(sources):
            found = known.get(_key(pool, source))
            if found is None:
                missing.append(index)
            elif wanted(index):
                results[index] = found
                if done is not None:
                    done(index, found, 0.0)
                if progress is not None:
                    progress(source.entry)

        def told(place: int, made: Built, took: float) -> None:
            index = missing[place]
            results[index] = made
            known[_key(pool, sources[index])] = made
            if done is not None:
                done(index, made, took)

        if missing:
            texts = [sources[index] for index in missing]
            asked = min(jobs, len(missing))
            build(pool, texts, asked, progress, seconds, told, lambda i: wanted(missing[i]))
        return [results[index] for index in sorted(results)]

    return built


@contextmanager
def shared(binaries: Binaries) -> Iterator[None]:
    """In the block, build processes get those sources only that they have not had."""
    with (
        mock.patch.object(workers.Pool, "build", looking_up(binaries, workers.Pool.build)),
        mock.patch.object(programs, "prepare", lambda *_: None),
    ):
        yield


def _key(pool: workers.Pool, source: SourceProgram) -> str:
    parts = [pool._place, pool._one_group, source._asdict()]
    return sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

"""Programs that are built once, for tests that compile the same ones again and again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest import mock

from clinfer.device import programs, workers
from clinfer.device.sources import SourceProgram

Binaries = dict[Any, Any]
"""What a source was built to, or the error."""


@contextmanager
def shared(binaries: Binaries) -> Iterator[None]:
    """In the block, build processes get those sources only that they have not had."""
    build = workers.Pool.build

    def built(
        pool: workers.Pool,
        sources: Sequence[SourceProgram],
        jobs: int,
        progress: Callable[[str], None] | None,
        seconds: float,
        done: workers.Done | None = None,
    ) -> list[Any]:
        new = [source for source in dict.fromkeys(sources) if source not in binaries]
        if new:
            found = build(pool, new, min(jobs, len(new)), progress, seconds)
            binaries.update(zip(new, found, strict=True))
        results = [binaries[source] for source in sources]
        for index, result in enumerate(results):
            if done is not None:
                done(index, result, 0.0)
        return results

    with (
        mock.patch.object(workers.Pool, "build", built),
        mock.patch.object(programs, "prepare", lambda *_: None),
    ):
        yield

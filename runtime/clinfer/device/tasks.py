"""The order in which build workers take programs."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from threading import Lock


class Tasks:
    """Programs dealt out to workers, of which each can build one kind after another.

    A worker stays with its kind while there is some of it left: changing costs a new process. It
    then goes where most is left for each worker that is there. Long programs come first, so that
    none of them ends alone.
    """

    def __init__(self, kinds: Sequence[Hashable], lengths: Sequence[int]) -> None:
        self._lock = Lock()
        self._lengths = lengths
        self._workers: dict[Hashable, int] = dict.fromkeys(kinds, 0)
        self._left: dict[Hashable, list[int]] = {kind: [] for kind in kinds}
        for index in sorted(range(len(lengths)), key=lambda i: (lengths[i], -i)):
            self._left[kinds[index]].append(index)

    def take(self, kind: Hashable | None) -> int | None:
        """The next program for a worker that was last at that kind; None when all are taken."""
        with self._lock:
            if not self._left.get(kind):
                if kind is not None:
                    self._workers[kind] -= 1
                kind = max(self._left, key=self._need)
                if not self._left[kind]:
                    return None
                self._workers[kind] += 1
            return self._left[kind].pop()

    def stop(self) -> None:
        """Nothing more is to be taken."""
        with self._lock:
            for left in self._left.values():
                left.clear()

    def _need(self, kind: Hashable) -> float:
        work = sum(self._lengths[index] + 1 for index in self._left[kind])
        return work / (self._workers[kind] + 1)

"""`enable_profiling`: the steps of all runs, in a file of ONNX Runtime's form."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clinfer.device.profile import StepTime

_MOST = 1_000_000
"""Events that are kept; later ones are not."""


class Profile:
    """Steps of runs since the session began. Times in the file are microseconds since then."""

    def __init__(self, prefix: str, provider: str) -> None:
        self.start_ns = time.monotonic_ns()
        self._prefix = prefix
        self._provider = provider
        self._events: list[dict[str, Any]] = []

    def add(self, steps: Sequence[StepTime], began_ns: int) -> None:
        """One run that began at a time of `time.monotonic_ns`, and has just ended."""
        if len(self._events) >= _MOST:
            return
        begin = (began_ns - self.start_ns) / 1e3
        taken = (time.monotonic_ns() - began_ns) / 1e3
        self._events += [self._step(step, begin) for step in steps]
        self._events.append(_event("Session", "model_run", begin, taken, {}))

    def write(self) -> str:
        """Writes what there is; the file's name."""
        moment = time.strftime("%Y-%m-%d_%H-%M-%S")
        path = f"{self._prefix}_{moment}_{self.start_ns // 1_000_000 % 1000:03}.json"
        Path(path).write_text(json.dumps(self._events, indent=0))
        return path

    def _step(self, step: StepTime, begin: float) -> dict[str, Any]:
        details = {"op_name": step.label, "provider": self._provider, "kernel": step.kernel}
        start, taken = begin + step.start * 1e6, step.seconds * 1e6
        return _event("Node", f"{step.label}_kernel_time", start, taken, details)


def _event(
    kind: str, name: str, start: float, taken: float, details: dict[str, str]
) -> dict[str, Any]:
    return {
        "cat": kind,
        "pid": os.getpid(),
        "tid": os.getpid(),
        "dur": round(taken),
        "ts": round(start),
        "ph": "X",
        "name": name,
        "args": details,
    }

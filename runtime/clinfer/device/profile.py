"""How long each step of an inference took."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from clinfer.lowering.binding import BoundLaunch

if TYPE_CHECKING:
    from clinfer.device.instance import Instance
    from clinfer.lowering.plan import HostStep


@dataclass(frozen=True)
class StepTime:
    """One launch or host step. Times in seconds; `start` counts from the first step's start.

    `label` names the graph nodes; `kernel` the program's entry, '' for a host step. `flops` counts
    multiplications and additions, `nbytes` the sizes of the buffers it touches, each once.
    `problem` is the digest of tuning data, '' for a host step or a model from the cache.
    """

    label: str
    kernel: str
    start: float
    seconds: float
    flops: int
    nbytes: int
    problem: str = ""

    @property
    def gflops(self) -> float:
        """10^9 operations per second."""
        return self.flops / self.seconds / 1e9 if self.seconds else 0.0

    @property
    def gigabytes(self) -> float:
        """10^9 bytes per second."""
        return self.nbytes / self.seconds / 1e9 if self.seconds else 0.0


def step_times(instance: Instance) -> tuple[StepTime, ...]:
    """The steps of the instance's last run, in a session that profiles."""
    timings = instance.timings()
    begin = timings[0][1] if timings else 0.0
    return tuple(
        _step_time(instance, what, start - begin, seconds) for what, start, seconds in timings
    )


def _step_time(
    instance: Instance, what: BoundLaunch | HostStep, start: float, seconds: float
) -> StepTime:
    if not isinstance(what, BoundLaunch):
        return StepTime(what.label, "", start, seconds, 0, 0)
    kernel = instance.plan.programs[what.program].entry
    nbytes = _bytes(instance, what)
    return StepTime(what.label, kernel, start, seconds, what.flops, nbytes, what.problem)


def _bytes(instance: Instance, launch: BoundLaunch) -> int:
    numbers = {value for kind, value in launch.args if kind == "buffer"}
    return sum(instance.plan.buffers[n].nbytes(instance.sizes) for n in numbers)


def trace(steps: tuple[StepTime, ...], name: str) -> dict[str, Any]:
    """The steps as a Chrome trace (Trace Event Format), which Perfetto opens."""
    events: list[dict[str, Any]] = [
        {"ph": "M", "pid": 1, "name": "process_name", "args": {"name": name}}
    ]
    events += [_event(step) for step in steps]
    return {"traceEvents": events, "displayTimeUnit": "ms"}


def _event(step: StepTime) -> dict[str, Any]:
    """A complete event; times in microseconds, launches and host steps on a track each."""
    return {
        "ph": "X",
        "pid": 1,
        "tid": 1 if step.kernel else 2,
        "name": step.kernel or step.label,
        "ts": step.start * 1e6,
        "dur": step.seconds * 1e6,
        "args": {
            "computes": step.label,
            "GFLOP/s": round(step.gflops, 1),
            "GB/s": round(step.gigabytes, 1),
        },
    }

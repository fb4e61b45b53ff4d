"""How long each step of an inference took, from the driver's event timestamps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from clinfer.lowering.binding import BoundLaunch

if TYPE_CHECKING:
    from clinfer.device.executor import Instance


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
    """The steps of the instance's last run, on a queue with profiling enabled.

    Host steps have the host's clock, so their start is set to the end of the launch before them.
    """
    found: list[StepTime] = []
    begin: int | None = None
    end = 0.0
    for what, mark in instance.events:
        if isinstance(what, BoundLaunch):
            begin = mark.profile.start if begin is None else begin
            start = (mark.profile.start - begin) * 1e-9
            seconds = (mark.profile.end - mark.profile.start) * 1e-9
            kernel = instance.plan.programs[what.program].entry
            nbytes = _bytes(instance, what)
            found.append(
                StepTime(what.label, kernel, start, seconds, what.flops, nbytes, what.problem)
            )
        else:
            found.append(StepTime(what.label, "", end, mark[1] - mark[0], 0, 0))
        end = found[-1].start + found[-1].seconds
    return tuple(found)


def _bytes(instance: Instance, launch: BoundLaunch) -> int:
    numbers = {value for kind, value in launch.args if kind == "buffer"}
    return sum(instance.sizes(instance.plan.buffers[n].nbytes) for n in numbers)


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

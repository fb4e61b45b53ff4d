"""`ProfilingInfo`: one step's time, in OpenVINO's words."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from enum import IntEnum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from clinfer.device.profile import StepTime
    from clinfer.lowering.plan import Plan


class Status(IntEnum):
    """Whether a step was run and measured."""

    NOT_RUN = 0
    OPTIMIZED_OUT = 1
    EXECUTED = 2


class _Row(NamedTuple):
    node_name: str
    node_type: str
    exec_type: str
    real_time: timedelta
    cpu_time: timedelta
    status: Status


class ProfilingInfo(_Row):
    """A launch or host step: the nodes it computes, its kernel, its time."""

    __slots__ = ()

    Status = Status
    NOT_RUN = Status.NOT_RUN
    OPTIMIZED_OUT = Status.OPTIMIZED_OUT
    EXECUTED = Status.EXECUTED


def measured(steps: tuple[StepTime, ...]) -> list[ProfilingInfo]:
    """The steps of a run that was measured."""
    return [_row(s.label, s.kernel, s.seconds, Status.EXECUTED) for s in steps]


def unmeasured(plans: Sequence[Plan]) -> list[ProfilingInfo]:
    """The steps of plans, without times."""
    launches = [(s.label, p.programs[s.program].entry) for p in plans for s in p.launches]
    hosts = [(s.label, "") for p in plans for s in p.host_steps]
    return [_row(label, kernel, 0.0, Status.NOT_RUN) for label, kernel in (*launches, *hosts)]


def _row(label: str, kernel: str, seconds: float, status: Status) -> ProfilingInfo:
    kind = label.split(" ", 1)[0]
    time = timedelta(seconds=seconds)
    return ProfilingInfo(label, kind, kernel or "host", time, time, status)

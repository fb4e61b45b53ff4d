"""What a device reaches at best, measured on it the way plans run there."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from clinfer.device.discover import Device
from clinfer.device.executor import LoadedPlan
from clinfer.lowering.plan import Array, Buffer, LaunchStep, Plan, PlanArg, PlanPort, Program
from clinfer.plugins.base import Request
from clinfer.plugins.compiler import plays, with_player
from clinfer.plugins.programs import build_and_store
from clinfer.properties import COMPILATION_NUM_THREADS
from clinfer_kernels.dims import evaluate
from clinfer_kernels.peaks import copy, fma_loop
from clinfer_kernels.spec import Kernel

COPIED = 2**24
"""float32 elements that are copied: 64 MiB, more than caches hold."""
_ROUNDS = 2000
_RUNS = 12


class Peaks(NamedTuple):
    """10^9 float32 operations per second of an FMA loop; 10^9 bytes per second of a copy.

    What the copy reads and what it writes are both counted.
    """

    gflops: float
    gigabytes: float

    def share(self, flops: int, nbytes: int, seconds: float) -> tuple[float, str]:
        """How near a kernel comes to the roof it is nearer to, and which: 'FMA' or 'copy'."""
        if not seconds:
            return 0.0, "copy"
        computing = flops / seconds / 1e9 / self.gflops
        moving = nbytes / seconds / 1e9 / self.gigabytes
        return max((computing, "FMA"), (moving, "copy"))


class Roofs:
    """The two kernels of a device, ready to be measured as often as one likes.

    Raises `BuildError` and `DeviceError` as a model's kernels do.
    """

    def __init__(self, device: Device) -> None:
        count = min(COPIED, device.info.max_alloc // 16)
        self._loop = fma_loop(device.target, _ROUNDS)
        items = int(evaluate(self._loop.launches[0].global_size[0], {}))
        self._sessions = [
            _loaded(device, self._loop, 0, items).session(profiling=True),
            _loaded(device, copy(device.target, count), count, count).session(profiling=True),
        ]
        self._source = np.ones(count, np.float32)
        self._best = [float("inf"), float("inf")]

    def measure(self) -> Peaks:
        """The best that has been seen so far, after a few runs more."""
        inputs: list[list[Array]] = [[], [self._source]]
        for index, session in enumerate(self._sessions):
            for _ in range(_RUNS):
                session.run(inputs[index])
                seconds = sum(step.seconds for step in session.profile)
                self._best[index] = min(self._best[index], seconds)
        flops = evaluate(self._loop.flops, {})
        loop, moved = self._best
        return Peaks(flops / loop / 1e9, 2 * self._source.nbytes / moved / 1e9)


def _loaded(device: Device, kernel: Kernel, inputs: int, outputs: int) -> LoadedPlan:
    """A plan of that one launch, with an input of so many elements (0: none) and an output."""
    (launch,) = kernel.launches
    numbers = {"in": 0, "out": 1 if inputs else 0}
    args = tuple(
        PlanArg("buffer", numbers[arg.kind])
        if arg.kind in numbers
        else PlanArg(arg.kind, value=arg.value, ctype=arg.ctype)
        for arg in launch.args
    )
    source = (Buffer("input", "float32", inputs),) if inputs else ()
    result = Buffer("output", "float32", outputs)
    step = LaunchStep(0, args, launch.global_size, launch.local_size, launch.entry, kernel.flops)
    plan = Plan(
        (PlanPort("x", "float32", (inputs,), 0),) if inputs else (),
        (PlanPort("y", "float32", (outputs,), numbers["out"]),),
        (*source, result),
        (Program(launch.entry, launch.source, launch.options, launch.local_size),),
        (step,),
        (),
    )
    if plays(plan, device):
        plan = with_player(plan, device.target)
    request = Request(device, {COMPILATION_NUM_THREADS: 0}, None)
    return LoadedPlan(device, plan, build_and_store(plan.programs, request))

"""Runs a plan: weights on the device, a session for each request.

LoadedPlan   one per compiled model: programs and weights, shared by all requests
Session      one per request: a queue, and an `Instance` for each set of input shapes
Instance     buffers and arguments, ready to replay: `PlayedInstance` where the plan has a player,
             `QueueInstance` where each step is enqueued
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np

from clinfer.device.hoststep import HostRunner
from clinfer.device.instance import Instance, bytes_of
from clinfer.device.opencl import cl as opencl
from clinfer.device.played_instance import PlayedInstance
from clinfer.device.player import Player
from clinfer.device.processor import usable_cores
from clinfer.device.queue_instance import LateInstance, QueueInstance
from clinfer.errors import DeviceError
from clinfer.lowering.binding import Sizes, bind_inputs
from clinfer.lowering.plan import Plan

if TYPE_CHECKING:
    from clinfer.device.discover import Device
    from clinfer.device.profile import StepTime
    from clinfer.device.programs import BuiltProgram

_INSTANCES_PER_SESSION = 8
_QUEUES = 4


class LoadedPlan:
    """A plan with its programs and weights on a device. Safe to share between threads."""

    def __init__(self, device: Device, plan: Plan, programs: Sequence[BuiltProgram]) -> None:
        """Raises `BuildError` where the driver refuses one of the programs it is needed for."""
        self.device = device
        self.plan = plan
        self.programs = list(programs)
        self._host = HostRunner(plan)
        self.player = Player.of(plan, self.programs)
        for program in self.programs if self.player is None else [self.player.helper]:
            program.ready()
        if self.player is None:
            with _driver_errors(device):
                _ = self.weights

    @cached_property
    def weights(self) -> dict[int, Any]:
        """The driver's buffers of constants, by the plan's numbers of buffers."""
        flags = opencl().mem_flags
        in_place = self.device.shares_host_memory
        use = flags.READ_ONLY | (flags.USE_HOST_PTR if in_place else flags.COPY_HOST_PTR)
        found: dict[int, Any] = {}
        for number, buffer in enumerate(self.plan.buffers):
            if buffer.kind == "const":
                content = bytes_of(self.plan.constants[buffer.constant])
                found[number] = opencl().Buffer(self.device.context, use, hostbuf=content)
        return found

    @property
    def host(self) -> HostRunner:
        return self._host

    def session(self, profiling: bool = False, streams: int = 1, threads: int = 0) -> Session:
        """A new request's own queue and buffers; `profiling` keeps the time of every step.

        `streams` is how many requests are meant to run at a time: one gets that share of the cores,
        or of `threads` of them.
        """
        with _driver_errors(self.device):
            return Session(self, profiling, max(self._cores(threads) // streams, 1))

    def most_streams(self, threads: int = 0) -> int:
        """How many requests side by side give the most inferences per second.

        With the player a core each, of `threads` cores at most: nothing is lost to waiting. Else a
        few queues, so that the device has the next launch when one ends.
        """
        return self._cores(threads) if self.player is not None else _QUEUES

    def keeps_to(self, threads: int) -> bool:
        """Whether no more than so many cores (0: all) are used: drivers' queues use every core."""
        return self.player is not None or self._cores(threads) == self._cores(0)

    def _cores(self, most: int) -> int:
        cores = min(self.device.info.compute_units, usable_cores())
        return min(cores, most) if most else cores


class Session:
    """Runs one request at a time on its own queue."""

    def __init__(self, loaded: LoadedPlan, profiling: bool, threads: int) -> None:
        self.loaded = loaded
        self._threads = threads
        self.queue = loaded.device.new_queue(profiling)
        self.profile: tuple[StepTime, ...] = ()
        self._profiling = profiling
        self._instances: OrderedDict[tuple[Any, ...], Instance] = OrderedDict()
        self._lock = Lock()

    def run(self, inputs: Sequence[Any]) -> list[Any]:
        """One inference: inputs by position (arrays of the plan's dtypes, or host objects).

        Raises `InputError` and `ShapeError` for shapes that do not fit, `DeviceError` where the
        driver fails.
        """
        with self._lock:
            with _driver_errors(self.loaded.device):
                instance = self._instance(inputs)
                results = instance.run(inputs)
            if self._profiling:
                from clinfer.device.profile import step_times

                self.profile = step_times(instance)
            return results

    def _instance(self, inputs: Sequence[Any]) -> Instance:
        shapes = tuple(x.shape if isinstance(x, np.ndarray) else None for x in inputs)
        known = self._instances.get(shapes)
        if known is None:
            sizes = bind_inputs(self.loaded.plan, shapes)
            known = self._new_instance(sizes)
            self._instances[shapes] = known
            if len(self._instances) > _INSTANCES_PER_SESSION:
                self._instances.popitem(last=False)
        else:
            self._instances.move_to_end(shapes)
        return known

    def _new_instance(self, sizes: Sizes) -> Instance:
        player = self.loaded.player
        if player is not None:
            return PlayedInstance(self.loaded, player, self.queue, sizes, self._threads)
        kind = LateInstance if self.loaded.plan.has_late_symbols else QueueInstance
        return kind(self.loaded, self.queue, sizes)


@contextmanager
def _driver_errors(device: Device) -> Iterator[None]:
    """Errors of the driver as `DeviceError`, with the device's name."""
    try:
        yield
    except opencl().Error as error:
        raise DeviceError(
            f"{device.info.full_name} failed: {error}; where memory is short, use a smaller model, "
            "smaller inputs or fewer requests"
        ) from error

"""Runs a plan: weights on the device, a session for each request.

LoadedPlan   one per compiled model: programs and weights, shared by all requests
Session      one per request: a queue, and an `Instance` for each set of input shapes
Instance     buffers and arguments, ready to replay: `PlayedInstance` where the plan has a player,
             `QueueInstance` where each step is enqueued
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from clinfer import forks
from clinfer.device.failures import driver_errors, leave, settle, settle_others
from clinfer.device.hoststep import HostRunner
from clinfer.device.instance import DeviceShape, Instance, OnDevice
from clinfer.device.opencl import is_lost
from clinfer.device.played_instance import PlayedInstance
from clinfer.device.player import Player
from clinfer.device.queue_instance import LateInstance, QueueInstance
from clinfer.device.staging import Staging
from clinfer.device.weights import placed
from clinfer.lowering.binding import Sizes, bind_inputs
from clinfer.lowering.plan import Plan
from clinfer.threads import usable_cores

if TYPE_CHECKING:
    from clinfer.device.discover import Device
    from clinfer.device.launch_table import LaunchTable
    from clinfer.device.profile import StepTime
    from clinfer.device.programs import BuiltProgram
    from clinfer.lowering.arenas import ArenaPlan
    from clinfer.lowering.tape import Tape
    from clinfer.operators.extensions import Extensions

_ndarray = np.ndarray
_Shapes = tuple[tuple[int, ...] | None, ...]
_INSTANCES_PER_SESSION = 8
_QUEUES = 4


class LoadedPlan:
    """A plan with its programs and weights on a device. Safe to share between threads."""

    def __init__(
        self,
        device: Device,
        plan: Plan,
        programs: Sequence[BuiltProgram],
        extensions: Extensions | None = None,
        weights: dict[int, Any] | None = None,
    ) -> None:
        """`extensions` have the Python functions that host steps call.

        `weights` are the constants on the device already (`clinfer.device.weights`), where the plan
        has them no more.

        Programs that may wait go to the driver when a run's sizes first need them. Raises
        `ExtensionError` where one is not there, `BuildError` where the driver refuses one of the
        programs it is needed for, `DeviceError` where the driver fails otherwise.
        """
        self.device = device
        self.plan = plan
        self.programs = list(programs)
        self._tape: Tape | None = None
        self._arenas: dict[Any, ArenaPlan] = {}
        self._shapes_seen = 0
        self._host = HostRunner(plan, None if extensions is None else extensions.python)
        self.called = extensions if self._host.calls_functions else None
        """The extensions without which the plan does not run."""
        if weights is not None:
            self.weights = weights
        self.player = Player.of(plan, self.programs)
        needed = [self.player.helper] if self.player and self.is_played else self.programs
        for program in [] if self.player is not None and is_lost() else needed:
            if not program.may_wait:
                program.ready()
        if self.player is None:
            with driver_errors(device.info):
                _ = self.weights

    @property
    def remade(self) -> int:
        """How many programs were built since, because the driver refused their binaries."""
        return sum(program.was_remade for program in self.programs)

    @property
    def is_played(self) -> bool:
        """Whether the player runs the plan here."""
        return self.player is not None

    @cached_property
    def weights(self) -> dict[int, Any]:
        """The driver's buffers of constants, by the plan's numbers of buffers."""
        return placed(self.device, self.plan)

    @property
    def arenas(self) -> dict[Any, ArenaPlan] | None:
        """The memory plans of sizes before, where a run has not always the same ones."""
        return None if self._tape is None else self._arenas

    @cached_property
    def launch_table(self) -> LaunchTable:
        """The launches of a plan with a player."""
        from clinfer.device.launch_table import LaunchTable

        assert self.player is not None
        return LaunchTable(self.plan, self.player)

    def tape(self) -> Tape | None:
        """What computes the sizes of new shapes all at once: worth it from the second ones on."""
        self._shapes_seen += 1
        if self._tape is None and self._shapes_seen > 1 and self.plan.input_symbols:
            from clinfer.lowering.tape import tape_of

            self._tape = tape_of(self.plan)
        return self._tape

    @property
    def host(self) -> HostRunner:
        return self._host

    def session(self, profiling: bool = False, streams: int = 1, threads: int = 0) -> Session:
        """A new request's own queue and buffers; `profiling` keeps the time of every step.

        `streams` is how many requests are meant to run at a time: one gets that share of the cores,
        or of `threads` of them.
        """
        with driver_errors(self.device.info):
            return Session(self, profiling, max(self._cores(threads) // streams, 1))

    def most_streams(self, threads: int = 0) -> int:
        """How many requests side by side give the most inferences per second.

        With the player a core each, of `threads` cores at most: nothing is lost to waiting. Else a
        few queues, so that the device has the next launch when one ends.
        """
        return self._cores(threads) if self.is_played else _QUEUES

    def keeps_to(self, threads: int) -> bool:
        """Whether no more than so many cores (0: all) are used: drivers' queues use every core."""
        return self.is_played or self._cores(threads) == self._cores(0)

    def _cores(self, most: int) -> int:
        cores = min(self.device.found.compute_units, usable_cores())
        return min(cores, most) if most else cores


class Session:
    """Runs one request at a time on its own queue.

    What fails leaves nothing behind: its queue and buffers are given up once the driver is done
    with them, and the next run has new ones.

    In a forked child there is no queue, and nothing is used that the parent's threads had a hand
    in: a plan with a player runs without the driver, of others every run raises `DeviceError`.
    """

    def __init__(self, loaded: LoadedPlan, profiling: bool, threads: int) -> None:
        self.loaded = loaded
        self._threads = threads
        self.profile: tuple[StepTime, ...] = ()
        self._profiling = profiling
        self._staging: Staging | None = None
        self._queue = self._new_queue()
        self._instances: OrderedDict[_Shapes, Instance] = OrderedDict()
        self._lock = forks.new_lock()
        forks.inherit(self)

    def after_fork(self) -> None:
        """In a forked child: what was made for the parent's queue and threads goes."""
        self._queue = self._staging = None
        self._instances = OrderedDict()

    def check(self, inputs: Sequence[Any]) -> None:
        """Raises `InputError` and `ShapeError` as `run` does, for what the inputs' sizes tell."""
        shapes = tuple(map(_shape, inputs))
        if shapes not in self._instances:
            bind_inputs(self.loaded.plan, shapes)

    def run(self, inputs: Sequence[Any], into: Mapping[int, Any] | None = None) -> list[Any]:
        """One inference: inputs by position (arrays of the plan's dtypes, or host objects).

        `into` has arrays of the user's for results, by position: one that takes a result is it.

        Raises `InputError` and `ShapeError` for shapes that do not fit, `DeviceError` where the
        driver fails.
        """
        with self._lock:
            try:
                shapes = tuple([x.shape if type(x) is _ndarray else _shape(x) for x in inputs])
                instance = self._instances.get(shapes) if into is None else None
                if instance is None or len(self._instances) > 1:
                    instance = self._instance(shapes, into)
                try:
                    results = instance.run(inputs, into)
                    if self._profiling:
                        self._keep_profile(instance)
                except BaseException as error:
                    self._give_up(error)
                    raise
            except BaseException:
                with driver_errors(self.loaded.device.info, "the run"):
                    raise
            return results

    @property
    def queue(self) -> Any:
        """The driver's queue; None in a forked child whose plan has a player."""
        if self._queue is None:
            self._queue = self._new_queue()
        return self._queue

    def _new_queue(self) -> Any:
        settle_others()
        device = self.loaded.device
        if self.loaded.player is not None and is_lost():
            return None
        queue = device.new_queue(self._profiling)
        self._staging = Staging(queue) if device.has_own_memory else None
        return queue

    def _instance(self, shapes: _Shapes, into: Mapping[int, Any] | None) -> Instance:
        """The instance for some shapes, last in the row of those to be given up."""
        key = shapes
        if into is not None and any(isinstance(place, OnDevice) for place in into.values()):
            key = (*shapes, DeviceShape())
        known = self._instances.get(key)
        if known is not None:
            self._instances.move_to_end(key)
            return known
        sizes = bind_inputs(self.loaded.plan, shapes, self.loaded.tape())
        before = None
        if len(self._instances) >= _INSTANCES_PER_SESSION:
            _, before = self._instances.popitem(last=False)
        try:
            is_remote = any(isinstance(shape, DeviceShape) for shape in key)
            make = self._remote_instance if is_remote else self._new_instance
            made = self._instances[key] = make(sizes, before)
        except BaseException as error:
            self._give_up(error)
            raise
        return made

    def _remote_instance(self, sizes: Sizes, _before: Instance | None) -> Instance:
        """The player runs on the host's memory; buffers of others are the driver's to use."""
        from clinfer.device.remote_instance import remote_instance

        queue = self.queue  # with which comes its staging
        return remote_instance(self.loaded, queue, sizes, self._staging)

    def _new_instance(self, sizes: Sizes, before: Instance | None) -> Instance:
        player, is_late = self.loaded.player, self.loaded.plan.has_late_symbols
        if player is not None:
            how = (self.loaded, player, self.queue, sizes, self._threads, self._profiling)
            if is_late:
                from clinfer.device.late_played import LatePlayedInstance

                return LatePlayedInstance(*how)
            return PlayedInstance(*how, before)
        kind = LateInstance if is_late else QueueInstance
        queue = self.queue  # with which comes its staging
        return kind(self.loaded, queue, sizes, self._staging)

    def _keep_profile(self, instance: Instance) -> None:
        from clinfer.device.profile import step_times

        self.profile = step_times(instance)

    def _give_up(self, error: BaseException) -> None:
        """Lets go of all that a failed run may have left at work, or in any state.

        What it has touched, half-made instances and results among it, hangs on the traceback.
        """
        queue, self._queue = self._queue, None
        staging, self._staging = self._staging, None
        instances, self._instances = self._instances, OrderedDict()
        if queue is not None:
            give_up = settle if isinstance(error, Exception) else leave
            give_up(queue, (instances, staging, error.__traceback__))


def _shape(value: Any) -> tuple[int, ...] | None:
    """The shape of an array, or of what lies in a buffer of somebody else's; None for an object."""
    return value.shape if isinstance(value, (_ndarray, OnDevice)) else None

"""A plan some of whose sizes only a run gives: each step is bound when its sizes are known."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence

from clinfer.device.instance import Instance
from clinfer.lowering.binding import (
    BoundLaunch,
    Sizes,
    bind_launch,
    bind_read,
    check_sizes,
    enter,
)
from clinfer.lowering.plan import Constraint, HostStep, HostValue, LaunchStep, Reach, SizesStep


class Late(Instance):
    """Goes through the steps of a run; how one is done, and where memory is, is left open."""

    _input_values: Mapping[str, int]
    _open: Sequence[Constraint | Reach]

    def _await_sizes(self) -> None:
        """Checks what the sizes of the inputs tell; before the first run."""
        self._input_values = dict(self.sizes.values)
        self._open = check_sizes(self.plan.requirements, self.sizes)

    def _run_all(self) -> None:
        """All steps, for the sizes of the inputs."""
        self.sizes = Sizes(self._input_values)
        self._unchecked = self._open
        self._run_steps(0, len(self.plan.steps))

    def _run_steps(self, first: int, end: int) -> None:
        index = first
        while index < end:
            step, number = self.plan.steps[index], index
            index += 1
            if isinstance(step, LaunchStep):
                self._touch(arg.buffer for arg in step.args if arg.kind == "buffer")
                bound = bind_launch(step, self.sizes)
                if not bound.is_empty:
                    self._do_launch(bound)
            elif isinstance(step, HostStep):
                self._touch(v.buffer for v in step.inputs if v is not None)
                self._do_host(step)
            elif isinstance(step, SizesStep):
                self._touch(v.buffer for v in step.values)
                self._read_sizes(step)
            else:
                self._touch([step.condition.buffer])
                block = step.blocks[0 if self._holds(step) else 1]
                self._unchecked = [*self._unchecked, *enter(block, self.sizes)]
                self._run_steps(block.first, block.end)
                index = step.blocks[-1].end
            for done in range(number, index):
                self._release(done)

    def _read_sizes(self, step: SizesStep) -> None:
        self._read_reports()
        read = [int(n) for value in step.values for n in self._host_input(value).ravel()]
        self._check()
        bind_read(step, read, self.sizes)
        self._unchecked = check_sizes(self._unchecked, self.sizes)

    def _prepare_output(self, value: HostValue, has_new_sizes: bool) -> None:
        if has_new_sizes:
            self._unchecked = check_sizes(self._unchecked, self.sizes)
        if value.tensor is not None:
            self._touch([value.buffer])

    @abstractmethod
    def _do_launch(self, bound: BoundLaunch) -> None:
        """Runs or queues a launch, of which every buffer has been touched."""

    @abstractmethod
    def _do_host(self, step: HostStep) -> None:
        """Runs a host step."""

    @abstractmethod
    def _touch(self, numbers: Iterable[int]) -> None:
        """Makes buffers that are not there yet, their sizes being known."""

    @abstractmethod
    def _release(self, index: int) -> None:
        """Gives back what no step after that one reads."""

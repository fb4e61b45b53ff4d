"""A plan bound to sizes, ready to run: what all ways of running have in common."""

from __future__ import annotations

import struct
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from clinfer import dtypes
from clinfer.device.hoststep import binds, empty_results
from clinfer.device.loops import Turn, counted
from clinfer.errors import DeviceError, InputError
from clinfer.lowering.binding import BoundLaunch, Closed, Sizes, decided
from clinfer.lowering.plan import Array, Block, BranchStep, Buffer, HostStep, HostValue, Step
from clinfer.runs import require_wanted

if TYPE_CHECKING:
    from clinfer.device.executor import LoadedPlan

Timing = tuple[BoundLaunch | HostStep, float, float]
"""A step, when it began, and how long it took, both in seconds."""

_SCALARS = {
    "int": struct.Struct("=i"),
    "long": struct.Struct("=q"),
    "float": struct.Struct("=f"),
    "uint": struct.Struct("=I"),
}


class DeviceShape(tuple[int, ...]):
    """The shape of what lies in a buffer of somebody else's: no array's shape is equal to it."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, DeviceShape) and tuple.__eq__(self, other)

    def __hash__(self) -> int:
        return hash((DeviceShape, tuple(self)))


class OnDevice:
    """What lies in a buffer of somebody else's (`device.remote`)."""

    __slots__ = ()
    shape: DeviceShape


class Instance(ABC):
    """Buffers made and arguments set for the sizes of some inputs."""

    _prepares_late = False
    """Whether a block's calls are made when it first runs: of two many runs do only one."""

    def __init__(self, loaded: LoadedPlan, sizes: Sizes) -> None:
        self.loaded = loaded
        self.plan = loaded.plan
        self.sizes = sizes
        self.closed = Closed(self.plan, sizes)
        self.objects: dict[int, Any] = {}
        self.reports = np.zeros(1 + len(self.plan.checks), np.int64)
        self.turns: dict[int, Turn] = {}
        """Of the loops of the plan, by their steps."""

    @abstractmethod
    def run(self, inputs: Sequence[Any], into: Mapping[int, Any] | None = None) -> list[Any]:
        """One inference; see `Session.run`. An instance that has failed is not run again."""

    @abstractmethod
    def timings(self) -> list[Timing]:
        """The steps of the last run, on a session that profiles; the first begins at any time."""

    @abstractmethod
    def read(self, number: int) -> Array:
        """A copy of a buffer's content, flat, in its dtype."""

    @abstractmethod
    def _write(self, number: int, array: Array) -> None:
        """Fills a buffer before the next step."""

    @abstractmethod
    def copy(self, of: int, to: int, nbytes: int, of_at: int = 0, to_at: int = 0) -> None:
        """Copies bytes between buffers before the next step, from and to places in them."""

    def count(self, number: int, done: int) -> None:
        """Writes the number of a loop's step."""
        self._write(number, counted(done))

    def renewal(self, first: int, end: int) -> Callable[[], None] | None:
        """What must be done before steps `first` to `end` - 1 run once more; None for nothing."""
        return None

    def go_round(self, number: int, turn: Turn) -> bool:
        """Does the steps left of the loop that is step `number`, in one go; False where it cannot.

        What launches have reported is checked then.
        """
        return False

    def _check(self) -> None:
        """Raises `InputError` for the first launch that has reported a position outside its axis.

        `reports` is what there is of the buffer of kind 'status' (`clinfer_kernels.positions`).
        """
        slot = self.reports[0]
        if slot:
            raise InputError(
                self.plan.checks[slot - 1].message(self.sizes, int(self.reports[slot]))
            )

    def _sizes_content(self, buffer: Buffer) -> Array:
        """What a buffer of kind 'sizes' holds."""
        content = [self.sizes(d) for d in buffer.content]
        return np.array(content, dtype=dtypes.to_numpy(buffer.dtype))

    def _run_host(self, step: HostStep) -> tuple[float, float]:
        """Runs a host step between launches; returns when it began and ended, in seconds."""
        require_wanted()
        start = perf_counter()
        results = empty_results(step, self.sizes)
        if results is None:
            arguments = self._host_inputs(step)
            self._check()
            results = self.loaded.host.run(step, arguments)
        for value, result in zip(step.outputs, results, strict=False):
            if value is not None:
                self._host_output(step, value, result)
        return start, perf_counter()

    def calls(self, first: int, end: int) -> list[Callable[[], None]]:
        """What steps `first` to `end` - 1 of the plan do in a run, one after another."""
        raise NotImplementedError

    def _course(self, first: int, end: int) -> Iterator[tuple[int, Step]]:
        """Steps `first` to `end` - 1 with their numbers, through branches that sizes decide."""
        for number, step in self.plan.outermost(first, end):
            block = self._decided(step) if isinstance(step, BranchStep) else None
            if block is None or self.closed.why(block) is not None:
                yield number, step
            else:
                yield from self._course(block.first, block.end)

    def _decided(self, step: BranchStep) -> Block | None:
        holds = decided(self.plan, step, self.sizes)
        return None if holds is None else step.blocks[0 if holds else 1]

    def _branch_call(self, step: BranchStep) -> Callable[[], None]:
        """What a branch does in a run: reads its condition, and does what one block does."""
        block = self._decided(step)
        if block is not None:
            return self._block_call(block)
        taken, other = (self._block_call(block) for block in step.blocks)
        return lambda: (taken if self._holds(step) else other)()

    def _block_call(self, block: Block) -> Callable[[], None]:
        error = self.closed.why(block)
        calls: list[Callable[[], None]] | None = [] if error is not None else None
        if calls is None and not self._prepares_late:
            calls = self.calls(block.first, block.end)

        def run() -> None:
            nonlocal calls
            if error is not None:
                raise error.with_traceback(None)
            if calls is None:
                calls = self.calls(block.first, block.end)
            for call in calls:
                call()

        return run

    def _holds(self, step: BranchStep) -> bool:
        """Whether the condition of a branch holds in this run."""
        known = decided(self.plan, step, self.sizes)
        if known is not None:
            return known
        return bool(self.element(step.condition))

    def element(self, value: HostValue) -> int:
        """The one element of a tensor in this run."""
        if self.plan.buffers[value.buffer].kind == "sizes":
            return self._one(value)
        self._read_reports()
        found = self._one(value)
        self._check()
        return found

    def _one(self, value: HostValue) -> int:
        """The same, with no look at what launches have reported."""
        assert value.tensor is not None
        buffer, offset = self.plan.buffers[value.buffer], self.sizes(value.tensor.offset)
        if buffer.kind == "sizes":
            return self.sizes(buffer.content[offset])
        return self._element(value.buffer, offset)

    def _element(self, number: int, offset: int) -> int:
        """An element of a buffer; `reports` are up to date then too."""
        return int(self.read(number)[offset])

    def _read_reports(self) -> None:
        """Lets `reports` be up to date when a buffer that is read next is."""
        return None

    def _host_inputs(self, step: HostStep) -> list[Any]:
        """The step's operands; `reports` are up to date where one of them is a buffer."""
        self._read_reports()
        return [self._host_input(value) for value in step.inputs]

    def _host_input(self, value: HostValue | None) -> Any:
        if value is None:
            return None
        if value.tensor is None:
            return self.objects[value.buffer]
        tensor = value.tensor
        flat = self.read(value.buffer)
        start = flat[self.sizes(tensor.offset) :]
        shape = tuple(self.sizes(d) for d in tensor.shape)
        steps = tuple(self.sizes(s) * flat.itemsize for s in tensor.strides)
        return np.lib.stride_tricks.as_strided(start, shape, steps).copy()

    def _host_output(self, step: HostStep, value: HostValue, result: Any) -> None:
        known = len(self.sizes.values)
        if value.shape is not None:
            binds(step, value.shape, np.shape(result), self.sizes)
        self._prepare_output(value, len(self.sizes.values) != known)
        if value.tensor is None:
            self.objects[value.buffer] = result
            return
        self._write(value.buffer, np.ascontiguousarray(result, dtypes.to_numpy(value.tensor.dtype)))

    def _prepare_output(self, value: HostValue, has_new_sizes: bool) -> None:
        """What an instance does before a host step's result is stored, its sizes being known."""
        return None


def scalar_bytes(kind: str, value: int) -> bytes:
    """A scalar argument. Raises `DeviceError` where the value does not fit its C type."""
    try:
        return _SCALARS[kind].pack(value)
    except struct.error:
        raise DeviceError(
            f"a size of {value} does not fit the kernels' '{kind}'; use smaller input sizes"
        ) from None


def bytes_of(array: Array) -> Array:
    """The array's memory as bytes: ml_dtypes' element types have no buffer format of their own."""
    flat = np.ascontiguousarray(array).reshape(-1)
    return flat.view(np.uint8) if flat.size else np.zeros(1, np.uint8)

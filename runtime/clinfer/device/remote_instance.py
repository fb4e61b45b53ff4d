"""A plan that runs on a command queue, with buffers of somebody else's for inputs and results.

Which inputs are such is the same in all runs of an instance. Launches use the buffers where they
are. What begins inside a buffer, and a result whose place something else in the run uses too, is
copied on the device.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from clinfer.device.queue_instance import LateInstance, QueueInstance
from clinfer.device.remote import RemoteArray
from clinfer.device.shared import copy_buffer, follow
from clinfer.errors import InputError
from clinfer.lowering.binding import Sizes
from clinfer.lowering.plan import Array

if TYPE_CHECKING:
    from clinfer.device.executor import LoadedPlan
    from clinfer.device.staging import Staging

Into = Mapping[int, Any] | None


class _Remote(QueueInstance):
    def __init__(
        self, loaded: LoadedPlan, queue: Any, sizes: Sizes, staging: Staging | None = None
    ) -> None:
        self._users: dict[int, list[tuple[Any, int]]] = defaultdict(list)
        self._own: dict[int, Any] = {}  # buffers that somebody else's stand in for
        super().__init__(loaded, queue, sizes, staging)

    def run(self, inputs: Sequence[Any], into: Into = None) -> list[Any]:
        """As an instance's; the run comes after what the remote arrays' queues have been given."""
        device = self.loaded.device
        remote = [v for v in (*inputs, *(into or {}).values()) if isinstance(v, RemoteArray)]
        for value in remote:
            value.require(device)
        queues = {value.queue for value in remote if value.queue}
        if device.followed is not None:
            queues.add(device.followed.int_ptr)
        follow(self.queue, queues)
        self._point_outputs(inputs, into)
        return super().run(inputs, into)

    def _write(self, number: int, array: Array | RemoteArray) -> None:
        if not isinstance(array, RemoteArray):
            super()._write(number, array)
        elif array.offset == 0:
            self._point(number, array.buffer)
        elif array.nbytes:
            copy_buffer(self.queue, array.buffer, self.buffers[number], array.nbytes, array.offset)

    def _set_buffer(self, kernel: Any, index: int, number: int) -> None:
        super()._set_buffer(kernel, index, number)
        if self.plan.buffers[number].kind in ("input", "output"):
            self._users[number].append((kernel, index))

    def _point_outputs(self, inputs: Sequence[Any], into: Into) -> None:
        """Launches write results where they are wanted, unless the run uses that memory twice."""
        used = {value.memory for value in inputs if isinstance(value, RemoteArray)}
        pointed: set[int] = set()
        for index, port in enumerate(self.plan.outputs):
            number = port.buffer
            if self.plan.buffers[number].kind != "output" or number in pointed:
                continue
            target = None if into is None else into.get(index)
            if isinstance(target, RemoteArray):
                _require_shape(target, tuple(self.sizes(d) for d in port.shape or ()))
                if target.offset == 0 and target.memory not in used:
                    used.add(target.memory)
                    pointed.add(number)
                    self._point(number, target.buffer)
                    continue
            if number in self._own:
                self._point(number, self._own[number])

    def _point(self, number: int, buffer: Any) -> None:
        """Lets launches use another buffer in the place of one of the plan's."""
        if self.buffers[number] is buffer:
            return
        self._own.setdefault(number, self.buffers[number])
        self.buffers[number] = buffer
        for kernel, index in self._users[number]:
            kernel.set_arg(index, buffer)

    def _deliver(self, number: int, target: RemoteArray, shape: tuple[int, ...]) -> Any:
        """What the user has given for a result, which is there or is copied there."""
        _require_shape(target, shape)
        buffer = self.buffers[number]
        if target.nbytes and not (buffer is target.buffer and target.offset == 0):
            copy_buffer(self.queue, buffer, target.buffer, target.nbytes, 0, target.offset)
        return target.given


class _LateRemote(_Remote, LateInstance):
    """Results are copied to their places: their sizes may be known only when they are there."""

    def _point_outputs(self, inputs: Sequence[Any], into: Into) -> None:
        return None

    def _set_buffer(self, kernel: Any, index: int, number: int) -> None:
        kernel.set_arg(index, self.buffers[number])  # a kernel of one run, never pointed elsewhere


def remote_instance(
    loaded: LoadedPlan, queue: Any, sizes: Sizes, staging: Staging | None = None
) -> QueueInstance:
    """An instance of a plan for sizes."""
    kind = _LateRemote if loaded.plan.has_late_symbols else _Remote
    return kind(loaded, queue, sizes, staging)


def _require_shape(target: RemoteArray, shape: tuple[int, ...]) -> None:
    if tuple(target.shape) != shape:
        raise InputError(
            f"{target.what} has the shape {list(shape)} in this run, the tensor given "
            f"{list(target.shape)}; give one of that shape"
        )

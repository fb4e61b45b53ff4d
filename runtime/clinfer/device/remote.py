"""Arrays in buffers that somebody else has made, as inputs and results of a run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from clinfer.device import shared
from clinfer.device.instance import DeviceShape, OnDevice
from clinfer.errors import InputError

if TYPE_CHECKING:
    from clinfer.device.binding import Buffer
    from clinfer.device.discover import Device


class RemoteArray(OnDevice):
    """A dense array from byte `offset` of a buffer on.

    `queue` is the handle of the queue in whose order it is, 0 for none; `memory` that of the
    buffer which `buffer` is a part of, else its own; `what` names it for messages; `given` is what
    the user has given.
    """

    buffer: Buffer
    shape: DeviceShape
    dtype: Any
    offset: int
    queue: int
    given: Any
    what: str
    nbytes: int
    context: int
    memory: int
    __slots__ = (
        "buffer", "context", "dtype", "given", "memory", "nbytes", "offset", "queue", "shape",
        "what",
    )  # fmt: skip

    def __init__(
        self, buffer: Buffer, shape: Sequence[int], dtype: Any, offset: int, queue: int = 0
    ) -> None:
        self.buffer = buffer
        self.shape = DeviceShape(shape)
        self.dtype = dtype
        self.offset = offset
        self.queue = queue
        self.given: Any = None
        self.what = "the tensor"
        self.nbytes = dtype.itemsize
        for size in shape:
            self.nbytes *= size
        self.context = shared.buffer_context(buffer.int_ptr)
        self.memory = shared.buffer_memory(buffer.int_ptr)

    def named(self, what: str, given: Any) -> RemoteArray:
        """The same as what a user has given for an input or a result, named `what`."""
        other = RemoteArray.__new__(RemoteArray)
        for name in RemoteArray.__slots__:
            setattr(other, name, getattr(self, name))
        other.what, other.given = what, given
        return other

    def require(self, device: Device) -> None:
        """Raises `InputError` where it is of another context than the device's."""
        ours = device.context.int_ptr
        if self.context != ours:
            raise InputError(
                f"{self.what} is a buffer of the OpenCL context {self.context:#x}, the model was "
                f"compiled for {ours:#x} ({device.info.full_name}): compile it with the buffer's, "
                "core.compile_model(model, clinfer.RemoteContext(context)), or give an array"
            )

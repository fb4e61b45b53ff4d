"""`RemoteContext` and `RemoteTensor`: OpenCL's contexts, queues and buffers of others.

    context = clinfer.RemoteContext(queue)                    # pyopencl's queue, or its context
    model = core.compile_model("model.onnx", context)
    model({"x": array, "y": other}, outputs={"z": result})    # pyopencl.array.Array: no copy

The meeting point are handles (pyopencl's `int_ptr`): both call the same OpenCL library.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import NoneType
from typing import Any, NoReturn

import numpy as np

from clinfer.api.tensor import Tensor, sizes_of
from clinfer.api.types import Type
from clinfer.arrays import array_of
from clinfer.buffers import OnDevice, held_buffer, require_inside, required_handle
from clinfer.device import shared
from clinfer.device.discover import Device, device_in
from clinfer.device.failures import driver_errors
from clinfer.device.opencl import cl
from clinfer.device.remote import RemoteArray
from clinfer.errors import ClinferError, InputError, PropertyError, ShapeError
from clinfer.sizes import Shape
from clinfer.synonyms import with_synonyms

_CONTEXT, _QUEUE, _BUFFER = "OCL_CONTEXT", "OCL_QUEUE", "MEM_HANDLE"
_WORDS = {"CONTEXT_TYPE": "OCL", "SHARED_MEM_TYPE": "OCL_BUFFER"}


class RemoteContext:
    """An OpenCL context that a model is compiled for: its buffers are inputs and results then.

    Made of pyopencl's `Context` or `CommandQueue`, or of the handle of a context. With a queue,
    runs with buffers come after what that has been given. `device_name` chooses where clinfer has
    several names for the device. Raises `InputError` for something else, `DeviceError` where the
    context has no device of clinfer's.
    """

    def __init__(self, context: Any, device_name: str | None = None) -> None:
        handle = shared.handle_of(context)
        if handle is None:
            raise InputError(
                "RemoteContext is made of pyopencl's Context or CommandQueue, or of a context's "
                f"handle, an integer; found {type(context).__name__}"
            )
        cl()
        queue = handle if not isinstance(context, int) and hasattr(context, "device") else None
        self._hold(handle if queue is None else shared.queue_context(queue), queue, device_name)

    def _hold(self, handle: int, queue: int | None, name: str | None) -> None:
        context = shared.context_of(handle)
        if queue is not None:
            first = shared.queue_device(queue)
            context.devices.sort(key=lambda device: device.int_ptr != first)
        handles = [device.int_ptr for device in context.devices[: None if queue is None else 1]]
        self._device = device_in(context, handles, name)
        mine = self._device.cl.int_ptr
        context.devices.sort(key=lambda device: device.int_ptr != mine)
        self._device.followed = None if queue is None else shared.held_queue(queue, context)

    @classmethod
    def of_device(cls, device: Device) -> RemoteContext:
        """The context that clinfer has for a device."""
        made = cls.__new__(cls)
        made._device = device
        return made

    @classmethod
    def of_properties(cls, device: Device, properties: Mapping[str, Any]) -> RemoteContext:
        """As OpenVINO's `create_context`: OCL_CONTEXT, OCL_QUEUE; without, a new one of a device.

        Raises `PropertyError` for other properties, `InputError` for what is no handle.
        """
        if not isinstance(properties, Mapping):
            raise PropertyError(
                f"create_context takes its properties as a dict, found {properties!r}"
            )
        unknown = properties.keys() - {_CONTEXT, _QUEUE, *_WORDS}
        if unknown or any(properties.get(name, word) != word for name, word in _WORDS.items()):
            raise PropertyError(
                f"create_context takes {_CONTEXT} and {_QUEUE}, handles or pyopencl's objects, and "
                f"CONTEXT_TYPE 'OCL'; found {dict(properties)}"
            )
        given = {
            n: required_handle(properties[n], n) for n in (_CONTEXT, _QUEUE) if n in properties
        }
        if not given:
            return cls.of_device(device)
        made = cls.__new__(cls)
        queue = given.get(_QUEUE)
        handle = given.get(_CONTEXT)
        if queue is not None:
            found = shared.queue_context(queue)
            if handle not in (None, found):
                raise InputError(f"{_QUEUE} is a queue of another context than {_CONTEXT}")
            handle = found
        assert handle is not None
        made._hold(handle, queue, device.info.name)
        return made

    @property
    def device(self) -> Device:
        """The device of models that are compiled for it."""
        return self._device

    @property
    def int_ptr(self) -> int:
        """The context's handle: `pyopencl.Context.from_int_ptr(context.int_ptr)`."""
        return int(self._device.context.int_ptr)

    def get_device_name(self) -> str:
        """The device's name: 'CPU', 'GPU.0'."""
        return self._device.info.name

    def get_params(self) -> dict[str, Any]:
        """The handles, in OpenVINO's words."""
        found: dict[str, Any] = {"CONTEXT_TYPE": "OCL", _CONTEXT: self.int_ptr}
        if self._device.followed is not None:
            found[_QUEUE] = int(self._device.followed.int_ptr)
        return found

    def create_tensor(
        self, type: Any, shape: Any, properties: Mapping[str, Any] | None = None
    ) -> RemoteTensor:
        """A tensor in a new buffer, or with `MEM_HANDLE` in one that is there.

        Raises `InputError` as `RemoteTensor`, `PropertyError` for other properties.
        """
        if not isinstance(properties, (Mapping, NoneType)):
            raise PropertyError(f"create_tensor takes properties as a dict, found {properties!r}")
        given = dict(properties or {})
        buffer = given.pop(_BUFFER, None)
        if given.keys() - _WORDS.keys() or any(given[n] != _WORDS[n] for n in given):
            raise PropertyError(
                f"create_tensor takes {_BUFFER}, the handle of a buffer or pyopencl's object, and "
                f"SHARED_MEM_TYPE 'OCL_BUFFER'; found {dict(properties or {})}"
            )
        return RemoteTensor(self, buffer, type, shape)

    def create_host_tensor(self, type: Any, shape: Any) -> Tensor:
        """A tensor in the host's memory."""
        return Tensor(Type(type), shape)

    def _new_buffer(self, nbytes: int) -> Any:
        with driver_errors(self._device.info):
            flags = cl().mem_flags.READ_WRITE
            return cl().Buffer(self._device.context, flags, max(nbytes, 1))

    def __reduce__(self) -> NoReturn:
        raise _not_pickled("RemoteContext")

    def __repr__(self) -> str:
        return f"<RemoteContext: {self.get_device_name()}, OpenCL context {self.int_ptr:#x}>"


@with_synonyms
class RemoteTensor(OnDevice):
    """A dense tensor in a buffer of a `RemoteContext`, from byte `offset` on.

    `buffer` is a handle of a cl_mem, pyopencl's `Buffer`, or None for a new one; it stays as long
    as the tensor does. `array` is the tensor as runs take it. Raises `InputError` for a buffer of
    another context, or one that is too small.
    """

    def __init__(
        self, context: RemoteContext, buffer: Any, type: Any, shape: Any, offset: int = 0
    ) -> None:
        if not isinstance(context, RemoteContext):
            raise InputError(f"a RemoteContext expected, found {context!r}")
        self._context = context
        sizes = sizes_of(shape)
        dtype = Type(type).to_dtype()
        if dtype.hasobject:
            raise InputError("text has no place in a buffer")
        if buffer is None:
            offset, held = 0, context._new_buffer(math.prod(sizes) * dtype.itemsize)
        else:
            held = held_buffer(required_handle(buffer, "a RemoteTensor's buffer"), "the tensor")
        self.array = RemoteArray(held, sizes, dtype, offset)
        require_inside(self.array)
        self.array.require(context.device)

    @property
    def int_ptr(self) -> int:
        """The buffer's handle: `pyopencl.Buffer.from_int_ptr(tensor.int_ptr)`."""
        return int(self.array.buffer.int_ptr)

    @property
    def shape(self) -> Shape:
        """The sizes."""
        return Shape(tuple(self.array.shape))

    @property
    def element_type(self) -> Type:
        """The element type: `Type.f32`."""
        return Type(self.array.dtype)

    @property
    def size(self) -> int:
        """How many elements it has."""
        return self.array.nbytes // int(self.array.dtype.itemsize)

    @property
    def byte_size(self) -> int:
        """How many bytes the elements take."""
        return self.array.nbytes

    @property
    def data(self) -> Any:
        """Always raises `InputError`: the memory is the device's."""
        raise InputError(
            "a RemoteTensor lies on the device: copy it, tensor.copy_to(np.empty(...))"
        )

    def get_device_name(self) -> str:
        """The device's name."""
        return self._context.get_device_name()

    def get_params(self) -> dict[str, Any]:
        """The handles, in OpenVINO's words."""
        words = {"SHARED_MEM_TYPE": "OCL_BUFFER", _BUFFER: self.int_ptr}
        return {**self._context.get_params(), **words}

    def copy_to(self, target: Any) -> None:
        """Copies the content into an array, a `Tensor` or another remote tensor of its shape.

        Raises `InputError` for another type, `ShapeError` for another shape.
        """
        if isinstance(target, RemoteTensor):
            target.copy_from(self)
            return
        array = target.data if isinstance(target, Tensor) else target
        if not isinstance(array, np.ndarray):
            raise InputError(f"copy_to takes an array or a tensor, found {target!r}")
        self._require_like(array)
        if not array.flags.writeable:
            raise InputError("copy_to: the array cannot be written to")
        flat = np.empty(self.array.nbytes, np.uint8)
        self._copy(lambda queue, buffer, at: cl().enqueue_copy(queue, flat, buffer, start=at))
        np.copyto(array, flat.view(self.array.dtype).reshape(tuple(self.array.shape)))

    def copy_from(self, source: Any) -> None:
        """Takes the content of an array, a `Tensor` or another remote tensor of its shape."""
        content = array_of(source, "what copy_from takes")
        self._require_like(content)
        flat = np.ascontiguousarray(content).reshape(-1).view(np.uint8)
        self._copy(lambda queue, buffer, at: cl().enqueue_copy(queue, buffer, flat, start=at))

    def _copy(self, copy: Callable[[Any, Any, int], None]) -> None:
        """Copies between the host and the tensor's bytes, after what the context's queue is at."""
        array, device = self.array, self._context.device
        if not array.nbytes:
            return
        with driver_errors(device.info):
            queue = device.new_queue()
            if device.followed is not None:
                shared.follow(queue, [device.followed.int_ptr])
            copy(queue, array.buffer, array.offset)
            queue.finish()

    def _require_like(self, array: Any) -> None:
        if array.dtype != self.array.dtype:
            raise InputError(f"the tensor has {self.array.dtype} elements, found {array.dtype}")
        if tuple(array.shape) != tuple(self.array.shape):
            raise ShapeError(
                f"the tensor has the shape {list(self.array.shape)}, found {list(array.shape)}"
            )

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        """A copy on the host."""
        found = np.empty(tuple(self.array.shape), self.array.dtype)
        self.copy_to(found)
        return found if dtype is None else found.astype(dtype, copy=False)

    def __reduce__(self) -> NoReturn:
        raise _not_pickled("RemoteTensor")

    def __repr__(self) -> str:
        kind = self.element_type.to_string()
        return f"<RemoteTensor: shape{self.shape.to_string()} type: {kind}>"


def _not_pickled(what: str) -> ClinferError:
    return ClinferError(
        f"a {what} belongs to its process and its driver: send arrays, and make one where they "
        "arrive"
    )

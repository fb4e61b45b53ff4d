"""`OrtValue` and `OrtDevice`: values as ONNX Runtime's users hold them, in the host's memory."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from enum import IntEnum
from operator import index
from typing import Any

import numpy as np

from clinfer.dtypes import BY_NAME, BY_ONNX, to_numpy
from clinfer.ort import errors
from clinfer.ort.errors import BadDataError, BadTypeError, InvalidArgument

Array = np.ndarray[Any, Any]

_DEVICE_TYPES = {"cpu": 0, "cuda": 1, "dml": 1, "webgpu": 1, "gpu": 1, "npu": 3, "cann": 3}


class OrtDeviceVendorId(IntEnum):
    """Makers of devices."""

    NONE = 0x0000
    AMD = 0x1002
    NVIDIA = 0x10DE
    ARM = 0x13B5
    MICROSOFT = 0x1414
    HUAWEI = 0x19E5
    QUALCOMM = 0x5143
    INTEL = 0x8086


class OrtDevice:
    """Names a kind of memory. Values here are in that of the CPU, whatever computes them."""

    def __init__(self, kind: int, number: int, vendor: int = 0) -> None:
        self._kind, self._number, self._vendor = kind, number, vendor

    @staticmethod
    def make(ort_device_name: str, device_id: int, vendor_id: int = -1) -> OrtDevice:
        """The device of a name. Raises `InvalidArgument` for a name ONNX Runtime has not."""
        kind = _DEVICE_TYPES.get(ort_device_name)
        if kind is None:
            raise InvalidArgument(f"Unsupported device type: {ort_device_name}")
        return OrtDevice(kind, device_id, max(vendor_id, 0))

    def device_id(self) -> int:
        """The number of the device among those of its kind."""
        return self._number

    def device_type(self) -> int:
        """0 for the CPU."""
        return self._kind

    def device_vendor_id(self) -> int:
        """The maker's PCI number, 0 where none was given."""
        return self._vendor

    def device_mem_type(self) -> int:
        """0: the device's usual memory."""
        return 0


def require_cpu(device_type: str) -> None:
    """Raises `BadDataError` for memory that is not the CPU's, where all values here are."""
    if not isinstance(device_type, str):
        raise BadTypeError(f"a kind of device is a text, say 'cpu'; found {device_type!r}")
    if OrtDevice.make(device_type.lower(), 0).device_type():
        raise BadDataError(
            f"Can't allocate memory on the device '{device_type}': values are in the memory of the "
            "CPU here, and clinfer moves them to the device that runs the model; use 'cpu'"
        )


def element(element_type: Any) -> str:
    """The name of an element type given as ONNX's number or as a NumPy type."""
    if isinstance(element_type, (int, np.integer)) and not isinstance(element_type, bool):
        entry = BY_ONNX.get(int(element_type))
        if entry is not None:
            return entry.name
    else:
        try:
            return element_name(np.dtype(element_type))
        except TypeError:
            pass
    raise BadTypeError(
        f"an element type is NumPy's, or ONNX's number of one; found {element_type!r}"
    )


def element_name(dtype: np.dtype[Any]) -> str:
    """The name of the element type of arrays of a dtype. Raises `BadTypeError` for others."""
    if dtype.kind in "OUS":
        return "string"
    if dtype.name not in BY_NAME:
        raise BadTypeError(f"tensors have no elements of {dtype}")
    return str(dtype.name)


def _sizes(shape: Sequence[int]) -> tuple[int, ...]:
    """A shape's sizes. Raises `BadTypeError` for what is none, `InvalidArgument` below 0."""
    try:
        sizes = tuple(map(index, shape))
    except TypeError:
        raise BadTypeError(f"a shape is a list of sizes; found {shape!r}") from None
    if min(sizes, default=0) < 0:
        raise InvalidArgument(f"sizes of 0 or more expected, found {list(sizes)}")
    return sizes


def array_at(address: int, shape: Sequence[int], element_type: Any) -> Array:
    """The memory at an address as an array, which does not own it."""
    name = element(element_type)
    if name == "string":
        raise InvalidArgument("texts are not bound by their address: bind an array")
    dtype = to_numpy(name)
    sizes = _sizes(shape)
    nbytes = math.prod(sizes) * dtype.itemsize
    if not nbytes:
        return np.empty(sizes, dtype)
    if not address:
        raise InvalidArgument("buffer_ptr is null")
    memory: Any = (ctypes.c_char * nbytes).from_address(int(address))
    found: Array = np.frombuffer(memory, dtype).reshape(sizes)
    return found


class OrtValue:
    """A tensor, or a list of tensors, in the host's memory; made of an array it shares it."""

    def __init__(self, value: Any) -> None:
        self._value = value

    @classmethod
    def ortvalue_from_numpy(
        cls, numpy_obj: Array, /, device_type: str = "cpu", device_id: int = 0, vendor_id: int = -1
    ) -> OrtValue:
        """A value that is the array itself, where that is contiguous."""
        require_cpu(device_type)
        if not isinstance(numpy_obj, np.ndarray):
            raise BadTypeError(f"an array expected, found {type(numpy_obj).__name__}")
        element_name(numpy_obj.dtype)
        whole = numpy_obj if numpy_obj.flags.c_contiguous else np.ascontiguousarray(numpy_obj)
        return cls(whole)

    @classmethod
    def ortvalue_from_numpy_with_onnx_type(cls, data: Array, /, onnx_element_type: int) -> OrtValue:
        """A value that reads the array's memory as elements of a type of the same size."""
        dtype = to_numpy(element(onnx_element_type))
        if dtype.itemsize != data.dtype.itemsize:
            raise InvalidArgument(f"elements of {data.dtype} are not of the size of {dtype}'s")
        return cls(data.view(dtype))

    @classmethod
    def ortvalue_from_shape_and_type(
        cls,
        shape: Sequence[int],
        element_type: Any,
        device_type: str = "cpu",
        device_id: int = 0,
        vendor_id: int = -1,
    ) -> OrtValue:
        """A value whose elements may be anything; `element_type` is NumPy's, or ONNX's number."""
        require_cpu(device_type)
        dtype = to_numpy(element(element_type))
        sizes = _sizes(shape)
        try:
            return cls(np.full(sizes, "", dtype) if dtype.hasobject else np.empty(sizes, dtype))
        except (ValueError, MemoryError) as error:
            raise BadDataError(f"no memory for the shape {list(sizes)}: {error}") from None

    @classmethod
    def from_dlpack(cls, data: Any, /) -> OrtValue:
        """A value that shares the memory of another library's tensor in the host's memory."""
        try:
            return cls(np.from_dlpack(data))
        except (TypeError, AttributeError, BufferError, RuntimeError) as error:
            raise BadTypeError(
                f"no tensor in the host's memory that DLPack can pass: {error}"
            ) from error

    def data_ptr(self) -> int:
        """The address of the first element."""
        return int(self._array().ctypes.data)

    def device_name(self) -> str:
        """Where it is: 'cpu'."""
        return "cpu"

    def shape(self) -> list[int]:
        """The sizes."""
        return list(self._array().shape)

    def data_type(self) -> str:
        """As 'tensor(float)'."""
        return data_type(self._value)

    def element_type(self) -> int:
        """ONNX's number of the element type."""
        return BY_NAME[element_name(self._array().dtype)].onnx

    def tensor_size_in_bytes(self) -> int:
        """The size of the content."""
        return int(self._array().nbytes)

    def has_value(self) -> bool:
        """False for an optional one that holds nothing."""
        return self._value is not None

    def is_tensor(self) -> bool:
        """Whether it holds one tensor."""
        return isinstance(self._value, np.ndarray)

    def is_sparse_tensor(self) -> bool:
        """False: there are none here."""
        return False

    def is_tensor_sequence(self) -> bool:
        """Whether it holds a list of tensors."""
        return isinstance(self._value, list) and all(
            isinstance(item, np.ndarray) for item in self._value
        )

    def numpy(self) -> Array:
        """The array itself. Raises `BadDataError` where it holds something else."""
        return self._array()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        array = self._array()
        if copy:
            return np.array(array, dtype)
        return array if dtype is None else np.asarray(array, dtype)

    def __dlpack__(self, **options: Any) -> Any:
        return self._array().__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        kind, number = self._array().__dlpack_device__()
        return int(kind), int(number)

    def update_inplace(self, data: Any) -> None:
        """Copies an array's or another value's elements over its own."""
        source = data.numpy() if isinstance(data, OrtValue) else data
        if not isinstance(source, np.ndarray):
            raise BadTypeError("data must be a numpy.ndarray or an OrtValue.")
        target = self._array()
        if source.dtype != target.dtype or source.size != target.size:
            raise BadDataError(
                "The input size of numpy arrays does not match the size of the OrtValue: "
                f"{target.dtype}{list(target.shape)} expected, found "
                f"{source.dtype}{list(source.shape)}"
            )
        if not target.flags.writeable:
            raise BadDataError("the array that the OrtValue was made of is read-only")
        target[...] = source.reshape(target.shape)

    def _array(self) -> Array:
        if isinstance(self._value, np.ndarray):
            return self._value
        raise BadDataError(f"the OrtValue holds no tensor, but {data_type(self._value)}")


def data_type(value: Any) -> str:
    """The type of a value in ONNX Runtime's words."""
    from clinfer.graph.signature import tensor_type

    if isinstance(value, np.ndarray):
        return tensor_type(BY_NAME[element_name(value.dtype)].onnx)
    if isinstance(value, list) and value and isinstance(value[0], np.ndarray):
        return f"seq({data_type(value[0])})"
    return "seq" if isinstance(value, list) else type(value).__name__


def copy_tensors(src: Sequence[OrtValue], dst: Sequence[OrtValue], stream: Any = None) -> None:
    """Copies values over others."""
    if stream is not None:
        raise errors.NotImplemented("there are no streams here: leave `stream` out")
    if len(src) != len(dst):
        raise InvalidArgument(f"{len(src)} values to copy to {len(dst)}")
    for source, target in zip(src, dst, strict=True):
        target.update_inplace(source)

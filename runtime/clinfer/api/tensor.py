"""`Tensor`: an array with an element type, in OpenVINO's words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from operator import index
from typing import Any

import numpy as np

from clinfer.api.types import Type
from clinfer.arrays import array_of
from clinfer.boundary import during, first_line
from clinfer.errors import InputError, ShapeError
from clinfer.sizes import Shape
from clinfer.synonyms import with_synonyms

Array = np.ndarray[Any, Any]


@with_synonyms
class Tensor:
    """An array that belongs to it, or to the caller with `shared_memory`.

    `Tensor(array)` copies, `Tensor(array, shared_memory=True)` does not; `Tensor(Type.f32, shape)`
    is new memory of zeros, `Tensor(tensor, begin, end)` a part of another tensor's memory, and
    `Tensor([1, 2])` takes NumPy's type. It is taken wherever arrays are. `data` is an ndarray over
    the memory: what is written there is what a request reads.
    """

    __slots__ = ("_array", "_shared")

    def __init__(self, data: Any, *more: Any, **options: Any) -> None:
        """Raises `InputError` for what is no array, or shares no memory."""
        self._shared = bool(options.pop("shared_memory", False))
        shape, kind = options.pop("shape", None), options.pop("type", None)
        if options:
            raise TypeError(f"Tensor() has no argument {', '.join(options)}")
        if more and isinstance(more[0], bool):
            self._shared, more = more[0], more[1:]
        if isinstance(data, Tensor) and len(more) == 2:
            self._array, self._shared = _part(data.data, *more), True
            return
        shape = more[0] if more else shape
        kind = more[1] if len(more) > 1 else kind
        if isinstance(data, (Type, type, np.dtype)):
            self._array = _zeros(Type(data), () if shape is None else shape)
        else:
            self._array = _array_of(data, self._shared)
            if shape is not None:
                self._array = _seen_as(self._array, sizes_of(shape), kind)

    @property
    def data(self) -> Array:
        """The content, to read and to write; of text as an array of objects."""
        return self._array

    @property
    def str_data(self) -> Array:
        """Text as an array of `str`."""
        return _text(self._array, str, lambda item: item.decode() if _is_bytes(item) else item)

    @str_data.setter
    def str_data(self, values: Any) -> None:
        _set_text(self._array, values)

    @property
    def bytes_data(self) -> Array:
        """Text as an array of `bytes`."""
        return _text(self._array, bytes, lambda item: item if _is_bytes(item) else item.encode())

    @bytes_data.setter
    def bytes_data(self, values: Any) -> None:
        _set_text(self._array, values)

    @property
    def shape(self) -> Shape:
        """The sizes. Another shape gives it new memory, unless that is the caller's."""
        return Shape(self._array.shape)

    @shape.setter
    def shape(self, sizes: Any) -> None:
        self.set_shape(sizes)

    def set_shape(self, sizes: Any) -> None:
        """Other sizes: of what memory there is where that suffices, else new memory.

        Raises `ShapeError` for memory of the caller's that does not suffice.
        """
        wanted = sizes_of(sizes)
        count, array = prod(wanted), self._array
        if wanted == array.shape:
            return
        if count <= array.size and array.flags.c_contiguous:
            self._array = _sized(wanted, array.reshape(-1)[:count].reshape)
        elif self._shared:
            raise ShapeError(
                f"the tensor's memory is the caller's, of shape {list(self.shape)}: it cannot "
                f"become {list(wanted)}"
            )
        else:
            self._array = _sized(wanted, lambda sizes: np.zeros(sizes, array.dtype))

    @property
    def element_type(self) -> Type:
        """The element type: `Type.f32`."""
        return Type(self._array.dtype)

    @property
    def size(self) -> int:
        """How many elements it has."""
        return self._array.size

    @property
    def byte_size(self) -> int:
        """How many bytes the elements take."""
        return self._array.nbytes

    @property
    def strides(self) -> tuple[int, ...]:
        """Bytes from one element to the next, in each dimension."""
        return self._array.strides

    def is_continuous(self) -> bool:
        """Whether the elements lie one after the other."""
        return bool(self._array.flags.c_contiguous)

    def copy_from(self, source: Any) -> None:
        """Takes the content of another tensor or array, and its shape.

        Raises `InputError` for another element type, `ShapeError` as `set_shape`.
        """
        array = _array_of(source, True)
        if array.dtype != self._array.dtype:
            raise InputError(
                f"copy_from: expected {self._array.dtype} elements, found {array.dtype}; convert "
                f"them with .astype('{self._array.dtype}')"
            )
        if not self._array.flags.writeable:
            raise InputError(
                "the tensor's memory cannot be written to; make it of an array that can"
            )
        self.set_shape(array.shape)
        np.copyto(self._array, array)

    def copy_to(self, target: Tensor) -> None:
        """Gives another tensor its content and shape; errors are those of `copy_from`."""
        if not isinstance(target, Tensor):
            raise InputError(f"copy_to takes a Tensor; found {type(target).__name__}")
        target.copy_from(self)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        array = self._array
        if dtype is not None and array.dtype != dtype:
            return array.astype(dtype)
        return array.copy() if copy else array

    def __dlpack__(self, **options: Any) -> Any:
        """The memory for another library, without a copy (the DLPack protocol)."""
        return self._array.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        """The host's memory, in DLPack's numbers."""
        return self._array.__dlpack_device__()

    def __repr__(self) -> str:
        return f"<Tensor: shape{self.shape.to_string()} type: {self.element_type.to_string()}>"


def _array_of(data: Any, shared: bool) -> Array:
    """The caller's array, or an array of its own with the same content."""
    if isinstance(data, Tensor):
        return data._array if shared else data._array.copy()
    array = array_of(data, "what a tensor is made of")
    if array.dtype.kind in "SU":
        array = array.astype(object)
    Type(array.dtype)
    if shared and not array.flags.c_contiguous:
        raise InputError(
            "shared_memory=True takes an array whose elements lie one after the other; give "
            "np.ascontiguousarray(array)"
        )
    if shared and not array.dtype.isnative:
        raise InputError(
            "shared_memory=True takes an array in the machine's order of bytes; found "
            f"{array.dtype}"
        )
    if shared:
        return array
    with during("a copy of the array", lambda: "a tensor"):
        return np.array(array, array.dtype.newbyteorder("="), order="C", copy=True)


def _seen_as(array: Array, sizes: tuple[int, ...], kind: Any) -> Array:
    """The memory of an array as another shape and type. Raises `InputError` where it is short."""
    wanted = array.dtype if kind is None else Type(kind).to_dtype()
    count = prod(sizes)
    if wanted.hasobject or array.dtype.hasobject or count * wanted.itemsize > array.nbytes:
        raise InputError(
            f"an array of {array.nbytes} bytes is no tensor of shape {list(sizes)} and {wanted}"
        )
    flat = array.reshape(-1).view(np.uint8)[: count * wanted.itemsize]
    return _sized(sizes, flat.view(wanted).reshape)


def _part(array: Array, begin: Sequence[int], end: Sequence[int]) -> Array:
    first, last = sizes_of(begin), sizes_of(end)
    inside = len(first) == len(last) == array.ndim and all(
        low <= high <= size for low, high, size in zip(first, last, array.shape, strict=True)
    )
    if not inside:
        raise InputError(
            f"a tensor of shape {list(array.shape)} has no part from {list(first)} to {list(last)}"
        )
    part: Array = array[tuple(map(slice, first, last))]
    return part


def _zeros(kind: Type, shape: Any) -> Array:
    return _sized(sizes_of(shape), lambda sizes: np.zeros(sizes, kind.to_dtype()))


def _sized(sizes: tuple[int, ...], make: Callable[[tuple[int, ...]], Array]) -> Array:
    """An array of some sizes. Raises `InputError` for sizes that none can have, and
    `OutOfMemoryError`.
    """
    with during(f"memory for the shape {list(sizes)}", lambda: "a tensor"):
        try:
            return make(sizes)
        except (ValueError, OverflowError) as error:
            said = first_line(error)
            raise InputError(f"no tensor has the shape {list(sizes)}: {said}") from None


def sizes_of(shape: Any) -> tuple[int, ...]:
    """A shape's sizes. Raises `InputError` for what is none."""
    given = shape.to_shape() if hasattr(shape, "to_shape") else shape
    try:
        sizes = tuple(index(size) for size in given)
    except TypeError:
        raise InputError(f"a shape is a list of sizes; found {shape!r}") from None
    if any(size < 0 for size in sizes):
        raise InputError(f"a tensor's sizes are at least 0; found {list(sizes)}")
    return sizes


def _is_bytes(item: Any) -> bool:
    return isinstance(item, bytes)


def _text(array: Array, kind: type, convert: Any) -> Array:
    if array.dtype != object:
        raise InputError(f"the tensor holds {array.dtype} values, no text: use .data")
    try:
        items = [convert(item) for item in array.reshape(-1)]
    except (UnicodeError, AttributeError) as error:
        raise InputError(f"the tensor's text has no other form: {error}; use .data") from None
    found: Array = np.array(items, kind).reshape(array.shape)
    return found


def _set_text(array: Array, values: Any) -> None:
    """Raises `InputError` for a tensor of numbers, and for what is not its text."""
    if array.dtype != object:
        raise InputError(f"the tensor holds {array.dtype} values, no text: write to .data")
    given = np.asarray(values, object)
    if not all(isinstance(item, (str, bytes)) for item in given.flat):
        raise InputError("a tensor's text is strings or bytes; found other objects")
    if given.shape not in ((), array.shape):
        raise InputError(f"the tensor has shape {list(array.shape)}, the text {list(given.shape)}")
    array[...] = given

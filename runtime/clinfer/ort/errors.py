"""ONNX Runtime's exceptions. Each is a clinfer error too, and has ONNX Runtime's words in front.

Where ONNX Runtime raises an exception of Python's own (a missing input is a `ValueError`), the
class here is also that one. `translated` turns clinfer's errors into these.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

from clinfer import errors
from clinfer.errors import ClinferError

_MARK = "[ONNXRuntimeError]"


class _Status(ClinferError):  # noqa: N818 - the errors below have ONNX Runtime's names
    """An error with a status of ONNX Runtime's; `status` is its number and name."""

    status: ClassVar[str] = "1 : FAIL"

    def __init__(self, message: object = "", *more: Any) -> None:
        text = str(message)
        said = text if text.startswith(_MARK) else f"{_MARK} : {self.status} : {text}"
        super().__init__(said, *more)


class Fail(_Status):
    """What has no status of its own."""


class InvalidArgument(_Status, errors.InputError):
    """A feed, an output's name or an option does not fit."""

    status = "2 : INVALID_ARGUMENT"


class NoSuchFile(_Status, errors.ModelError):
    """The model's file is not there."""

    status = "3 : NO_SUCHFILE"


class NoModel(_Status, errors.ModelError):
    """There is no model."""

    status = "4 : NO_MODEL"


class EngineError(_Status, errors.DeviceError):
    """A device's engine failed."""

    status = "5 : ENGINE_ERROR"


class RuntimeException(_Status):
    """The run failed."""

    status = "6 : RUNTIME_EXCEPTION"


class InvalidProtobuf(_Status, errors.ModelError):
    """The file is no protocol buffer."""

    status = "7 : INVALID_PROTOBUF"


class ModelLoaded(_Status):
    """A model is loaded already."""

    status = "8 : MODEL_LOADED"


class NotImplemented(_Status, errors.UnsupportedError):
    """The model, or what is asked for, is valid but not there."""

    status = "9 : NOT_IMPLEMENTED"


class InvalidGraph(_Status, errors.ModelError):
    """The graph is not valid; the message names the node."""

    status = "10 : INVALID_GRAPH"


class EPFail(_Status, errors.DeviceError):
    """The device is not there, or failed."""

    status = "11 : EP_FAIL"


class ModelLoadCanceled(_Status):
    """Loading was cancelled."""

    status = "12 : MODEL_LOAD_CANCELED"


class ModelRequiresCompilation(_Status, errors.CompileRequiredError):
    """CACHE_MODE forbids compiling, and something is missing."""

    status = "13 : MODEL_REQUIRES_COMPILATION"


class NotFound(_Status, errors.ModelError):
    """Something that was asked for is not there."""

    status = "14 : NOT_FOUND"


class DeviceReset(_Status, errors.DeviceError):
    """The device was lost."""

    status = "15 : DEVICE_RESET"


class NoGraph(InvalidProtobuf, InvalidArgument):
    """A protocol buffer, but no ONNX model."""


class MissingInputError(InvalidArgument, ValueError):
    """A required input has no value."""


class BadValueError(InvalidArgument, ValueError):
    """An option's value does not fit."""


class BadTypeError(InvalidArgument, TypeError):
    """An argument is of another type."""


class BadDataError(InvalidArgument, RuntimeError):
    """A value, its name or its size does not fit what it is to be bound to."""


class _Shapes(Fail, errors.ShapeError):
    pass


class _Option(InvalidArgument, errors.PropertyError):
    pass


class _Build(EPFail, errors.BuildError):
    pass


class _Cache(Fail, errors.CacheError):
    pass


class _Blob(Fail, errors.BlobError):
    pass


class _Untrusted(Fail, errors.UntrustedError):
    pass


class _Memory(RuntimeException, errors.OutOfMemoryError):
    pass


class _Internal(Fail, errors.InternalError):
    pass


_BY_CLASS: dict[type[ClinferError], type[_Status]] = {
    ClinferError: Fail,
    errors.BlobError: _Blob,
    errors.BuildError: _Build,
    errors.CacheError: _Cache,
    errors.CompileRequiredError: ModelRequiresCompilation,
    errors.DeviceError: EPFail,
    errors.InputError: InvalidArgument,
    errors.InternalError: _Internal,
    errors.ModelError: InvalidGraph,
    errors.OutOfMemoryError: _Memory,
    errors.PropertyError: _Option,
    errors.ShapeError: _Shapes,
    errors.UnsupportedError: NotImplemented,
    errors.UntrustedError: _Untrusted,
}


def as_status(error: ClinferError) -> ClinferError:
    """The error with a status; one that has one already stays."""
    if isinstance(error, _Status):
        return error
    kind = next(_BY_CLASS[c] for c in type(error).__mro__ if c in _BY_CLASS)
    if isinstance(error, errors.BuildError):
        return kind(error, error.log)
    return kind(error)


@contextmanager
def translated() -> Iterator[None]:
    """Raises clinfer's errors of a block as ONNX Runtime's."""
    try:
        yield
    except ClinferError as error:
        made = as_status(error)
        if made is error:
            raise
        raise made from error

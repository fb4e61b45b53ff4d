"""A model's bytes, from wherever a user gives them: not parsed yet, and without loading onnx."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Union

import numpy as np

from clinfer.errors import ModelError
from clinfer.mapping import MappedFile, open_file

if TYPE_CHECKING:
    from onnx import ModelProto

Array = np.ndarray[Any, Any]

Source = Union[str, "os.PathLike[str]", bytes, "ModelProto"]


class Opened(NamedTuple):
    """A model not parsed yet: where it comes from, its name for messages, its bytes, its file."""

    origin: Path | bytes
    label: str
    content: Array
    file: MappedFile | None


def open_model(source: Source) -> Opened:
    """The bytes of a model. Raises `ModelError` for what is no file, bytes or ModelProto."""
    if isinstance(source, (str, os.PathLike)):
        path = Path(source)
        file = _file(path)
        return Opened(path, f"'{path}'", file.content, file)
    if isinstance(source, (bytes, bytearray, memoryview)):
        data = bytes(source)
        return Opened(data, f"the model's {len(data)} bytes", _array(data), None)
    from onnx import ModelProto

    if not isinstance(source, ModelProto):
        raise ModelError(
            f"a path, bytes or an onnx.ModelProto expected, found {type(source).__name__}"
        )
    data = source.SerializeToString(deterministic=True)
    return Opened(data, "the ModelProto", _array(data), None)


def _file(path: Path) -> MappedFile:
    try:
        return MappedFile(path, open_file(path))
    except IsADirectoryError:
        raise ModelError(f"'{path}' is a folder; expected an ONNX file") from None
    except FileNotFoundError:
        raise ModelError(f"'{path}' does not exist (looked in {Path.cwd()})") from None
    except OSError as error:
        raise ModelError(f"'{path}' cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ModelError(f"{str(path)!r} cannot be the name of a file: {error}") from None


def _array(data: bytes) -> Array:
    return np.frombuffer(data, np.uint8) if data else np.empty(0, np.uint8)

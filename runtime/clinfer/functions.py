"""OpenVINO's functions beside its classes: `clinfer.read_model`, `clinfer.compile_model` ..."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clinfer.boundary import entry
from clinfer.core import Core
from clinfer.errors import InputError, ShapeError
from clinfer.version import __version__

if TYPE_CHECKING:
    from clinfer.api.tensor import Tensor
    from clinfer.compiled import CompiledModel
    from clinfer.graph.model import Model


def get_version() -> str:
    """clinfer's version."""
    return __version__


def read_model(model: Any, weights: Any = None, config: Any = None) -> Model:
    """As `Core.read_model`."""
    return Core().read_model(model, weights, config)


@entry("compile_model", device="device_name", properties="config")
def compile_model(
    model: Any, device_name: str | None = "AUTO", config: Any = None
) -> CompiledModel:
    """As `Core.compile_model`, with the properties that the environment sets."""
    return Core().compile_model(model, device_name, config)


@entry("convert_model", model="input_model")
def convert_model(input_model: Any, *, input: Any = None, output: Any = None) -> Model:
    """An ONNX model as `read_model` reads it, from a path, bytes, an open file or a ModelProto.

    `input` gives inputs new shapes, as `Model.reshape` takes them; `output` names tensors that
    become outputs too. Raises `InputError` for models of other frameworks, saying how they become
    ONNX.
    """
    if type(input_model).__module__.partition(".")[0] in _EXPORTERS or _is_module(input_model):
        raise InputError(f"convert_model takes ONNX models: {_exporter(input_model)}")
    model = Core().read_model(input_model)
    if input is not None:
        model.reshape(input)
    if output is not None:
        model.add_outputs(output)
    return model


@entry("save_model", output_path="output_model")
def save_model(model: Model, output_model: Any, compress_to_fp16: bool | None = None) -> None:
    """Writes a model as ONNX, with the shapes and outputs that it was given.

    Whatever the path ends in, the content is ONNX: for '.xml' a warning says so. With
    `compress_to_fp16` True it raises `InputError`: the weights stay as they are.
    """
    from clinfer.graph.saving import model_bytes

    if compress_to_fp16:
        raise InputError("save_model does not compress: leave compress_to_fp16 out")
    path = Path(os.fspath(output_model))
    content = model_bytes(model)
    if path.suffix == ".xml":
        warnings.warn(
            f"'{path}': clinfer writes ONNX, not OpenVINO's IR; read_model reads it, whatever its "
            "name",
            UserWarning,
            stacklevel=3,
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


@entry("serialize", xml_path="path")
def serialize(model: Model, path: Any, bin_path: Any = None, version: str = "UNSPECIFIED") -> None:
    """As `save_model`; ONNX keeps all in one file, so there is no `bin_path`."""
    save_model(model, path)


def get_batch(model: Model) -> Any:
    """The first dimension of the inputs.

    Raises `ShapeError` where they differ or have none, `InputError` for what is no model.
    """
    if not hasattr(model, "inputs"):
        raise InputError(f"get_batch takes a model of read_model; found {type(model).__name__}")
    found = {port.partial_shape[0].to_string() for port in model.inputs if port.shape}
    if len(found) != 1:
        raise ShapeError(f"the inputs have no common first dimension: {sorted(found)}")
    return next(port.partial_shape[0] for port in model.inputs if port.shape)


@entry("set_batch")
def set_batch(model: Model, batch_size: Any = -1) -> None:
    """Gives the first dimension of every input that has one another size."""
    get_batch(model)
    model.reshape({port: [batch_size, *port.shape[1:]] for port in model.inputs if port.shape})


def tensor_from_file(path: Any) -> Tensor:
    """The bytes of a file as a tensor of `Type.u8`; the file is mapped, and only read.

    Raises `InputError` where it cannot be read.
    """
    import numpy as np

    from clinfer.api.tensor import Tensor

    try:
        size = Path(path).stat().st_size
        array = np.memmap(path, np.uint8, "r") if size else np.zeros(0, np.uint8)
    except OSError as error:
        raise InputError(f"tensor_from_file: '{path}': {error.strerror or error}") from None
    return Tensor(array, shared_memory=True)


def shutdown() -> None:
    """Gives back what the process keeps for later models: those sent to it by `pickle`."""
    from clinfer.transport import forget

    forget()


_EXPORTERS = {
    "torch": "export it with torch.onnx.export(model, example, 'model.onnx')",
    "tensorflow": "convert it with tf2onnx: python -m tf2onnx.convert --saved-model DIR --output F",
    "keras": "export it with model.export('model.onnx', format='onnx')",
    "jax": "convert it with jax2onnx",
    "paddle": "convert it with paddle2onnx",
}


def _is_module(model: object) -> bool:
    names = {base.__module__.partition(".")[0] for base in type(model).__mro__}
    return bool(names & _EXPORTERS.keys())


def _exporter(model: object) -> str:
    for base in type(model).__mro__:
        said = _EXPORTERS.get(base.__module__.partition(".")[0])
        if said is not None:
            return said
    return "export it as ONNX"

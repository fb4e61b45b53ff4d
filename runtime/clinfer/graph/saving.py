"""A model that was read, as the bytes of an ONNX file again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from clinfer.dtypes import BY_NAME
from clinfer.errors import ModelError
from clinfer.graph.fragments import merge

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto

    from clinfer.graph.model import Model


def model_bytes(model: Model) -> bytes:
    """The file's own bytes, with the shapes, outputs and nodes that the model was given since.

    Weights in files beside the model are taken in. Raises `ModelError` where it has changed since
    it was read, or is too large for one file.
    """
    model.graph()  # raises where a file has changed
    if isinstance(model.source, bytes) and not model.shape_changes:
        return model.source
    proto = _proto(model)
    for edit in model.edits:
        if edit.kind == "attach":
            proto = merge(proto, edit.content)
        elif edit.kind == "add_outputs":
            _add_outputs(proto.graph, edit.content)
    if model.edits:
        _change(proto.graph, model)
    try:
        content: bytes = proto.SerializeToString()
    except Exception as error:  # protobuf's limit of 2 GB
        raise ModelError(f"the model does not fit one ONNX file: {error}") from error
    return content


def _proto(model: Model) -> ModelProto:
    import onnx

    if isinstance(model.source, bytes):
        return onnx.load_model_from_string(model.source)
    return onnx.load_model(model.source, load_external_data=True)


def _change(graph: GraphProto, model: Model) -> None:
    """Gives inputs and outputs the types that they have now."""
    from onnx import helper

    del graph.value_info[:]
    for values, ports in ((graph.input, model.inputs), (graph.output, model.outputs)):
        known = {port.name: port for port in ports}
        for value in values:
            port = known.get(value.name)
            if port is not None and port.dtype in BY_NAME:
                shape = None if port.shape is None else list(port.shape)
                element = BY_NAME[port.dtype].onnx
                value.type.CopyFrom(helper.make_tensor_type_proto(element, shape))


def _add_outputs(graph: GraphProto, names: Sequence[str]) -> None:
    known = {value.name for value in graph.output}
    for name in names:
        if name not in known:
            graph.output.add().name = name

"""clinfer behind MLServer. In model-settings.json:

{"name": "digits", "implementation": "clinfer.serve.adapters.mlserver.ClinferModel",
 "parameters": {"uri": "model.onnx", "extra": {"device": "GPU"}}}
"""

from __future__ import annotations

import asyncio
from typing import Any

import mlserver
from mlserver import types
from mlserver.codecs import NumpyCodec, StringCodec
from mlserver.errors import InferenceError
from mlserver.utils import get_model_uri

from clinfer.errors import InputError, ShapeError
from clinfer.serve.adapters import compiled
from clinfer.serve.tensors import DATATYPES, metadata


class ClinferModel(mlserver.MLModel):  # type: ignore[misc]
    """An ONNX model as `mlserver.MLModel`; `extra` may have `device` and `properties`."""

    async def load(self) -> bool:
        """Compiles the model, or loads it from the cache. Raises what `compile_model` raises."""
        path = await get_model_uri(self.settings, wellknown_filenames=["model.onnx"])
        extra = getattr(self.settings.parameters, "extra", None) or {}
        device, properties = extra.get("device", "AUTO"), extra.get("properties")
        self._model = await asyncio.to_thread(compiled, path, device, properties)
        self.inputs = [types.MetadataTensor(**metadata(port)) for port in self._model.inputs]
        self.outputs = [types.MetadataTensor(**metadata(port)) for port in self._model.outputs]
        return True

    async def predict(self, payload: types.InferenceRequest) -> types.InferenceResponse:
        """One inference; raises MLServer's `InferenceError` for inputs that do not fit."""
        try:
            given = {item.name: _array(item) for item in payload.inputs}
            results = await asyncio.to_thread(self._model, given)
        except (InputError, ShapeError, ValueError) as error:
            raise InferenceError(str(error)) from error
        pairs = zip(self._model.outputs, results.to_tuple(), strict=True)
        outputs = [_output(port, array) for port, array in pairs]
        return types.InferenceResponse(
            id=payload.id, model_name=self.name, model_version=self.version, outputs=outputs
        )


def _array(item: types.RequestInput) -> Any:
    if item.datatype != "BYTES":
        return NumpyCodec.decode_input(item)
    import numpy as np

    return np.array(StringCodec.decode_input(item), object).reshape(item.shape)


def _output(port: Any, array: Any) -> types.ResponseOutput:
    if port.dtype == "string":
        output = StringCodec.encode_output(port.name, array.reshape(-1).tolist())
    else:
        output = NumpyCodec.encode_output(port.name, array)
    output.shape, output.datatype = list(array.shape), DATATYPES[port.dtype]
    return output

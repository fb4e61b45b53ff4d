"""clinfer behind KServe's model server.

from kserve import ModelServer
from clinfer.serve.adapters.kserve import ClinferModel

ModelServer().start([ClinferModel("digits", "/mnt/models/model.onnx", "GPU")])
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from typing import Any
from uuid import uuid4

import kserve
import numpy as np

from clinfer.compiled import CompiledModel
from clinfer.errors import InputError, ShapeError
from clinfer.serve.adapters import compiled
from clinfer.serve.tensors import DATATYPES, metadata


class ClinferModel(kserve.Model):  # type: ignore[misc]
    """An ONNX model as `kserve.Model`: the Open Inference Protocol, and version 1 of one input."""

    def __init__(
        self,
        name: str,
        path: str | os.PathLike[str],
        device: str = "AUTO",
        properties: Mapping[str, Any] | None = None,
    ) -> None:
        """Compiles the model, or loads it from the cache. Raises what `compile_model` raises."""
        super().__init__(name)
        self._model: CompiledModel = compiled(path, device, properties)
        self.ready = True

    async def get_input_types(self) -> list[dict[str, Any]]:
        """What the metadata says of inputs."""
        return [metadata(port) for port in self._model.inputs]

    async def get_output_types(self) -> list[dict[str, Any]]:
        """What the metadata says of outputs."""
        return [metadata(port) for port in self._model.outputs]

    async def predict(
        self, payload: Any, headers: Any = None, response_headers: Any = None
    ) -> dict[str, Any] | kserve.InferResponse:
        """One inference; raises `kserve.errors.InvalidInput` for inputs that do not fit."""
        first = isinstance(payload, dict)
        given = (
            [np.asarray(payload["instances"])]
            if first
            else {item.name: item.as_numpy() for item in payload.inputs}
        )
        try:
            results = await asyncio.to_thread(self._model, given)
        except (InputError, ShapeError) as error:
            raise kserve.errors.InvalidInput(str(error)) from error
        if first:
            return {"predictions": results[0].tolist()}
        outputs = []
        for port, array in zip(self._model.outputs, results.to_tuple(), strict=True):
            output = kserve.InferOutput(port.name, list(array.shape), DATATYPES[port.dtype])
            output.set_data_from_numpy(array, binary_data=True)
            outputs.append(output)
        return kserve.InferResponse(payload.id or uuid4().hex, self.name, outputs)

"""clinfer in Triton's Python backend. REPOSITORY/NAME/1/model.py, beside model.onnx, is one line:

    from clinfer.serve.adapters.triton import TritonPythonModel

In config.pbtxt `backend: "python"`, and the model's inputs and outputs. The parameter `device`
names another device than the instance group's kind; `CACHE_DIR` and other properties of
`compile_model` are parameters of their names.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import triton_python_backend_utils as pb_utils

from clinfer.errors import ClinferError
from clinfer.serve.adapters import compiled
from clinfer.serve.repository import MODEL_FILE


class TritonPythonModel:
    """The class that Triton looks for."""

    def initialize(self, args: dict[str, str]) -> None:
        """Compiles the model, or loads it from the cache; Triton shows what is raised."""
        path = Path(args["model_repository"]) / args["model_version"] / MODEL_FILE
        given = json.loads(args["model_config"]).get("parameters", {})
        properties = {name: value["string_value"] for name, value in given.items()}
        kinds = {"GPU": f"GPU.{args['model_instance_device_id']}", "CPU": "CPU"}
        device = properties.pop("device", kinds.get(args["model_instance_kind"], "AUTO"))
        self._model = compiled(path, device, properties)

    def execute(self, requests: list[Any]) -> list[Any]:
        """A response for each request, or the error of its own."""
        return [self._response(request) for request in requests]

    def _response(self, request: Any) -> Any:
        try:
            names = [port.name for port in self._model.inputs]
            found = [pb_utils.get_input_tensor_by_name(request, name) for name in names]
            pairs = zip(names, found, strict=True)
            given = {name: tensor.as_numpy() for name, tensor in pairs if tensor is not None}
            results = self._model(given).to_dict()
        except ClinferError as error:
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(str(error)))
        wanted = request.requested_output_names()
        return pb_utils.InferenceResponse([pb_utils.Tensor(n, results[n]) for n in wanted])

    def finalize(self) -> None:
        """Lets the model go."""
        del self._model

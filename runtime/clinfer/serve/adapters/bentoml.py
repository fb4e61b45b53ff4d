"""clinfer as a service of BentoML. In service.py:

    from clinfer.serve.adapters.bentoml import service

    Digits = service("Digits", "digits.onnx", "GPU")

and `bentoml serve service:Digits`; POST /infer takes the inputs by name, and gives outputs so.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Any

import bentoml
from bentoml.exceptions import InvalidArgument

from clinfer.errors import InputError, ShapeError
from clinfer.serve.adapters import compiled


def service(
    name: str,
    path: str | os.PathLike[str],
    device: str = "AUTO",
    properties: Mapping[str, Any] | None = None,
    **more: Any,
) -> Any:
    """A service with one endpoint, `infer`; `more` is for `bentoml.service` (workers, traffic ...).

    Each worker compiles the model, or loads it from the cache, when it starts; it raises then what
    `compile_model` raises.
    """

    class Inner:
        def __init__(self) -> None:
            self._model = compiled(path, device, properties)

        @bentoml.api  # type: ignore[untyped-decorator]
        def infer(self, inputs: dict[str, Any], /) -> dict[str, Any]:
            """One inference; lists and arrays by the names of the model's inputs."""
            try:
                results = self._model(inputs)
            except (InputError, ShapeError) as error:
                raise InvalidArgument(str(error)) from error
            return {key: array.tolist() for key, array in results.to_dict().items()}

    Inner.__name__ = Inner.__qualname__ = name
    Inner.__module__ = sys._getframe(1).f_globals["__name__"]  # where BentoML looks for it
    return bentoml.service(name=name, **more)(Inner)

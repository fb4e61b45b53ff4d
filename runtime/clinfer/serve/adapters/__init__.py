"""clinfer's models on platforms that have a server already: a module for each.

    clinfer.serve.adapters.kserve     kserve.Model
    clinfer.serve.adapters.mlserver   mlserver.MLModel
    clinfer.serve.adapters.triton     a model of Triton's Python backend
    clinfer.serve.adapters.bentoml    a service of BentoML

Each needs its platform's package alone, not the extra `serve`; docs/server.md has an example.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import os

    from clinfer.compiled import CompiledModel


def compiled(
    path: str | os.PathLike[str], device: str, properties: Mapping[str, Any] | None
) -> CompiledModel:
    """The model of a file on one device, ready; its types have names in the protocol.

    Raises what `compile_model` raises.
    """
    from pathlib import Path

    from clinfer.core import Core
    from clinfer.serve.loading import load
    from clinfer.serve.repository import ModelConfig

    return load(Core(), Path(path), ModelConfig(properties=properties or {}), device).compiled[0]

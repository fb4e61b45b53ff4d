"""clinfer runs ONNX models on any OpenCL device.

    import clinfer

    core = clinfer.Core()
    core.set_property({"CACHE_DIR": "cache"})
    model = core.compile_model("model.onnx", "CPU")
    result = model({"image": image})[0]

The public names load when they are first used, so that `import clinfer` stays light.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_PLACES = {
    "Core": "clinfer.core",
    "CompiledModel": "clinfer.compiled",
    "InferRequest": "clinfer.inference",
    "AsyncInferQueue": "clinfer.inference",
    "Results": "clinfer.inference",
    "Model": "clinfer.graph.model",
    "Port": "clinfer.ports",
    "properties": "clinfer.properties",
    "ClinferError": "clinfer.errors",
    "ModelError": "clinfer.errors",
    "UnsupportedError": "clinfer.errors",
    "ShapeError": "clinfer.errors",
    "InputError": "clinfer.errors",
    "PropertyError": "clinfer.errors",
    "DeviceError": "clinfer.errors",
    "BuildError": "clinfer.errors",
    "CacheError": "clinfer.errors",
    "BlobError": "clinfer.errors",
    "CompileRequiredError": "clinfer.errors",
}

__all__ = ["__version__", *_PLACES]

if TYPE_CHECKING:
    from clinfer import properties as properties
    from clinfer.compiled import CompiledModel as CompiledModel
    from clinfer.core import Core as Core
    from clinfer.errors import BlobError as BlobError
    from clinfer.errors import BuildError as BuildError
    from clinfer.errors import CacheError as CacheError
    from clinfer.errors import ClinferError as ClinferError
    from clinfer.errors import CompileRequiredError as CompileRequiredError
    from clinfer.errors import DeviceError as DeviceError
    from clinfer.errors import InputError as InputError
    from clinfer.errors import ModelError as ModelError
    from clinfer.errors import PropertyError as PropertyError
    from clinfer.errors import ShapeError as ShapeError
    from clinfer.errors import UnsupportedError as UnsupportedError
    from clinfer.graph.model import Model as Model
    from clinfer.inference import AsyncInferQueue as AsyncInferQueue
    from clinfer.inference import InferRequest as InferRequest
    from clinfer.inference import Results as Results
    from clinfer.ports import Port as Port


def __getattr__(name: str) -> Any:
    """Loads a public name from its module (PEP 562)."""
    place = _PLACES.get(name)
    if place is None:
        raise AttributeError(f"module 'clinfer' has no attribute {name!r}")
    module = import_module(place)
    value = module if place.rpartition(".")[2] == name else getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_PLACES})

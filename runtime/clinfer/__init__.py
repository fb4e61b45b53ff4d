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

from clinfer.version import __version__ as __version__

_PLACES = {
    "Core": "clinfer.core",
    "CompiledModel": "clinfer.compiled",
    "InferRequest": "clinfer.inference",
    "AsyncInferQueue": "clinfer.queues",
    "Results": "clinfer.results",
    "Model": "clinfer.graph.model",
    "Port": "clinfer.ports",
    "properties": "clinfer.properties",
    "ort": "clinfer.ort",
    "backend": "clinfer.backend",
    "preprocess": "clinfer.preprocess",
    "extension": "clinfer.extension",
    "Type": "clinfer.api.types",
    "Shape": "clinfer.sizes",
    "Dimension": "clinfer.api.shapes",
    "PartialShape": "clinfer.api.shapes",
    "Layout": "clinfer.api.shapes",
    "Tensor": "clinfer.api.tensor",
    "RemoteContext": "clinfer.remote",
    "RemoteTensor": "clinfer.remote",
    "Node": "clinfer.ports",
    "ProfilingInfo": "clinfer.api.profiling",
    "Version": "clinfer.version",
    "compile_model": "clinfer.functions",
    "convert_model": "clinfer.functions",
    "get_batch": "clinfer.functions",
    "get_version": "clinfer.functions",
    "read_model": "clinfer.functions",
    "save_model": "clinfer.functions",
    "serialize": "clinfer.functions",
    "set_batch": "clinfer.functions",
    "shutdown": "clinfer.functions",
    "tensor_from_file": "clinfer.functions",
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
    "UntrustedError": "clinfer.errors",
    "OutOfMemoryError": "clinfer.errors",
    "ExtensionError": "clinfer.errors",
    "InternalError": "clinfer.errors",
}

# OpenVINO's names for what has another here.
_ALSO = {
    "ConstOutput": "Port",
    "Output": "Port",
    "Op": "Node",
    "Strides": "Shape",
    "Coordinate": "Shape",
}

__all__ = ["__version__", *_PLACES]

if TYPE_CHECKING:
    from clinfer import backend as backend
    from clinfer import extension as extension
    from clinfer import ort as ort
    from clinfer import preprocess as preprocess
    from clinfer import properties as properties
    from clinfer.api.profiling import ProfilingInfo as ProfilingInfo
    from clinfer.api.shapes import Dimension as Dimension
    from clinfer.api.shapes import Layout as Layout
    from clinfer.api.shapes import PartialShape as PartialShape
    from clinfer.api.tensor import Tensor as Tensor
    from clinfer.api.types import Type as Type
    from clinfer.compiled import CompiledModel as CompiledModel
    from clinfer.core import Core as Core
    from clinfer.errors import BlobError as BlobError
    from clinfer.errors import BuildError as BuildError
    from clinfer.errors import CacheError as CacheError
    from clinfer.errors import ClinferError as ClinferError
    from clinfer.errors import CompileRequiredError as CompileRequiredError
    from clinfer.errors import DeviceError as DeviceError
    from clinfer.errors import ExtensionError as ExtensionError
    from clinfer.errors import InputError as InputError
    from clinfer.errors import ModelError as ModelError
    from clinfer.errors import PropertyError as PropertyError
    from clinfer.errors import ShapeError as ShapeError
    from clinfer.errors import UnsupportedError as UnsupportedError
    from clinfer.functions import compile_model as compile_model
    from clinfer.functions import convert_model as convert_model
    from clinfer.functions import get_batch as get_batch
    from clinfer.functions import get_version as get_version
    from clinfer.functions import read_model as read_model
    from clinfer.functions import save_model as save_model
    from clinfer.functions import serialize as serialize
    from clinfer.functions import set_batch as set_batch
    from clinfer.functions import shutdown as shutdown
    from clinfer.functions import tensor_from_file as tensor_from_file
    from clinfer.graph.model import Model as Model
    from clinfer.inference import InferRequest as InferRequest
    from clinfer.ports import Node as Node
    from clinfer.ports import Port as Port
    from clinfer.queues import AsyncInferQueue as AsyncInferQueue
    from clinfer.remote import RemoteContext as RemoteContext
    from clinfer.remote import RemoteTensor as RemoteTensor
    from clinfer.results import Results as Results
    from clinfer.sizes import Shape as Shape
    from clinfer.version import Version as Version


class _NoSuchNameError(AttributeError):
    """Says what to use instead, where it is shown; importing a submodule asks for its name too."""

    def __str__(self) -> str:
        from clinfer.api.absent import advice

        name = self.args[0]
        return f"module 'clinfer' has no attribute {name!r}{advice(name, __dir__())}"


def __getattr__(name: str) -> Any:
    """Loads a public name from its module (PEP 562)."""
    known = _ALSO.get(name, name)
    place = _PLACES.get(known)
    if place is None:
        raise _NoSuchNameError(name)
    module = import_module(place)
    value = module if place.rpartition(".")[2] == known else getattr(module, known)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_PLACES, *_ALSO})

"""ONNX Runtime's surface over clinfer: `import clinfer.ort as ort`.

    session = ort.InferenceSession("model.onnx", providers=["OpenCLExecutionProvider"])
    scores = session.run(None, {"image": image})[0]

Packages built on onnxruntime run unchanged after

    import sys, clinfer.ort
    sys.modules["onnxruntime"] = clinfer.ort

docs/onnxruntime.md says what differs. Under that name the modules of this package are loaded a
second time; so those below `capi` and `backend` only hand on names from here.
"""

from __future__ import annotations

from clinfer.ort import capi
from clinfer.ort.binding import IOBinding
from clinfer.ort.enums import ExecutionMode, ExecutionOrder, GraphOptimizationLevel
from clinfer.ort.nodes import ModelMetadata, NodeArg
from clinfer.ort.options import RunOptions, SessionOptions
from clinfer.ort.process import (
    VERSION,
    disable_telemetry_events,
    enable_telemetry_events,
    get_build_info,
    get_version_string,
    set_default_logger_severity,
    set_default_logger_verbosity,
    set_seed,
)
from clinfer.ort.providers import get_all_providers, get_available_providers, get_device
from clinfer.ort.session import InferenceSession
from clinfer.ort.values import OrtDevice, OrtDeviceVendorId, OrtValue, copy_tensors

__version__ = VERSION

__all__ = [
    "ExecutionMode",
    "ExecutionOrder",
    "GraphOptimizationLevel",
    "IOBinding",
    "InferenceSession",
    "ModelMetadata",
    "NodeArg",
    "OrtDevice",
    "OrtDeviceVendorId",
    "OrtValue",
    "RunOptions",
    "SessionOptions",
    "capi",
    "copy_tensors",
    "disable_telemetry_events",
    "enable_telemetry_events",
    "get_all_providers",
    "get_available_providers",
    "get_build_info",
    "get_device",
    "get_version_string",
    "set_default_logger_severity",
    "set_default_logger_verbosity",
    "set_seed",
]

_INSTEAD = {
    "LoraAdapter": "merge the adapter into the model",
    "AdapterFormat": "merge the adapter into the model",
    "ModelCompiler": "use `clinfer compile` or clinfer.Core().compile_model(...).export_model()",
    "SparseTensor": "give dense arrays",
    "OrtMemoryInfo": "values are in the host's memory: leave it out",
    "OrtArenaCfg": "memory is planned when a model is compiled: leave it out",
    "create_and_register_allocator": "memory is planned when a model is compiled: leave it out",
    "register_execution_provider_library": "devices are those of OpenCL: see `clinfer devices`",
    "get_ep_devices": "see clinfer.Core().available_devices",
    "preload_dlls": "OpenCL's drivers load themselves: leave it out",
    "set_default_logger_callback": "add a handler to logging.getLogger('clinfer')",
    "set_global_thread_pool_sizes": "set SessionOptions.intra_op_num_threads",
}


def __getattr__(name: str) -> object:
    """Says what to use instead of a name of ONNX Runtime's that is not here."""
    if name in _INSTEAD:
        raise AttributeError(f"clinfer.ort has no {name}: {_INSTEAD[name]}")
    raise AttributeError(f"module 'clinfer.ort' has no attribute {name!r}")

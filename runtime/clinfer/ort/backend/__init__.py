"""`onnxruntime.backend` is `clinfer.backend` here."""

from clinfer.backend import (
    Backend,
    BackendRep,
    is_compatible,
    prepare,
    run_model,
    run_node,
    supports_device,
)

__all__ = [
    "Backend",
    "BackendRep",
    "is_compatible",
    "prepare",
    "run_model",
    "run_node",
    "supports_device",
]

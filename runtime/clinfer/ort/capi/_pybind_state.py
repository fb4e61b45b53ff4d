"""As `onnxruntime_pybind11_state`, under the name that ONNX Runtime's own modules use."""

from clinfer.ort.capi.onnxruntime_pybind11_state import *  # noqa: F403

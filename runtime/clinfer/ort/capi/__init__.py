"""The modules that ONNX Runtime keeps its names in."""

from clinfer.ort.capi import onnxruntime_inference_collection, onnxruntime_pybind11_state

__all__ = ["onnxruntime_inference_collection", "onnxruntime_pybind11_state"]

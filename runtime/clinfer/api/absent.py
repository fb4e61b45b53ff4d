"""Well-known names of OpenVINO and ONNX Runtime that clinfer has under another name, or not."""

from __future__ import annotations

from collections.abc import Iterable

_INSTEAD = {
    "InferenceSession": "use clinfer.ort.InferenceSession, or Core().compile_model(model)",
    "SessionOptions": "use clinfer.ort, or the properties of compile_model",
    "RunOptions": "use clinfer.ort",
    "OrtValue": "use clinfer.ort, or clinfer.Tensor",
    "IOBinding": "use clinfer.ort, or InferRequest.set_tensor",
    "GraphOptimizationLevel": "use clinfer.ort; clinfer always optimises",
    "ExecutionMode": "use clinfer.ort, or the property PERFORMANCE_HINT",
    "get_available_providers": "use clinfer.ort, or Core().available_devices",
    "get_all_providers": "use clinfer.ort, or Core().available_devices",
    "get_device": "use clinfer.ort, or Core().available_devices",
    "IECore": "use Core",
    "IENetwork": "use Core().read_model",
    "Extension": "operators that ONNX does not know can be ONNX functions in the model",
    "OpExtension": "operators that ONNX does not know can be ONNX functions in the model",
    "VAContext": "arrays are read in place where the device can: use Tensor",
    "VASurfaceTensor": "arrays are read in place where the device can: use Tensor",
    "FrontEndManager": "use read_model",
    "frontend": "use read_model",
    "op": "make graphs with onnx.helper or onnxscript",
    "opset": "make graphs with onnx.helper or onnxscript",
    "passes": "graphs are optimised by compile_model; change them with onnx",
    "runtime": "its names are in clinfer itself",
    "inference_engine": "its names are in clinfer itself",
    "OVAny": "values of properties are plain Python values",
    "RTMap": "Model.rt_info is a dict",
    "AxisSet": "axes are lists of integers",
    "AxisVector": "axes are lists of integers",
    "TensorVector": "several tensors are a list",
    "Symbol": "dimensions of one name have one size: Dimension.name",
    "Input": "use Port",
    "DiscreteTypeInfo": "use Node.get_type_name()",
    "CoordinateDiff": "use a list of integers",
    "exceptions": "clinfer's errors are in clinfer itself: ClinferError",
    "layout_helpers": "a Layout is given where it is used, in clinfer.preprocess",
    "helpers": "values of 4 bits are NumPy arrays of ml_dtypes",
    "tools": "use the command line: clinfer bench, clinfer run",
    "utils": "use NumPy",
    "package_utils": "use importlib",
    "experimental": "use compile_model's properties",
}


def advice(name: str, names: Iterable[str]) -> str:
    """What to use instead of a name, as the end of a message; '' where nothing is known.

    `names` are those that there are.
    """
    said = _INSTEAD.get("opset" if name.startswith("opset") else name)
    if said is not None:
        return f": {said}"
    from difflib import get_close_matches

    close = get_close_matches(name, [n for n in names if n[0] != "_"], 1)
    return f"; did you mean {close[0]}?" if close else ""

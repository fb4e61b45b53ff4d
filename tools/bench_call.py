"""What one call costs: a Relu of 16 floats, against ONNX Runtime and OpenVINO in one run.

    python tools/bench_call.py [MODEL.onnx ...] [--rounds 15]

Each form of a call in turn with the peers' own, several hundred calls at a time; the least time of
all rounds, in microseconds, and its ratio to ONNX Runtime's `run`. Models given as arguments are
called the same way, with random inputs: for those that take below 50 microseconds the call counts.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from onnx import TensorProto, helper

import clinfer
from clinfer.cli.common import random_inputs

_CALLS = 400


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", type=Path)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    _report("Relu of 16 floats", _relu(), options.rounds)
    for path in options.models:
        _report(path.stem, path.read_bytes(), options.rounds)


def _report(title: str, model: bytes, rounds: int) -> None:
    print(title)
    times = _times(_forms(model), rounds)
    peer = times["ONNX Runtime, run(None, {name: array})"]
    for form, seconds in times.items():
        print(f"  {form:<44}{seconds * 1e6:8.2f} us {seconds / peer:8.2f}")


def _relu() -> bytes:
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [16]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", ports[:1], ports[1:])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return made.SerializeToString()


def _forms(model: bytes) -> dict[str, Callable[[], Any]]:
    core = clinfer.Core()
    compiled = core.compile_model(core.read_model(model), "CPU")
    feed = random_inputs(compiled.inputs, {})
    inputs = list(feed.values())
    request, filled = compiled.create_infer_request(), compiled.create_infer_request()
    for index, array in enumerate(inputs):
        request.set_tensor(compiled.inputs[index], array)
        filled.get_input_tensor(index).data[...] = array
    filled.get_output_tensor(0)
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = 2
    session = onnxruntime.InferenceSession(model, settings)
    return {
        "clinfer, compiled({name: array})": lambda: compiled(feed),
        "clinfer, request.infer({name: array})": lambda: request.infer(feed),
        "clinfer, request.infer() on set arrays": request.infer,
        "clinfer, request.infer() between tensors": filled.infer,
        "ONNX Runtime, run(None, {name: array})": lambda: session.run(None, feed),
        **_openvino(model, inputs),
    }


def _openvino(model: bytes, inputs: list[np.ndarray[Any, Any]]) -> dict[str, Callable[[], Any]]:
    try:
        import openvino
    except ImportError:
        return {}
    core = openvino.Core()
    request = core.compile_model(core.read_model(model), "CPU").create_infer_request()
    for index, array in enumerate(inputs):
        request.set_input_tensor(index, openvino.Tensor(array, shared_memory=True))
    return {"OpenVINO, request.infer() on set tensors": request.infer}


def _times(forms: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    best = dict.fromkeys(forms, float("inf"))
    for _ in range(rounds):
        for form, call in forms.items():
            start = time.perf_counter()
            for _ in range(_CALLS):
                call()
            best[form] = min(best[form], (time.perf_counter() - start) / _CALLS)
    return best


if __name__ == "__main__":
    main()

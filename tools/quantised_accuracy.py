"""How near quantised models are to the float32 model they were made of: clinfer and ONNX Runtime.

    python tools/quantised_accuracy.py bert.onnx bert_int8.onnx bert_q4.onnx

A row for each quantised model, over a few random inputs: the greatest difference to the float32
model, which ONNX Runtime computes without optimisation, over the largest number of the result; of
clinfer, of ONNX Runtime without optimisation and with it. Then the bytes of clinfer's constants
over those of the model's weights. Only results that both models have are compared.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime

import clinfer

_SIZES = {"batch": 2, "past": 0, "channel": 3, "height": 64, "width": 64}
_OTHER = 6  # sizes that no name tells: lengths of sequences
_WORDS = 90  # indices are below; kinds of tokens are 0 and 1


def session(path: Path, optimised: bool) -> Any:
    """ONNX Runtime on one core."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    if not optimised:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])


def feeds(model: Any, seed: int) -> dict[str, Any]:
    """Inputs of plausible numbers, by the names of inputs and of their dimensions."""
    rng = np.random.default_rng(seed)
    made = {}
    for value in model.get_inputs():
        shape = [size if isinstance(size, int) else _size(str(size)) for size in value.shape]
        if "mask" in value.name:
            array: Any = np.ones(shape)
        elif value.name == "position_ids":
            array = np.broadcast_to(np.arange(shape[-1]), shape)
        elif "int" in value.type:
            array = rng.integers(0, 2 if "type" in value.name else _WORDS, shape)
        else:
            array = rng.normal(size=shape)
        made[value.name] = array.astype(np.int64 if "int" in value.type else np.float32)
    return made


def _size(name: str) -> int:
    found = (size for part, size in _SIZES.items() if part in name and "+" not in name)
    return next(found, _OTHER)


def difference(found: dict[str, Any], wanted: dict[str, Any]) -> float:
    """The greatest one over all results, each over its largest number."""
    pairs = [(found[n], w) for n, w in wanted.items() if n in found and w.size]
    return max(float(np.abs(f - w).max() / np.abs(w).max()) for f, w in pairs)


def row(definition: Any, path: Path, count: int) -> str:
    """A quantised model's errors and the memory of its weights."""
    compiled = clinfer.Core().compile_model(path, "CPU")
    plain, optimised = session(path, False), session(path, True)
    names = [output.name for output in plain.get_outputs()]
    errors = [0.0] * 3
    for seed in range(count):
        inputs = feeds(definition, seed)
        outputs = [output.name for output in definition.get_outputs()]
        wanted = dict(zip(outputs, definition.run(None, inputs), strict=True))
        made = compiled(inputs)
        every = [[made[name] for name in names]]
        every += [peer.run(None, inputs) for peer in (plain, optimised)]
        results = [dict(zip(names, arrays, strict=True)) for arrays in every]
        errors = [max(e, difference(r, wanted)) for e, r in zip(errors, results, strict=True)]
    weights = sum(t.ByteSize() for t in onnx.load(path).graph.initializer)
    held = sum(constant.nbytes for constant in compiled.plan.constants)
    shown = " | ".join(f"{error:.1e}" for error in errors)
    return f"| {path.stem} | {shown} | {held / weights:.2f} |"


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("definition", type=Path, help="the float32 model")
    parser.add_argument("models", type=Path, nargs="+", help="quantised forms of it")
    parser.add_argument("--inputs", type=int, default=4, help="how many random inputs")
    options = parser.parse_args()
    definition = session(options.definition, False)
    print("| model | clinfer | ONNX Runtime | optimised | constants / weights |")
    print("|---|---|---|---|---|")
    for path in options.models:
        print(row(definition, path, options.inputs), flush=True)


if __name__ == "__main__":
    main()

"""Quantised models next to ONNX Runtime and OpenVINO: processor time, and the error of each.

    python tools/bench_quantised.py zoo/resnet50.onnx zoo/mobilenet_v2.onnx [--as qdq]
    python tools/bench_quantised.py zoo/bert_base.onnx --as dynamic weights4
    python tools/bench_quantised.py made/resnet50.qdq.onnx --as given

`onnxruntime.quantization` makes the models, into `--out`, where they are found again:

    qdq        8 bits, static: uint8 activations calibrated with random inputs, int8 weights of
               scales by channel
    dynamic    8-bit weights, activations quantised as they come (MatMulInteger)
    weights4   4-bit weights in blocks of 32 (MatMulNBits)

How it is counted. One process on one core; the runtimes take turns, a call each; a time is the
least processor time of a call, so that a busy machine disturbs little. A ratio is to the faster
peer. An error is the greatest difference to ONNX Runtime without optimisation, which computes what
the model says, over the largest number of that result. Needs the extra `bench`.
"""

from __future__ import annotations

import argparse
import logging
import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import openvino
from onnxruntime import quantization as q
from onnxruntime.quantization.shape_inference import quant_pre_process

from clinfer.core import Core

Feeds = dict[str, np.ndarray[Any, Any]]
Call = Callable[[], list[Any]]
PEERS = ("ONNX Runtime", "OpenVINO")
_LENGTH = 128  # of dimensions that a model leaves open, but for the batch


def main() -> None:
    """Makes the models, measures, prints a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--as", dest="forms", nargs="+", choices=(*MAKERS, "given"))
    parser.add_argument("--out", type=Path, default=Path("quantised"))
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    logging.getLogger().setLevel(logging.ERROR)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    columns = ("model", "clinfer ms", *PEERS, "ratio", "error", *PEERS)
    print(f"| {' | '.join(columns)} |")
    print("|---|---|---|---|---|---|---|---|")
    for model in options.models:
        for form in options.forms or ["qdq"]:
            path = model if form == "given" else options.out / f"{model.stem}.{form}.onnx"
            if not path.exists():
                MAKERS[form](model, path)
            print(row(path, options.rounds), flush=True)


def row(path: Path, rounds: int) -> str:
    """A line of the table."""
    feeds = inputs_of(path)
    wanted = session(path, optimised=False).run(None, feeds)
    calls = runtimes(path, feeds)
    errors = {name: error(call(), wanted) for name, call in calls.items()}
    times: dict[str, float] = dict.fromkeys(calls, math.inf)
    for _ in range(rounds):
        for name, call in calls.items():
            started = time.process_time()
            call()
            times[name] = min(times[name], time.process_time() - started)
    ours, *peers = times.values()
    shown = " | ".join(f"{seconds * 1e3:.2f}" for seconds in times.values())
    missed = " | ".join(f"{value:.1e}" for value in errors.values())
    return f"| {path.stem} | {shown} | {ours / min(peers):.2f} | {missed} |"


def runtimes(path: Path, feeds: Feeds) -> dict[str, Call]:
    """What runs the model once, clinfer first."""
    compiled = Core().compile_model(path, "CPU")
    ort = session(path, optimised=True)
    hints = {"INFERENCE_NUM_THREADS": 1, "PERFORMANCE_HINT": "LATENCY"}
    other = openvino.Core().compile_model(path, "CPU", hints)
    return {
        "clinfer": lambda: list(compiled(feeds).values()),
        "ONNX Runtime": lambda: list(ort.run(None, feeds)),
        "OpenVINO": lambda: list(other(feeds).values()),
    }


def session(path: Path, *, optimised: bool) -> onnxruntime.InferenceSession:
    """ONNX Runtime on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    levels = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = (
        levels.ORT_ENABLE_ALL if optimised else levels.ORT_DISABLE_ALL
    )
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def inputs_of(path: Path, seed: int = 0) -> Feeds:
    """Normal floats; of integers, masks are ones, kinds of token zeros, others small numbers."""
    rng = np.random.default_rng(seed)
    feeds: Feeds = {}
    for given in session(path, optimised=False).get_inputs():
        shape = [
            n if isinstance(n, int) else (_LENGTH if d else 1) for d, n in enumerate(given.shape)
        ]
        if "float" in given.type:
            feeds[given.name] = rng.standard_normal(shape).astype(np.float32)
            continue
        most = 1 if "type" in given.name else 2 if "mask" in given.name else 1000
        feeds[given.name] = rng.integers(most // 2, most, shape, np.int64)
    return feeds


def error(found: list[Any], wanted: list[Any]) -> float:
    """The greatest difference, over the largest number of that result."""
    pairs = zip(map(np.asarray, found), map(np.asarray, wanted), strict=True)
    return max(float(np.abs(a - b).max() / max(np.abs(b).max(), 1e-30)) for a, b in pairs)


def make_qdq(model: Path, path: Path) -> None:
    """Static, with QuantizeLinear and DequantizeLinear."""

    class Random(q.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.left = [inputs_of(model, seed) for seed in range(1, 5)]

        def get_next(self) -> Feeds | None:
            return self.left.pop() if self.left else None

    ready = path.with_suffix(".ready")
    quant_pre_process(model, ready, skip_symbolic_shape=True)
    q.quantize_static(
        ready,
        path,
        Random(),
        quant_format=q.QuantFormat.QDQ,
        activation_type=q.QuantType.QUInt8,
        weight_type=q.QuantType.QInt8,
        per_channel=True,
    )
    ready.unlink()


def make_dynamic(model: Path, path: Path) -> None:
    """Weights of 8 bits."""
    q.quantize_dynamic(model, path, weight_type=q.QuantType.QInt8)


def make_weights4(model: Path, path: Path) -> None:
    """Weights of 4 bits in blocks of 32; this quantiser needs the package `onnx_ir` too."""
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    quantizer = MatMulNBitsQuantizer(onnx.load(model), block_size=32, is_symmetric=True)
    quantizer.process()
    quantizer.model.save_model_to_file(str(path))


MAKERS: dict[str, Callable[[Path, Path], None]] = {
    "qdq": make_qdq,
    "dynamic": make_dynamic,
    "weights4": make_weights4,
}


if __name__ == "__main__":
    main()

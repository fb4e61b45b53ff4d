"""The least time of a call, next to ONNX Runtime and OpenVINO, where a machine has other work.

    python tools/bench_least.py MODELS.onnx [--cores 1] [--seconds 6] [--json FILE]

Inputs are those of `MODEL.npz` beside the model (arrays named as inputs, or `in:NAME`), else
random. Each model has a process of its own, in which the runtimes take turns, a few calls each.
With one core the process is pinned to it and the time is the processor's; with more it is the
clock's. The least of all turns counts, so that other work disturbs little; medians of a quiet
machine are tools/bench_peers.py's. The error is the greatest difference to ONNX Runtime without
optimisation, over the largest number of that result. A ratio is to the faster peer. Needs the
extra `bench`.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Feeds = dict[str, np.ndarray[Any, Any]]
Call = Callable[[], list[Any]]
_IN_A_ROW = 3  # calls of a turn
_REST = 0.002  # seconds until the threads of the runtime before have gone to sleep


def main() -> None:
    """A line for each model, then the geometric mean."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--cores", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--without-openvino", action="store_true")
    options = parser.parse_args()
    if options.child:
        openvino = not options.without_openvino
        print(json.dumps(measure(options.models[0], options.cores, options.seconds, openvino)))
        return
    print("| model | clinfer ms | ONNX Runtime | OpenVINO | ratio | error |")
    print("|---|---|---|---|---|---|")
    found: dict[str, Any] = {}
    given = ["--cores", str(options.cores), "--seconds", str(options.seconds), "--child"]
    for model in options.models:
        command = [sys.executable, __file__, str(model), *given]
        ran = subprocess.run(command, capture_output=True, text=True, check=False)
        if ran.returncode < 0:  # a peer has crashed; it is OpenVINO where the other one loads
            alone = [*command, "--without-openvino"]
            ran = subprocess.run(alone, capture_output=True, text=True, check=False)
        if ran.returncode:
            said = ran.stderr.strip().splitlines() or [f"ended with {ran.returncode}"]
            print(f"| {model.stem} | {said[-1][:150]} |", flush=True)
            continue
        found[model.stem] = json.loads(ran.stdout.splitlines()[-1])
        print(line(model.stem, found[model.stem]), flush=True)
    ratios = [f["ratio"] for f in found.values() if f["ratio"] is not None]
    if ratios:
        mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
        print(f"\n{len(ratios)} models: geometric mean {mean:.2f}, worst {max(ratios):.2f}")
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")


def line(name: str, found: dict[str, Any]) -> str:
    """A row of the table."""
    times = [f"{t * 1e3:.3f}" if t else "fails to load" for t in found["times"].values()]
    ratio = "-" if found["ratio"] is None else f"{found['ratio']:.2f}"
    return f"| {name} | {' | '.join(times)} | {ratio} | {found['error']:.0e} |"


def measure(model: Path, cores: int, seconds: float, openvino: bool = True) -> dict[str, Any]:
    """Least seconds of each runtime's calls, clinfer's ratio and error."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-cores:])
    feeds = inputs_of(model)
    wanted = onnxruntime_call(model, feeds, cores, optimised=False)()
    calls = runtimes(model, feeds, cores, openvino)
    missed = error(calls["clinfer"](), wanted)
    clock = time.process_time if cores == 1 else time.perf_counter
    times = dict.fromkeys(calls, math.inf)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for name, call in calls.items():
            for _ in range(_IN_A_ROW):
                started = clock()
                call()
                times[name] = min(times[name], clock() - started)
            time.sleep(_REST)
    peers = [t for name, t in times.items() if name != "clinfer"]
    shown = {name: times.get(name) for name in ("clinfer", "ONNX Runtime", "OpenVINO")}
    ratio = times["clinfer"] / min(peers) if peers else None
    return {"times": shown, "ratio": ratio, "error": missed}


def runtimes(model: Path, feeds: Feeds, cores: int, openvino: bool) -> dict[str, Call]:
    """What runs the model once, clinfer first; a peer that cannot load it is left out."""
    from clinfer.core import Core

    compiled = Core().compile_model(model, "CPU")
    calls: dict[str, Call | None] = {
        "clinfer": lambda: list(compiled(feeds).values()),
        "ONNX Runtime": _working(onnxruntime_call, model, feeds, cores),
        "OpenVINO": _working(openvino_call, model, feeds, cores) if openvino else None,
    }
    return {name: call for name, call in calls.items() if call is not None}


def _working(maker: Callable[..., Call], model: Path, feeds: Feeds, cores: int) -> Call | None:
    """The call, after it has run once; None where the runtime cannot."""
    try:
        call = maker(model, feeds, cores)
        call()
    except Exception as fault:
        print(f"{model}: {fault}", file=sys.stderr)
        return None
    return call


def onnxruntime_call(model: Path, feeds: Feeds, cores: int, *, optimised: bool = True) -> Call:
    """ONNX Runtime's CPU provider."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = cores
    options.log_severity_level = 3
    levels = onnxruntime.GraphOptimizationLevel
    level = levels.ORT_ENABLE_ALL if optimised else levels.ORT_DISABLE_ALL
    options.graph_optimization_level = level
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return lambda: list(session.run(None, feeds))


def openvino_call(model: Path, feeds: Feeds, cores: int) -> Call:
    """OpenVINO's CPU plugin in float32, tuned for latency."""
    import openvino

    hints = {
        "INFERENCE_NUM_THREADS": cores,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
    }
    compiled = openvino.Core().compile_model(model, "CPU", hints)
    request = compiled.create_infer_request()
    return lambda: list(request.infer(feeds).values())


def inputs_of(model: Path) -> Feeds:
    """The arrays beside the model, of those named `in:` the first row; random ones without."""
    beside = model.with_suffix(".npz")
    if not beside.exists():
        from clinfer.cli.common import random_inputs
        from clinfer.core import Core

        return random_inputs(Core().read_model(model).inputs, {})
    with np.load(beside) as file:
        named = {k.removeprefix("in:"): file[k][:1] for k in file.files if k.startswith("in:")}
        return named or {k: file[k] for k in file.files}


def error(found: list[Any], wanted: list[Any]) -> float:
    """The greatest difference over the largest number of each result, the worst of all."""
    worst = 0.0
    for ours, theirs in zip(found, wanted, strict=True):
        a, b = (np.asarray(x, np.float64) for x in (ours, theirs))
        if b.size:
            worst = max(worst, float(np.abs(a - b).max() / max(np.abs(b).max(), 1e-30)))
    return worst


if __name__ == "__main__":
    main()

"""`clinfer bench`: latency percentiles, throughput, load time without and with the cache."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from clinfer.cli import common
from clinfer.cli.output import emit_json, progress
from clinfer.cli.profile import profile, show
from clinfer.errors import ClinferError

HELP = "measure a model's latency, throughput and load time"
_LOAD = """
import json, sys, time
import clinfer
model, device, folder, shapes = sys.argv[1:]
core = clinfer.Core()
core.set_property({"CACHE_DIR": folder})
core.get_property(device, "FULL_DEVICE_NAME")
start = time.perf_counter()
if shapes != "{}":
    model = core.read_model(model)
    model.reshape(json.loads(shapes))
compiled = core.compile_model(model, device)
print(json.dumps([time.perf_counter() - start, compiled.programs_built]))
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    """MODEL --device --input --shape --seconds --requests."""
    common.model_argument(parser)
    common.device_argument(parser)
    common.shape_argument(parser)
    parser.add_argument("--input", action="append", default=[], metavar="NAME=FILE.npy")
    parser.add_argument(
        "--seconds", type=common.positive_seconds, default=3.0, help="time per measurement"
    )
    parser.add_argument(
        "--profile",
        type=Path,
        metavar="TRACE.json",
        help="time per kernel; writes a trace that Perfetto opens",
    )
    parser.add_argument(
        "--requests", type=common.positive_count, default=2, help="requests side by side"
    )


def run(options: argparse.Namespace) -> int:
    """Measures and prints."""
    core = common.core(options)
    with progress("bench", 3, quiet=options.json) as done:
        model = common.reshaped(core, options.model, options.shape)
        compiled = core.compile_model(model, options.device)
        profiled = None
        if options.profile is not None:
            profiled = core.compile_model(model, options.device, {"PERF_COUNT": True})
        inputs = common.inputs_for(compiled.inputs, options.input)
        done.step("compiled")
        latency = _latency(compiled, inputs, options.seconds)
        throughput = _throughput(compiled, inputs, options.seconds, options.requests)
        done.step("ran")
        loads = _loads(options.model, options.device, dict(options.shape))
        done.step("loaded cold and warm")
    report = {
        "model": str(options.model),
        "device": compiled.get_property("FULL_DEVICE_NAME"),
        "latency_ms": latency,
        "throughput_per_second": throughput,
        "requests": options.requests,
        "load_seconds": loads,
    }
    if profiled is not None:
        with common.writing("--profile", options.profile):
            rows, peaks = profile(profiled, inputs, options.model.name, options.profile)
        report["kernels"], report["peaks"] = rows, peaks._asdict()
    if options.json:
        emit_json(report)
        return 0
    print(f"{report['model']} on {report['device']}")
    print("latency    " + "  ".join(f"{k} {v:.3f} ms" for k, v in latency.items()))
    print(f"throughput {throughput:.1f} inferences/s with {options.requests} requests")
    cold, warm = loads["cold"], loads["warm"]
    print(f"load       cold {cold:.3f} s ({loads['built']} programs built), warm {warm:.3f} s")
    if profiled is not None:
        show(rows, peaks, options.profile)
    return 0


def _latency(compiled: Any, inputs: dict[str, Any], seconds: float) -> dict[str, float]:
    request = compiled.create_infer_request()
    for _ in range(3):
        request.infer(inputs)
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < 5 or time.perf_counter() < end:
        start = time.perf_counter()
        request.infer(inputs)
        times.append((time.perf_counter() - start) * 1e3)
    points = {"min": 0, "median": 50, "p90": 90, "p99": 99}
    return {name: float(np.percentile(times, p)) for name, p in points.items()}


def _throughput(compiled: Any, inputs: dict[str, Any], seconds: float, count: int) -> float:
    requests = [compiled.create_infer_request() for _ in range(count)]
    for request in requests:
        request.infer(inputs)
    start = time.perf_counter()

    def work(request: Any) -> int:
        runs = 0
        while time.perf_counter() - start < seconds:
            request.infer(inputs)
            runs += 1
        return runs

    with ThreadPoolExecutor(count) as pool:
        total = sum(pool.map(work, requests))
    return total / (time.perf_counter() - start)


def _loads(model: Path, device: str, shapes: dict[str, Any]) -> dict[str, Any]:
    """compile_model in a new process, twice: every cache empty, then warm."""
    with tempfile.TemporaryDirectory(prefix="clinfer-bench-") as folder:
        cold, built = _load(model, device, shapes, folder)
        warm, _ = _load(model, device, shapes, folder)
    return {"cold": cold, "warm": warm, "built": built}


def _load(model: Path, device: str, shapes: dict[str, Any], folder: str) -> tuple[float, int]:
    drivers = Path(folder) / "driver"
    drivers.mkdir(exist_ok=True)
    environment = {
        **os.environ,
        "POCL_CACHE_DIR": str(drivers),
        "NEO_CACHE_PERSISTENT": "0",
        "CUDA_CACHE_DISABLE": "1",
        "PYOPENCL_NO_CACHE": "1",
    }
    cache = str(Path(folder) / "cache")
    command = [sys.executable, "-c", _LOAD, str(model), device, cache, json.dumps(shapes)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise ClinferError(f"loading {model} failed in a new process: {said[-1]}")
    seconds, built = json.loads(done.stdout.splitlines()[-1])
    return float(seconds), int(built)

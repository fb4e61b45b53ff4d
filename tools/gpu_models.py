"""The stages of tools/gpu_first_run.py that run clinfer: products by size, and whole models."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from statistics import median as middle
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

import clinfer
from clinfer.cli.common import random_inputs
from gpu_probe import Probe, median

Row = dict[str, Any]
_PRODUCTS = ((4096, 4096, 4096), (4096, 768, 3072), (128, 768, 3072), (1, 768, 3072))
_RUNS = 5
_MOST_FILLED = 4096  # elements; a larger weight without content gets a random one
_LOAD = (
    "import sys, time, clinfer\n"
    "start = time.perf_counter()\n"
    "core = clinfer.Core()\n"
    "core.set_property({'CACHE_DIR': sys.argv[2]})\n"
    "model = core.compile_model(sys.argv[1], 'GPU')\n"
    "print(1e3 * (time.perf_counter() - start), model.programs_built)\n"
)


def products(probe: Probe, out: Path, models: list[Path]) -> Iterator[Row]:
    """M x K by K x N in float32 and float16: time by events, rate, error against float64."""
    rng = np.random.default_rng(0)
    for m, n, k in [(128, 128, 64)] if probe.small else _PRODUCTS:
        for kind in ("float32", "float16"):
            a = rng.standard_normal((m, k)).astype(kind)
            b = rng.standard_normal((k, n)).astype(kind)
            row: Row = {"what": f"{m}x{k} by {k}x{n}", "dtype": kind}
            try:
                found, steps = _timed(_product_model(a, b), {"a": a})
            except clinfer.ClinferError as error:
                yield row | {"refused": str(error)[:300]}
                continue
            seconds = sum(step["seconds"] for step in steps)
            row |= {"us": 1e6 * seconds, "TFLOP/s": 2 * m * n * k / seconds / 1e12}
            row["kernels"] = sorted({step["kernel"] for step in steps})
            rows = np.unique(np.linspace(0, m - 1, 8).astype(int))
            want = a[rows].astype("f8") @ b.astype("f8")
            error = np.abs(found[0][rows].astype("f8") - want).max() / np.abs(want).max()
            yield row | {"largest error": float(error)}


def loads(probe: Probe, out: Path, models: list[Path]) -> Iterator[Row]:
    """compile_model in new processes: cold, warm, and warm without the driver's own cache."""
    ways = (("cold", {}), ("warm", {}), ("warm, driver's cache off", {"CUDA_CACHE_DISABLE": "1"}))
    cache = out / "cache-of-loads"
    shutil.rmtree(cache, ignore_errors=True)
    for path in models:
        filled = _filled(path, out)
        for name, variables in ways:
            command = [sys.executable, "-c", _LOAD, str(filled), str(cache)]
            environment = {**os.environ, **variables}
            done = subprocess.run(
                command, capture_output=True, text=True, check=False, env=environment
            )
            row: Row = {"what": path.stem, "load": name}
            if done.returncode:
                yield row | {"refused": done.stderr.strip()[-300:]}
                break
            took, built = done.stdout.split()
            yield row | {"ms": float(took), "programs built": int(built)}


def inferences(probe: Probe, out: Path, models: list[Path]) -> Iterator[Row]:
    """Latency, each step's time by events (kept in steps-MODEL.json), results against the CPU."""
    core = clinfer.Core()
    core.set_property({"CACHE_DIR": str(out / "cache")})
    for path in models:
        filled = _filled(path, out)
        row: Row = {"what": path.stem}
        try:
            compiled = core.compile_model(filled, "GPU")
            feed = _feed(compiled, path)
            found = _values(compiled(feed))
            typical, runs = median(partial(compiled, feed), 5.0)
            row |= {"ms": 1e3 * typical, "runs": runs}
            _, steps = _timed(filled, feed)
        except clinfer.ClinferError as error:
            yield row | {"refused": str(error)[:300]}
            continue
        row |= {"launches": len(steps), "ms on the device": 1e3 * sum(s["seconds"] for s in steps)}
        shapes = {name: list(np.shape(value)) for name, value in feed.items()}
        record = {"model": path.stem, "shapes": shapes, "steps": steps}
        (out / f"steps-{path.stem}.json").write_text(json.dumps(record, indent=1))
        by_kernel: dict[str, float] = defaultdict(float)
        for step in steps:
            by_kernel[step["kernel"] or "host"] += 1e3 * step["seconds"]
        row["ms by kernel"] = dict(sorted(by_kernel.items(), key=lambda item: -item[1])[:8])
        try:
            want = _values(core.compile_model(filled, "CPU")(feed))
        except clinfer.ClinferError as error:
            yield row | {"against the CPU": str(error)[:120]}
            continue
        pairs = zip(found, want, strict=True)
        row["largest difference"] = max(
            float(np.abs(x - y).max() / max(np.abs(y).max(), 1e-30)) for x, y in pairs
        )
        yield row


def _timed(model: Any, feed: dict[str, Any]) -> tuple[list[Any], list[Row]]:
    """(results, steps) of a model on the GPU; each step's seconds are the median of some runs."""
    compiled = clinfer.Core().compile_model(model, "GPU", {"PERF_COUNT": True})
    runs = []
    for _ in range(_RUNS):
        results = compiled(feed)
        runs.append(compiled.profiling_info)
    steps = [
        {**asdict(same[0]), "seconds": middle(step.seconds for step in same)}
        for same in zip(*runs, strict=True)
    ]
    return _values(results), steps


def _values(results: Any) -> list[Any]:
    return [np.asarray(value) for value in results.values()]


def _feed(compiled: Any, path: Path) -> dict[str, Any]:
    """The sample beside the model where it has one, else random; free sizes 1, then 128."""
    sample = path.with_suffix(".npz")
    if sample.exists():
        with np.load(sample) as file:
            names = [name for name in file.files if name.startswith("in:")]
            return {name.removeprefix("in:"): file[name] for name in names}
    ports = list(compiled.inputs)
    free = (
        (name if isinstance(name, str) else f"{port.name}.{axis}", 128 if axis else 1)
        for port in ports
        for axis, name in enumerate(port.shape or ())
        if not isinstance(name, int)
    )
    return random_inputs(ports, dict(free))


def _filled(path: Path, out: Path) -> Path:
    """The model, with random weights in place of those that its file leaves out."""
    target = out / "models" / path.name
    if target.exists():
        return target
    model = onnx.load(path)
    rng = np.random.default_rng(0)
    for tensor in model.graph.initializer:
        count = int(np.prod(tensor.dims))
        empty = not (tensor.raw_data or tensor.float_data or tensor.external_data)
        if tensor.data_type == TensorProto.FLOAT and empty and count > _MOST_FILLED:
            fan = count / tensor.dims[0] if len(tensor.dims) > 2 else tensor.dims[0]
            weights = rng.standard_normal(count, dtype=np.float32) / np.sqrt(fan)
            tensor.raw_data = weights.astype(np.float32).tobytes()
    target.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, target)
    return target


def _product_model(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> onnx.ModelProto:
    kind = helper.np_dtype_to_tensor_dtype(a.dtype)
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["a", "b"], ["c"])],
        "product",
        [value("a", kind, a.shape)],
        [value("c", kind, (a.shape[0], b.shape[1]))],
        [onnx.numpy_helper.from_array(b, "b")],
    )
    opsets = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)

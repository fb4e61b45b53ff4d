"""One measurement in a process of its own, for tools/bench_startup.py and tools/bench_peers.py.

    python tools/bench_child.py RUNTIME MODEL [--cache DIR] [--through model|path]
        [--precision f32|bf16] [--serve]

RUNTIME: one of the names in LOADERS, clinfer-cpu for one; clinfer-pocl and clinfer-intel are the
CPU plugin on that OpenCL runtime. Prints one JSON line after the first result: seconds to load
(after imports), by the clock and of processors, and of the first inference. With --serve it then
runs a batch of inferences for each line on stdin and prints their times; with --processor too,
those of the calling thread's processor, which other work on the machine does not count in.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Run = Callable[[dict[str, Any]], Any]


def main() -> None:
    """Loads, runs once, prints; then serves rounds."""
    parser = argparse.ArgumentParser()
    parser.add_argument("runtime", choices=LOADERS)
    parser.add_argument("model", type=Path)
    parser.add_argument("--cache", default="")
    parser.add_argument("--through", choices=("model", "path"), default="path")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--precision", choices=("f32", "bf16"), default="f32")
    parser.add_argument("--serve", action="store_true")
    parser.add_argument("--processor", action="store_true", help="times of the calling thread's")
    options = parser.parse_args()
    inputs = sample(options.model)
    load = LOADERS[options.runtime](options)
    start, before = time.perf_counter(), time.process_time()
    run, facts = load()
    loaded, spent = time.perf_counter(), time.process_time() - before
    run(inputs)
    first = time.perf_counter()
    report = {"load": loaded - start, "cpu": spent, "first": first - loaded, **facts}
    print(json.dumps(report), flush=True)
    if options.serve:
        serve(run, inputs, time.thread_time if options.processor else time.perf_counter)


def serve(run: Run, inputs: dict[str, Any], clock: Callable[[], float]) -> None:
    """For each line with a number of seconds: inferences for that long, their times as JSON."""
    for line in sys.stdin:
        times = []
        end = time.perf_counter() + float(line)
        while len(times) < 3 or time.perf_counter() < end:
            start = clock()
            run(inputs)
            times.append(clock() - start)
        print(json.dumps(times), flush=True)


def sample(model: Path) -> dict[str, Any]:
    """The sample inputs beside the model."""
    with np.load(model.with_suffix(".npz")) as file:
        keys = [k for k in file.files if k.startswith("in:")] or ["image"]
        arrays = {k.removeprefix("in:"): file[k] for k in keys}
    return {k: v[:1] for k, v in arrays.items()}


def load_clinfer(
    device: str, **variables: str
) -> Callable[[argparse.Namespace], Callable[[], tuple[Run, dict]]]:
    """clinfer on that device, with environment variables that are set where they are not yet."""

    def prepare(options: argparse.Namespace) -> Callable[[], tuple[Run, dict]]:
        for name, value in variables.items():
            os.environ.setdefault(name, value)
        import clinfer
        import clinfer.compiled
        import clinfer.device.executor

        core = clinfer.Core()
        core.set_property({"INFERENCE_PRECISION_HINT": options.precision})
        if options.cache:
            core.set_property({"CACHE_DIR": options.cache})
        core.get_property(device, "FULL_DEVICE_NAME")
        if options.threads < (os.cpu_count() or 1):
            core.set_property({"INFERENCE_NUM_THREADS": options.threads})

        def load() -> tuple[Run, dict]:
            given = options.model
            if options.through == "model":
                given = core.read_model(given)
            compiled = core.compile_model(given, device)
            request = compiled.create_infer_request()
            facts = {
                "cached": compiled.get_property("LOADED_FROM_CACHE"),
                "built": compiled.programs_built,
            }
            return request.infer, facts

        return load

    return prepare


def load_onnxruntime(options: argparse.Namespace) -> Callable[[], tuple[Run, dict]]:
    """ONNX Runtime's CPU provider."""
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = options.threads

    def load() -> tuple[Run, dict]:
        session = onnxruntime.InferenceSession(
            str(options.model), settings, providers=["CPUExecutionProvider"]
        )
        return lambda inputs: session.run(None, inputs), {}

    return load


def load_openvino(options: argparse.Namespace) -> Callable[[], tuple[Run, dict]]:
    """OpenVINO's CPU plugin, tuned for latency; its own default may be bfloat16."""
    import openvino

    core = openvino.Core()
    core.set_property(
        "CPU",
        {
            "INFERENCE_PRECISION_HINT": options.precision,
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": options.threads,
        },
    )
    if options.cache:
        core.set_property({"CACHE_DIR": options.cache})

    def load() -> tuple[Run, dict]:
        given = str(options.model)
        if options.through == "model":
            given = core.read_model(given)
        compiled = core.compile_model(given, "CPU")
        request = compiled.create_infer_request()
        facts = {"cached": bool(options.cache and compiled.get_property("LOADED_FROM_CACHE"))}
        return request.infer, facts

    return load


def load_tinygrad(options: argparse.Namespace) -> Callable[[], tuple[Run, dict]]:
    """tinygrad's ONNX runner on OpenCL, its graph captured by TinyJit."""
    os.environ.setdefault("DEV", "CL")
    os.environ.setdefault("GPU", "1")
    from tinygrad import Tensor, TinyJit
    from tinygrad.nn.onnx import OnnxRunner

    def load() -> tuple[Run, dict]:
        runner = OnnxRunner(str(options.model))
        jitted = TinyJit(
            lambda **inputs: tuple(out.realize() for out in runner(inputs).values()), prune=True
        )

        def run(inputs: dict[str, Any]) -> Any:
            return [out.numpy() for out in jitted(**{k: Tensor(v) for k, v in inputs.items()})]

        return run, {}

    return load


LOADERS = {
    "clinfer-cpu": load_clinfer("CPU"),
    "clinfer-pocl": load_clinfer("CPU", CLINFER_CPU_PLATFORM="Portable"),
    "clinfer-intel": load_clinfer("CPU", CLINFER_CPU_PLATFORM="Intel(R) OpenCL"),
    "clinfer-gpu": load_clinfer("GPU", CLINFER_GPU_PLATFORM="Portable"),
    "onnxruntime": load_onnxruntime,
    "openvino": load_openvino,
    "tinygrad": load_tinygrad,
}

if __name__ == "__main__":
    main()

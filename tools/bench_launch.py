"""What a launch costs on top of its kernel, and requests side by side.

    python tools/bench_launch.py [--models zoo/mobilenetv2.onnx ...] [--seconds 2]

A chain of launches that do almost nothing, each dependent on the one before, run by the plan's
player and by a command queue: microseconds per launch, from the difference between a long and a
short chain. With models: inferences per second with PERFORMANCE_HINT=LATENCY, one request, against
THROUGHPUT, with as many requests as the model asks for.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

import clinfer
from clinfer.cli.common import named_sizes, random_inputs
from clinfer.device.queue_instance import QueueInstance
from clinfer.lowering.binding import bind_inputs

SHORT, LONG = 512, 1024
SHAPE = (8, 16)


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="*", type=Path, default=[])
    parser.add_argument("--seconds", type=float, default=2.0)
    options = parser.parse_args()
    print("microseconds per launch of a kernel that has next to nothing to do")
    for name, cost in launch_costs(options.seconds).items():
        print(f"  {name:<24}{cost:8.2f}")
    for path in options.models:
        latency, throughput, requests = side_by_side(path, options.seconds)
        print(
            f"{path.stem}: {latency:.1f} inferences/s one by one, {throughput:.1f} with "
            f"{requests} requests side by side ({throughput / latency:.2f} times)"
        )


def launch_costs(seconds: float) -> dict[str, float]:
    """Microseconds per launch by the way launches are run."""
    ways: dict[str, Callable[[int], Callable[[], Any]]] = {
        "player, all cores": lambda n: _session(n, streams=1),
        "player, one core": lambda n: _session(n, streams=1 << 20),
        "command queue": _queue,
    }
    costs: dict[str, float] = {}
    for name, make in ways.items():
        short, long = (median(make(n), seconds) for n in (SHORT, LONG))
        costs[name] = (long - short) / (LONG - SHORT) * 1e6
    return costs


def median(run: Callable[[], Any], seconds: float) -> float:
    """The median time of a run, in seconds."""
    for _ in range(5):
        run()
    times = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def side_by_side(path: Path, seconds: float) -> tuple[float, float, int]:
    """Inferences per second with each hint, and how many requests THROUGHPUT asks for."""
    rates = []
    for hint in ("LATENCY", "THROUGHPUT"):
        model = clinfer.Core().compile_model(path, "CPU", {"PERFORMANCE_HINT": hint})
        inputs = random_inputs(model.inputs, named_sizes(model.inputs, {}))
        queue = clinfer.AsyncInferQueue(model)
        for _ in queue:
            queue.start_async(inputs)
        queue.wait_all()
        runs = 0
        start = time.perf_counter()
        while time.perf_counter() - start < seconds:
            queue.start_async(inputs)
            runs += 1
        queue.wait_all()
        rates.append(runs / (time.perf_counter() - start))
    return rates[0], rates[1], len(queue)


def _session(launches: int, streams: int) -> Callable[[], Any]:
    model = chain(launches)
    session = model._loaded.executable.session(streams=streams)
    inputs = [_input()]
    return lambda: session.run(inputs)


def _queue(launches: int) -> Callable[[], Any]:
    model = chain(launches)
    session = model._loaded.executable.session()
    inputs = [_input()]
    sizes = bind_inputs(session.loaded.plan, [x.shape for x in inputs])
    instance = QueueInstance(session.loaded, session.queue, sizes)
    return lambda: instance.run(inputs)


def _input() -> np.ndarray[Any, Any]:
    return np.ones(SHAPE, np.float32)


def chain(launches: int) -> clinfer.CompiledModel:
    """Softmaxes along rows and columns in turn, which nothing fuses; 8 x 16 numbers each."""
    nodes = []
    for index in range(launches):
        names = [f"t{index}"], [f"t{index + 1}"]
        nodes.append(helper.make_node("Softmax", *names, axis=index % 2))
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "chain",
        [value("t0", TensorProto.FLOAT, SHAPE)],
        [value(f"t{launches}", TensorProto.FLOAT, SHAPE)],
    )
    opsets = [helper.make_opsetid("", 17)]
    onnx_model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    onnx.checker.check_model(onnx_model)
    model = clinfer.Core().compile_model(onnx_model, "CPU")
    assert len(list(model.plan.launches)) == launches
    return model


if __name__ == "__main__":
    main()

"""Operators that only move memory, next to a copy of the same bytes in the same run.

    python tools/bench_bandwidth.py [PART OF A NAME ...] [--mib 16 64] [--rounds 12] [--json FILE]
    CLINFER_CPU_PLATFORM="Intel(R) OpenCL" python tools/bench_bandwidth.py     on that runtime
    taskset -c 1 python tools/bench_bandwidth.py                               on one core

How it is counted. A rate is the bytes of the input, read once, and those of the result, written
once, over the time; what an operator reads again, or what hardware reads before it writes, does not
count, for the copy neither. All arrays are in memory before (no page is new), all have the same
threads. A copy is the faster of two: a model that gives its input back, which is clinfer's copy
kernel, and the C library's memcpy on a piece of the arrays for each thread, to one of two arrays
in turn, as results of an inference go. `kernel` is by the time of the launches (PERF_COUNT), `call`
by that of `infer`, from arrays to arrays, Python included. All take turns; a rate is what was
reached in a quarter of the turns, each of which counts its best call, so that a busy machine
disturbs ratios little; 'of the copy' is of kernels' rates.

The tensors are [N, 1024] with N as the size says; `--width` sets another width.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import cycle
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from bench_startup import machine
from clinfer.core import Core
from clinfer.threads import usable_cores

Array = np.ndarray[Any, Any]
Node = tuple[str, tuple[str, ...], dict[str, Any]]
rng = np.random.default_rng(1)

OPERATORS: dict[str, tuple[Node, ...]] = {
    "pointwise chain": (
        ("Mul", ("x", "scale"), {}),
        ("Add", ("", "bias"), {}),
        ("Relu", ("",), {}),
    ),
    "GELU": (("Gelu", ("x",), {}),),
    "tanh": (("Tanh", ("x",), {}),),
    "softmax": (("Softmax", ("x",), {"axis": -1}),),
    "layer norm": (("LayerNormalization", ("x", "scale", "bias"), {"axis": -1}),),
    "RMS norm": (("RMSNormalization", ("x", "scale"), {"axis": -1}),),
    "sum of rows": (("ReduceSum", ("x", "last"), {"keepdims": 0}),),
    "maximum of columns": (("ReduceMax", ("x", "first"), {"keepdims": 0}),),
    "transpose": (("Transpose", ("x",), {"perm": [1, 0]}),),
}
_COPY = (("Identity", ("x",), {}),)
_SECONDS = 0.02  # of a turn


@dataclass(frozen=True)
class Line:
    """Rates in GB/s, and the kernel's over the copy's; see the module's text."""

    name: str
    mib: int
    kernel: float
    call: float
    of_copy: float


@dataclass(frozen=True)
class Turn:
    """One turn: bytes read and written over the least kernel time and over the least call."""

    kernel: float
    call: float


def model(nodes: tuple[Node, ...], shape: tuple[int, int]) -> bytes:
    """A chain of nodes on x; '' is the result of the node before."""
    width = shape[1]
    constants = {name: rng.standard_normal(width, np.float32) for name in ("scale", "bias")}
    constants |= {"last": np.array([1]), "first": np.array([0])}
    made = []
    before = ""
    for number, (op, ins, attrs) in enumerate(nodes):
        out = "y" if number == len(nodes) - 1 else f"t{number}"
        made.append(helper.make_node(op, [name or before for name in ins], [out], **attrs))
        before = out
    read = {name for node in made for name in node.input}
    graph = helper.make_graph(
        made,
        "bandwidth",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, k) for k, value in constants.items() if k in read],
    )
    opsets = [helper.make_opsetid("", 23)]
    return bytes(helper.make_model(graph, opset_imports=opsets, ir_version=11).SerializeToString())


def runner(core: Core, nodes: tuple[Node, ...], x: Array) -> Callable[[], Turn]:
    """Takes a turn of the model on x."""
    compiled = core.compile_model(model(nodes, x.shape), "CPU", {"PERF_COUNT": True})
    request = compiled.create_infer_request()

    def turn() -> Turn:
        calls, kernels = [], []
        end = perf_counter() + _SECONDS
        while len(calls) < 3 or perf_counter() < end:
            start = perf_counter()
            (y,) = request.infer({"x": x}).to_tuple()
            calls.append(perf_counter() - start)
            kernels.append(sum(step.seconds for step in compiled.profiling_info))
        moved = (x.nbytes + y.nbytes) / 1e9
        return Turn(moved / min(kernels), moved / min(calls))

    return turn


def memcpy_runner(x: Array, threads: int) -> Callable[[], Turn]:
    """Takes a turn of the C library's copy: NumPy calls it, and lets other threads run."""
    sources = np.array_split(x.reshape(-1), threads)
    arrays = cycle([np.array_split(np.ones(x.size, x.dtype), threads) for _ in range(2)])
    pool = ThreadPoolExecutor(threads) if threads > 1 else None

    def copy() -> None:
        targets = next(arrays)
        if pool is None:
            np.copyto(targets[0], sources[0])
        else:
            list(pool.map(np.copyto, targets, sources))

    def turn() -> Turn:
        times = []
        end = perf_counter() + _SECONDS
        while len(times) < 3 or perf_counter() < end:
            start = perf_counter()
            copy()
            times.append(perf_counter() - start)
        rate = 2 * x.nbytes / min(times) / 1e9
        return Turn(rate, rate)

    return turn


def copies(core: Core, x: Array) -> dict[str, Callable[[], Turn]]:
    """Those that take turns at copying x; see the module's text."""
    return {"copy kernel": runner(core, _COPY, x), "memcpy": memcpy_runner(x, usable_cores())}


def measure(names: list[str], mib: int, width: int, rounds: int) -> list[Line]:
    """The copies and the operators of those names on tensors of that size."""
    x = rng.standard_normal(((mib << 18) // width, width), np.float32)
    core = Core()
    runners = copies(core, x)
    copying = tuple(runners)
    for name, nodes in OPERATORS.items():
        if not names or any(part in name for part in names):
            runners[name] = runner(core, nodes, x)
    turns: dict[str, list[Turn]] = {name: [] for name in runners}
    for number in range(rounds + 1):
        for name, turn in runners.items():
            taken = turn()
            if number:
                turns[name].append(taken)
    copy = max(_reached([t.kernel for t in turns[name]]) for name in copying)
    lines = []
    for name, taken in turns.items():
        kernel = _reached([turn.kernel for turn in taken])
        call = _reached([turn.call for turn in taken])
        lines.append(Line(name, mib, kernel, call, kernel / copy))
    return lines


def _reached(rates: list[float]) -> float:
    """The upper quartile."""
    return statistics.quantiles(rates, n=4)[2]


def main() -> None:
    """Measures, prints, writes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("names", nargs="*", help="parts of operators' names; default all")
    parser.add_argument("--mib", nargs="+", type=int, default=[16, 64], help="size of the input")
    parser.add_argument("--width", type=int, default=1024, help="elements of a row")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--json", type=Path, help="write the lines to this file")
    options = parser.parse_args()
    name = Core().get_property("CPU", "FULL_DEVICE_NAME")
    print(f"{name}, {usable_cores()} threads")
    found = []
    for mib in options.mib:
        print(f"{f'{mib} MiB':20} {'kernel':>9} {'call':>9}  of the copy")
        for line in measure(options.names, mib, options.width, options.rounds):
            print(f"{line.name:20} {line.kernel:7.1f}   {line.call:7.1f}    {line.of_copy:9.0%}")
            found.append(line)
    if options.json:
        document = {"machine": machine(), "lines": [asdict(line) for line in found]}
        options.json.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()

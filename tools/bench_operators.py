"""Single operators as models, next to ONNX Runtime and OpenVINO and to what the machine can do.

    python tools/bench_operators.py [PART OF A NAME ...] [--rounds 3] [--seconds 0.2] [--output F]
    python tools/bench_peers.py --kernel [PART OF A NAME ...]           the same

Matrix products of BERT and ViT, every distinct convolution of ResNet-50, MobileNetV2 and
EfficientNet-B0, attention, softmax, layer normalisation, a pointwise chain, rows of a few elements.
A time is that of a whole call through the runtime's own interface, median over rounds in turns,
each runtime in a process of its own. The peak is the best that an FMA loop (GFLOP/s) and a copy
(GB/s, read and written) reached on PoCL while the tool ran, measured once before each operator. The
copy is the faster of clinfer's, a whole call too, and memcpy by as many threads: bench_bandwidth.py
tells how bytes are counted, and measures kernels by themselves.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from bench_bandwidth import copies
from bench_conv import NETWORKS, onnx_layer
from bench_kernels import Peak
from bench_peers import PEERS, measure
from bench_startup import DOCS, machine
from clinfer.core import Core
from clinfer.device.discover import open_device

Array = np.ndarray[Any, Any]
OURS = "clinfer-pocl"
COPIED = 16 << 20  # bytes of a tensor that does not stay in the nearest caches
rng = np.random.default_rng(1)


@dataclass(frozen=True)
class Operator:
    """A model of one operator. Its work counts in FLOP, or in bytes read and written."""

    name: str
    work: float
    unit: str  # "GFLOP/s" | "GB/s"
    model: bytes
    feeds: dict[str, Array]


@dataclass(frozen=True)
class Line:
    """One operator as measured; `of_peak` of the peak at the end of the run."""

    name: str
    unit: str
    rate: float
    of_peak: float
    seconds: dict[str, float]
    ratio: float


def operators() -> Iterator[Operator]:
    """All of them."""
    for m, n, k in ((1024, 1024, 1024), *((m, n, k) for m in (128, 197) for n, k in _DENSE)):
        yield _matmul(m, n, k)
    layers = {layer: network for network, make in NETWORKS.items() for layer in make()}
    for layer, network in layers.items():
        arrays = layer.arrays()
        work = 2 * layer.out**2 * layer.m * layer.c // layer.groups * layer.kernel**2
        feeds = {"x": np.ascontiguousarray(np.moveaxis(arrays[0], -1, 1))}
        name = f"conv {network} {layer.name}"
        yield Operator(name, work, "GFLOP/s", onnx_layer(layer, arrays), feeds)
    for name, heads, length, depth in _ATTENTION:
        yield _attention(name, heads, length, depth)
    yield _memory("softmax", [("Softmax", ("x",), {"axis": -1})])
    norm = ("LayerNormalization", ("x", "scale", "bias"), {"axis": -1})
    yield _memory("layer norm", [norm])
    chain = [("Mul", ("x", "scale"), {}), ("Add", ("", "bias"), {}), ("Relu", ("",), {})]
    yield _memory("pointwise chain", chain)
    yield from _short()


_DENSE = ((768, 768), (3072, 768), (768, 3072))
_SHORT: tuple[tuple[str, tuple[int, ...], Any], ...] = (
    ("reduce max", (1, 15360, 3), ("ReduceMax", ("x",), {"axes": [-1], "keepdims": 0})),
    ("softmax", (1, 4420, 2), ("Softmax", ("x",), {"axis": -1})),
    ("softmax over channels", (1, 21, 16384), ("Softmax", ("x",), {"axis": 1})),
    ("transpose", (1, 3, 640, 640), ("Transpose", ("x",), {"perm": [0, 2, 3, 1]})),
    ("transpose", (1, 640, 640, 3), ("Transpose", ("x",), {"perm": [0, 3, 1, 2]})),
)
_ATTENTION = (("BERT", 12, 128, 64), ("ViT", 12, 197, 64), ("Whisper", 6, 1500, 64))


def _matmul(m: int, n: int, k: int) -> Operator:
    feeds = {"x": rng.standard_normal((1, m, k), np.float32)}
    constants = {"w": rng.standard_normal((k, n), np.float32)}
    model = _model([("MatMul", ("x", "w"), {})], feeds, constants)
    return Operator(f"matmul {m}x{n}x{k}", 2.0 * m * n * k, "GFLOP/s", model, feeds)


def _attention(name: str, heads: int, length: int, depth: int) -> Operator:
    """Scores, softmax and product, from projections [1, length, heads * depth]."""
    names = ("q", "k", "v")
    width = heads * depth
    feeds = {x: rng.standard_normal((1, length, width), np.float32) for x in names}
    constants = {
        "split": np.array([1, length, heads, depth]),
        "joined": np.array([1, length, width]),
        "factor": np.float32(1 / math.sqrt(depth)),
    }
    nodes: list[tuple[str, tuple[str, ...], dict[str, Any]]] = []
    for x in names:
        perm = [0, 2, 3, 1] if x == "k" else [0, 2, 1, 3]
        nodes.append(("Reshape", (x, "split"), {}))
        nodes.append(("Transpose", ("",), {"perm": perm, "out": f"{x}h"}))
    nodes += [
        ("MatMul", ("qh", "kh"), {}),
        ("Mul", ("", "factor"), {}),
        ("Softmax", ("",), {"axis": -1}),
        ("MatMul", ("", "vh"), {}),
        ("Transpose", ("",), {"perm": [0, 2, 1, 3]}),
        ("Reshape", ("", "joined"), {}),
    ]
    work = 4.0 * heads * length * length * depth
    model = _model(nodes, feeds, constants)
    return Operator(f"attention {name}", work, "GFLOP/s", model, feeds)


def _memory(name: str, nodes: list[Any]) -> Operator:
    """Operators whose time is that of reading and writing a tensor."""
    width = 1024
    feeds = {"x": rng.standard_normal((1, COPIED // 4 // width, width), np.float32)}
    constants = {x: rng.standard_normal(width, np.float32) for x in ("scale", "bias")}
    return Operator(name, 2.0 * COPIED, "GB/s", _model(nodes, feeds, constants), feeds)


def _short() -> Iterator[Operator]:
    """Rows of a few elements, as detectors have them, and channels that lie side by side."""
    for name, shape, node in _SHORT:
        feeds = {"x": rng.standard_normal(shape, np.float32)}
        work = 2.0 * feeds["x"].nbytes
        label = f"{name} {'x'.join(map(str, shape))}"
        yield Operator(label, work, "GB/s", _model([node], feeds, {}), feeds)
    feeds = {"x": rng.standard_normal((1, 4420, 4), np.float32)}
    constants = {f"prior{k}": rng.random((1, 4420, 2), np.float32) for k in "cs"}
    constants |= {k: np.int64([v]) for k, v in (("from", 0), ("middle", 2), ("to", 4))}
    constants |= {"axis": np.int64([2]), "half": np.float32(0.5), "tenth": np.float32(0.1)}
    nodes: list[Any] = [
        ("Slice", ("x", "middle", "to", "axis"), {}),
        ("Exp", ("",), {}),
        ("Mul", ("", "priors"), {}),
        ("Mul", ("", "half"), {"out": "size"}),
        ("Slice", ("x", "from", "middle", "axis"), {}),
        ("Mul", ("", "tenth"), {}),
        ("Mul", ("", "priors"), {}),
        ("Add", ("", "priorc"), {"out": "centre"}),
        ("Sub", ("centre", "size"), {"out": "low"}),
        ("Add", ("centre", "size"), {"out": "high"}),
        ("Concat", ("low", "high"), {"axis": 2}),
    ]
    work = 2.0 * feeds["x"].nbytes
    yield Operator("box decoding 4420", work, "GB/s", _model(nodes, feeds, constants), feeds)


def _model(nodes: list[Any], feeds: dict[str, Array], constants: dict[str, Any]) -> bytes:
    """A chain of nodes; '' is the result of the node before."""
    made = []
    before = ""
    for number, (op, ins, attrs) in enumerate(nodes):
        out = attrs.get("out", "y" if number == len(nodes) - 1 else f"t{number}")
        rest = {k: v for k, v in attrs.items() if k != "out"}
        made.append(helper.make_node(op, [x or before for x in ins], [out], **rest))
        before = out
    read = {x for node in made for x in node.input}
    graph = helper.make_graph(
        made,
        "operator",
        [helper.make_tensor_value_info(k, TensorProto.FLOAT, v.shape) for k, v in feeds.items()],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items() if k in read],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


class Peaks:
    """The best rates seen so far of an FMA loop and of a copy, by unit."""

    def __init__(self) -> None:
        self._loop = Peak(open_device("CPU").target)
        x = rng.standard_normal((COPIED // 4096, 1024), np.float32)
        self._copies = tuple(copies(Core(), x).values())
        self.best = {"GFLOP/s": 0.0, "GB/s": 0.0}

    def measure(self) -> None:
        """Looks once more."""
        turns = [turn().call for turn in self._copies]
        found = {"GFLOP/s": self._loop.measure(), "GB/s": max(turns)}
        self.best = {unit: max(value, found[unit]) for unit, value in self.best.items()}


def main(arguments: list[str] | None = None) -> None:
    """Measures, prints, writes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("names", nargs="*", help="parts of operators' names; default all")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=0.2)
    parser.add_argument("--output", type=Path, default=DOCS / "operators.json")
    options = parser.parse_args(arguments)
    peaks = Peaks()
    found = []
    for operator in operators():
        if options.names and not any(name in operator.name for name in options.names):
            continue
        peaks.measure()
        seconds = _seconds(operator, options.rounds, options.seconds)
        if OURS in seconds:
            found.append((operator, seconds))
            print(f"{operator.name:60} {seconds[OURS] * 1e6:8.0f} us", flush=True)
    lines = [_line(operator, seconds, peaks) for operator, seconds in found]
    _show(lines, peaks)
    document = {"machine": machine(), "peaks": peaks.best, "operators": [asdict(x) for x in lines]}
    options.output.write_text(json.dumps(document, indent=2) + "\n")


def _seconds(operator: Operator, rounds: int, seconds: float) -> dict[str, float]:
    """The median time of a call by runtime."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "operator.onnx"
        path.write_bytes(operator.model)
        feeds: dict[str, Any] = {f"in:{name}": array for name, array in operator.feeds.items()}
        np.savez(path.with_suffix(".npz"), **feeds)
        found = measure(path, [OURS, *PEERS], rounds, seconds)
    return {runtime: times["median"] for runtime, times in found.items()}


def _line(operator: Operator, seconds: dict[str, float], peaks: Peaks) -> Line:
    reached = operator.work / seconds[OURS] / 1e9
    others = [seconds[runtime] for runtime in PEERS if runtime in seconds]
    ratio = seconds[OURS] / min(others) if others else math.nan
    part = reached / peaks.best[operator.unit]
    return Line(operator.name, operator.unit, reached, part, seconds, ratio)


def _show(lines: list[Line], peaks: Peaks) -> None:
    """The table; the ratio is clinfer's time over the faster peer's."""
    print("\n" + ", ".join(f"peak {value:.0f} {unit}" for unit, value in peaks.best.items()))
    print(f"{'operator':60} {'rate':>7} {'':8} {'of peak':>7} {'ratio':>6}")
    for line in lines:
        numbers = f"{line.rate:7.1f} {line.unit:8} {line.of_peak:7.0%} {line.ratio:6.2f}"
        print(f"{line.name:60} {numbers}")


if __name__ == "__main__":
    main()

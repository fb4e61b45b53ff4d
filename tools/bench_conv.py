"""Speed of the convolution kernels, layer by layer, beside a measured peak and ONNX Runtime.

    python tools/bench_conv.py                        every distinct layer of three networks
    python tools/bench_conv.py resnet50 --tiles       one network; every candidate of each layer

Columns: GFLOP/s, part of the peak (multiplying and adding in registers, as in bench_kernels), GB/s
counting each element of input, weights and output once, microseconds, and how many times as fast
as ONNX Runtime running the one layer (0 where it is not installed). A network's last line counts
each layer as often as the network has it; its part of the peak is weighted by time.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from math import inf
from typing import Any

import numpy as np

from bench_kernels import TARGETS, Peak, seconds_of, session, time_kernel
from clinfer.device.discover import open_device
from clinfer_kernels import conv
from clinfer_kernels.dims import evaluate
from clinfer_kernels.expr import Builder, Expr
from clinfer_kernels.spec import Kernel, Target, Tensor, dense
from clinfer_kernels.specs import ConvSpec

Array = np.ndarray[Any, Any]
ROUNDS = 4
rng = np.random.default_rng(1)


@dataclass(frozen=True)
class Layer:
    """A square convolution of one image with a bias and an activation."""

    size: int
    c: int
    m: int
    kernel: int = 1
    stride: int = 1
    groups: int = 1
    activation: str = "relu"

    @property
    def out(self) -> int:
        """Height and width of the output; the padding keeps the size at stride 1."""
        return (self.size + 2 * self.pad - self.kernel) // self.stride + 1

    @property
    def pad(self) -> int:
        return self.kernel // 2

    @property
    def name(self) -> str:
        kind = "depthwise" if self.groups > 1 else f"{self.kernel}x{self.kernel}"
        kind += f" {self.kernel}x{self.kernel}" if self.groups > 1 else ""
        stride = f"/{self.stride}" if self.stride > 1 else ""
        return f"{self.size}x{self.size} {self.c} -> {self.m} {kind}{stride} {self.activation}"

    @property
    def elements(self) -> int:
        """Of input, weights and output."""
        weights = self.m * self.c // self.groups * self.kernel**2
        return self.size**2 * self.c + weights + self.out**2 * self.m

    def spec(self) -> ConvSpec:
        shape = (1, self.out, self.out, self.m)
        return ConvSpec(
            kernel=(self.kernel,) * 2,
            strides=(self.stride,) * 2,
            pads=(self.pad,) * 4,
            dilations=(1, 1),
            groups=self.groups,
            constant_w=True,
            epilogue=_epilogue(self.activation),
            ins=(
                dense("float32", (1, self.size, self.size, self.c)),
                dense("float32", (self.m, self.c // self.groups, self.kernel, self.kernel)),
                Tensor("float32", shape, (0, 0, 0, 1)),
            ),
            outs=(dense("float32", shape),),
        )

    def arrays(self) -> tuple[Array, Array, Array]:
        """Input (channels last), weights, bias."""
        spec = self.spec()
        x, w = (rng.standard_normal(t.shape).astype(np.float32) for t in spec.ins[:2])
        return x, w, rng.standard_normal(self.m).astype(np.float32)


def _epilogue(activation: str) -> Expr:
    make = Builder(["float32", "float32"])
    x = make.op("add", 0, 1)
    zero, one, six = (make.const(v, "float32") for v in (0.0, 1.0, 6.0))
    if activation == "silu":
        grown = make.op("add", make.op("exp", make.op("neg", x)), one)
        return make.build(make.op("mul", x, make.op("reciprocal", grown)))
    if activation in ("relu", "relu6"):
        x = make.op("max_with", zero, x)
    if activation == "relu6":
        x = make.op("min_with", six, x)
    return make.build(x)


def resnet50() -> Iterator[Layer]:
    """He et al., "Deep Residual Learning for Image Recognition", 2016 (stride in the 3 x 3)."""
    yield Layer(224, 3, 64, 7, 2)
    size, c = 56, 64
    for width, blocks, stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
        for block in range(blocks):
            step = stride if block == 0 else 1
            yield Layer(size, c, width)
            yield Layer(size, width, width, 3, step)
            if block == 0:
                yield Layer(size, c, 4 * width, 1, step, activation="none")
            size //= step
            yield Layer(size, width, 4 * width)
            c = 4 * width


def mobilenetv2() -> Iterator[Layer]:
    """Sandler et al., "MobileNetV2", 2018, table 2."""
    yield Layer(224, 3, 32, 3, 2, activation="relu6")
    rows = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2))
    rows += ((6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
    yield from _inverted(112, 32, ((t, m, n, s, 3) for t, m, n, s in rows), "relu6")
    yield Layer(7, 320, 1280, activation="relu6")


def efficientnet_b0() -> Iterator[Layer]:
    """Tan & Le, "EfficientNet", 2019, table 1; without squeeze and excitation."""
    yield Layer(224, 3, 32, 3, 2, activation="silu")
    rows = ((1, 16, 1, 1, 3), (6, 24, 2, 2, 3), (6, 40, 2, 2, 5), (6, 80, 3, 2, 3))
    rows += ((6, 112, 3, 1, 5), (6, 192, 4, 2, 5), (6, 320, 1, 1, 3))
    yield from _inverted(112, 32, rows, "silu")
    yield Layer(7, 320, 1280, activation="silu")


def _inverted(size: int, c: int, rows: Any, activation: str) -> Iterator[Layer]:
    """Inverted residual blocks: expansion, filters, blocks, stride, kernel."""
    for expansion, filters, blocks, stride, kernel in rows:
        for block in range(blocks):
            step = stride if block == 0 else 1
            wide = c * expansion
            if expansion > 1:
                yield Layer(size, c, wide, activation=activation)
            yield Layer(size, wide, wide, kernel, step, wide, activation)
            size = -(-size // step)
            yield Layer(size, wide, filters, activation="none")
            c = filters


NETWORKS = {f.__name__: f for f in (resnet50, mobilenetv2, efficientnet_b0)}


@dataclass(frozen=True)
class Line:
    """A measured layer with one tile."""

    network: str
    layer: str
    count: int
    tile: str
    gflops: float
    of_peak: float
    gbytes: float
    seconds: float
    ort_seconds: float


def measure(
    layer: Layer, count: int, network: str, target: Target, every: bool, best: Peak
) -> Iterator[Line]:
    """One line for the best candidate, or one for each; all is measured in turns."""
    spec = layer.spec()
    arrays = layer.arrays()
    tiles = conv.candidates(spec, target)
    ort = ort_runner(layer, arrays)
    for tile in tiles if every else tiles[:1]:
        kernel = conv.emit(spec, tile, target)
        flops = evaluate(kernel.flops, {})
        ours = theirs = inf
        peak = 0.0
        for _ in range(ROUNDS):
            ours = min(ours, _seconds(kernel, arrays, layer))
            theirs = min(theirs, seconds_of(ort)) if ort else 0.0
            peak = best.measure()
        gflops = flops / ours / 1e9
        gbytes = layer.elements * 4 / ours / 1e9
        yield Line(
            network, layer.name, count, str(tile), gflops, gflops / peak, gbytes, ours, theirs
        )


def _seconds(kernel: Kernel, arrays: tuple[Array, ...], layer: Layer) -> float:
    out = ((1, layer.out, layer.out, layer.m), "float32")
    return time_kernel(kernel, arrays, [out], repeats=4, batch=4)


def onnx_layer(layer: Layer, arrays: tuple[Array, Array, Array]) -> bytes:
    """A model of the layer: x [1, C, size, size] to y, bias and activation included."""
    from onnx import TensorProto, helper, numpy_helper

    _, w, bias = arrays
    attrs = {"pads": [layer.pad] * 4, "strides": [layer.stride] * 2, "group": layer.groups}
    nodes = [helper.make_node("Conv", ["x", "w", "b"], ["s"], **attrs)]
    nodes += [helper.make_node(op, ins, [out]) for op, ins, out in _ACTIVATIONS[layer.activation]]
    initial = {"w": w, "b": bias}
    if layer.activation == "relu6":
        initial |= {"zero": np.float32(0), "six": np.float32(6)}
    shape = (1, layer.c, layer.size, layer.size)
    graph = helper.make_graph(
        nodes,
        "layer",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in initial.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


def ort_runner(layer: Layer, arrays: tuple[Array, Array, Array]) -> Any:
    """ONNX Runtime on the same layer, bias and ReLU included; None where it is not installed."""
    try:
        import onnxruntime
    except ImportError:
        return None
    first = np.ascontiguousarray(np.moveaxis(arrays[0], -1, 1))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = TARGETS["cpu"].compute_units
    made = onnxruntime.InferenceSession(
        onnx_layer(layer, arrays), options, providers=["CPUExecutionProvider"]
    )
    return lambda: made.run(None, {"x": first})


_ACTIVATIONS = {
    "none": [("Identity", ["s"], "y")],
    "relu": [("Relu", ["s"], "y")],
    "relu6": [("Clip", ["s", "zero", "six"], "y")],
    "silu": [("Sigmoid", ["s"], "g"), ("Mul", ["s", "g"], "y")],
}


def main() -> None:
    """Prints tables, or JSON lines."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("network", nargs="*", help=f"of {', '.join(NETWORKS)}; default all")
    parser.add_argument("--tiles", action="store_true", help="every candidate, not only the best")
    parser.add_argument("--cls", choices=sorted(TARGETS), default="cpu", help="class of schedules")
    parser.add_argument(
        "--lanes", type=int, help="float32 lanes of a vector register; default: the CPU device's"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    options = parser.parse_args()
    target = TARGETS[options.cls]._replace(local_mem=session().device.local_mem_size)
    if options.cls == "cpu":
        lanes = options.lanes or open_device("CPU").target.vector_width
        target = target._replace(vector_width=lanes)
    best = Peak(target)
    if not options.json:
        print(session().device.name.strip())
    for network in options.network or NETWORKS:
        lines = []
        for layer, count in Counter(NETWORKS[network]()).items():
            for line in measure(layer, count, network, target, options.tiles, best):
                lines.append(line)
                show(line, options.json)
        if not (options.json or options.tiles):
            total(network, lines)


def show(line: Line, as_json: bool) -> None:
    """Prints a layer."""
    if as_json:
        print(json.dumps(asdict(line)), flush=True)
        return
    faster = line.ort_seconds / line.seconds
    print(
        f"{line.layer:40} x{line.count:<3} {line.gflops:7.1f} {line.of_peak:6.1%} "
        f"{line.gbytes:6.1f} GB/s {line.seconds * 1e6:7.0f} us {faster:5.2f} x ORT",
        flush=True,
    )


def total(network: str, lines: list[Line]) -> None:
    """Prints a network's sums."""
    seconds = sum(x.seconds * x.count for x in lines)
    ort = sum(x.ort_seconds * x.count for x in lines)
    of_peak = sum(x.of_peak * x.seconds * x.count for x in lines) / seconds
    print(
        f"{network}: {seconds * 1e3:.2f} ms, {of_peak:.1%} of the peak, "
        f"ONNX Runtime's layers {ort * 1e3:.2f} ms\n",
        flush=True,
    )


if __name__ == "__main__":
    main()

"""Speed of the matmul and attention kernels, beside a measured peak, NumPy and ONNX Runtime.

    python tools/bench_kernels.py                     every case, the best candidate
    python tools/bench_kernels.py attention --all     cases named 'attention', every candidate
    CLINFER_TEST_PLATFORM=Intel python tools/bench_kernels.py    on that OpenCL platform, not PoCL

The peak is the best that the device reaches in the run multiplying and adding in registers; all
columns of a line are measured in turns, and each keeps its best time, so that a busy machine
disturbs ratios little.
Columns: GFLOP/s, part of the peak, and how many times as fast as NumPy and ONNX Runtime (0 where
it is not installed).
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
for folder in ("tests", "tests/kernels", "kernels", "runtime"):
    sys.path.insert(0, str(ROOT / folder))

import numpy as np  # noqa: E402
from harness import TARGETS, session, time_kernel  # noqa: E402

from clinfer.device.discover import open_device  # noqa: E402
from clinfer_kernels import attention, matmul  # noqa: E402
from clinfer_kernels.dims import evaluate  # noqa: E402
from clinfer_kernels.expr import Builder, Expr, identity  # noqa: E402
from clinfer_kernels.peaks import fma_loop  # noqa: E402
from clinfer_kernels.spec import Kernel, Target, Tensor, dense, row_major  # noqa: E402
from clinfer_kernels.specs import AttentionSpec, MatmulSpec  # noqa: E402

Array = np.ndarray[Any, Any]
ROUNDS = 5
rng = np.random.default_rng(1)


@dataclass(frozen=True)
class Case:
    """A kernel family's spec with inputs, and the same computation elsewhere."""

    name: str
    family: Any
    spec: Any
    ins: tuple[Array, ...]
    shape: tuple[int, ...]
    numpy: Callable[[], object]
    onnx: Callable[[], bytes]
    feeds: dict[str, Array]


@dataclass(frozen=True)
class Line:
    """One measured line."""

    name: str
    tile: str
    gflops: float
    peak: float
    of_peak: float
    times_numpy: float
    times_ort: float


def matmul_case(
    name: str, m: int, n: int, k: int, constant: bool = True, gelu: bool = False
) -> Case:
    """[m, k] @ [k, n], with a bias and GELU's error function if wanted."""
    a = rng.standard_normal((m, k)).astype(np.float32)
    b = rng.standard_normal((k, n)).astype(np.float32)
    bias = rng.standard_normal(n).astype(np.float32)
    shape = (m, n)
    ins = [dense("float32", a.shape), dense("float32", b.shape)]
    if gelu:
        ins.append(Tensor("float32", shape, (0, 1)))
    expr = _gelu() if gelu else identity("float32")
    spec = MatmulSpec(constant, expr, tuple(ins), (dense("float32", shape),))
    arrays = (a, b, bias) if gelu else (a, b)
    initial = {"B": b} if constant else {}
    feeds = {"A": a} if constant else {"A": a, "B": b}
    graph = lambda: _onnx([("MatMul", ("A", "B"), "Y", {})], feeds, initial, shape)  # noqa: E731
    return Case(name, matmul, spec, arrays, shape, lambda: a @ b, graph, feeds)


def _gelu() -> Expr:
    make = Builder(["float32", "float32"])
    x = make.op("add", 0, 1)
    scaled = make.op("mul", x, make.const(math.sqrt(0.5), "float32"))
    half = make.op("mul", x, make.const(0.5, "float32"))
    return make.build(
        make.op("mul", half, make.op("add", make.op("erf", scaled), make.const(1.0, "float32")))
    )


def attention_case(name: str, heads: int, queries: int, keys: int, depth: int, **how: Any) -> Case:
    """Projections [1, S, H * D], read through strides; NumPy gets its preferred layout."""
    q, k, v = (
        rng.standard_normal((1, n, heads, depth)).astype(np.float32) for n in (queries, keys, keys)
    )
    views = tuple(_heads_first(x.shape) for x in (q, k, v))
    masks = (np.zeros((1, 1, 1, keys), np.float32),) if how.get("mask") else ()
    ins = [*views, *(Tensor("float32", (1, heads, queries, keys), (0, 0, 0, 1)) for _ in masks)]
    scale = 1 / math.sqrt(depth)
    causal = bool(how.get("causal"))
    spec = AttentionSpec(scale, causal, bool(masks), tuple(ins), (views[0],))
    first = [np.ascontiguousarray(x.swapaxes(1, 2)) for x in (q, k, v)]

    def reference() -> Array:
        scores = first[0] @ first[1].swapaxes(-1, -2)
        scores *= scale
        scores -= scores.max(-1, keepdims=True)
        np.exp(scores, out=scores)
        scores /= scores.sum(-1, keepdims=True)
        return np.asarray(scores @ first[2])

    feeds = {x: y.reshape(1, -1, heads * depth) for x, y in zip("QKV", (q, k, v), strict=True)}
    fused = {"num_heads": heads, "scale": scale, "unidirectional": int(causal)}
    nodes = [("com.microsoft.MultiHeadAttention", ("Q", "K", "V"), "Y", fused)]
    shape = (1, queries, heads * depth)
    graph = lambda: _onnx(nodes, feeds, {}, shape)  # noqa: E731
    return Case(name, attention, spec, (q, k, v, *masks), q.shape, reference, graph, feeds)


def _heads_first(shape: tuple[int, ...]) -> Tensor:
    s0, s1, s2, s3 = row_major(shape)
    return Tensor("float32", (shape[0], shape[2], shape[1], shape[3]), (s0, s2, s1, s3))


def cases() -> list[Case]:
    """The sizes of common models, and square ones."""
    return [
        matmul_case("matmul 1024x1024x1024", 1024, 1024, 1024),
        matmul_case("matmul 128x768x768 (BERT)", 128, 768, 768),
        matmul_case("matmul 128x3072x768 (BERT)", 128, 3072, 768),
        matmul_case("matmul 128x3072x768 bias, GELU", 128, 3072, 768, gelu=True),
        matmul_case("matmul 128x768x3072 (BERT)", 128, 768, 3072),
        matmul_case("matmul 197x768x768 (ViT)", 197, 768, 768),
        matmul_case("matmul 256x512x8192", 256, 512, 8192),
        matmul_case("matmul 1x1000x2048 (ResNet-50)", 1, 1000, 2048),
        matmul_case("matmul 1x3072x768 (decoding)", 1, 3072, 768),
        matmul_case("matmul 512x512x512, both dynamic", 512, 512, 512, constant=False),
        attention_case("attention 12 x 128 x 128 x 64 (BERT)", 12, 128, 128, 64),
        attention_case("attention BERT with a padding mask", 12, 128, 128, 64, mask=True),
        attention_case("attention 12 x 197 x 197 x 64 (ViT)", 12, 197, 197, 64),
        attention_case("attention 6 x 1500 x 1500 x 64 (Whisper)", 6, 1500, 1500, 64),
        attention_case("attention 1 x 16384 x 256 x 32 (SegFormer)", 1, 16384, 256, 32),
        attention_case("attention 12 x 512 x 512 x 64, causal", 12, 512, 512, 64, causal=True),
        attention_case("attention 12 x 1 x 512 x 64 (decoding)", 12, 1, 512, 64),
    ]


def _onnx(
    nodes: list[Any], feeds: dict[str, Array], initial: dict[str, Array], shape: tuple[int, ...]
) -> bytes:
    from onnx import TensorProto, helper, numpy_helper

    def port(name: str, sizes: tuple[int, ...]) -> Any:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, sizes)

    made = []
    for kind, ins, out, attrs in nodes:
        domain, _, op = kind.rpartition(".")
        made.append(helper.make_node(op, ins, [out], domain=domain, **attrs))
    graph = helper.make_graph(
        made,
        "bench",
        [port(name, array.shape) for name, array in feeds.items()],
        [port("Y", shape)],
        [numpy_helper.from_array(array, name) for name, array in initial.items()],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    return bytes(model.SerializeToString())


def ort_runner(case: Case) -> Callable[[], object] | None:
    """ONNX Runtime on the same computation; None where it is not installed."""
    try:
        import onnxruntime
    except ImportError:
        return None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = TARGETS["cpu"].compute_units
    made = onnxruntime.InferenceSession(case.onnx(), options, providers=["CPUExecutionProvider"])
    return lambda: made.run(None, case.feeds)


_PEAK_ROUNDS = 20000


class Peak:
    """The best that the FMA loop has reached in this run."""

    def __init__(self, target: Target) -> None:
        self._kernel = fma_loop(target, _PEAK_ROUNDS)
        self.best = 0.0
        for _ in range(10):
            self.measure()

    def measure(self) -> float:
        """Looks once more; GFLOP/s."""
        self.best = max(self.best, rate(self._kernel, (), self._kernel.launches[0].global_size, 1))
        return self.best


def rate(kernel: Kernel, ins: tuple[Array, ...], shape: tuple[int, ...], batch: int) -> float:
    """GFLOP/s of the best of a few queued runs."""
    seconds = time_kernel(kernel, ins, [(shape, "float32")], repeats=4, batch=batch)
    return evaluate(kernel.flops, {}) / seconds / 1e9


def seconds_of(run: Callable[[], object]) -> float:
    """The least time of a few calls."""
    best = math.inf
    for _ in range(8):
        begin = perf_counter()
        run()
        best = min(best, perf_counter() - begin)
    return best


def measure(case: Case, target: Target, every: bool, best: Peak) -> Iterator[Line]:
    """One line for the best candidate, or one for each."""
    tiles = case.family.candidates(case.spec, target)
    ort = ort_runner(case)
    for tile in tiles if every else tiles[:1]:
        kernel = case.family.emit(case.spec, tile, target)
        flops = evaluate(kernel.flops, {})
        batch = 10 if flops < 1e8 else 2
        ours = peak = numpy_rate = ort_rate = 0.0
        for _ in range(ROUNDS):
            ours = max(ours, rate(kernel, case.ins, case.shape, batch))
            numpy_rate = max(numpy_rate, flops / seconds_of(case.numpy) / 1e9)
            if ort is not None:
                ort_rate = max(ort_rate, flops / seconds_of(ort) / 1e9)
            peak = best.measure()
        yield Line(
            case.name,
            str(tile),
            round(ours, 1),
            round(peak, 1),
            round(ours / peak, 3),
            round(ours / numpy_rate, 2),
            round(ours / ort_rate, 2) if ort_rate else 0.0,
        )


def main() -> None:
    """Prints a table, or JSON lines."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("name", nargs="?", default="", help="part of the cases' names")
    parser.add_argument("--all", action="store_true", help="every candidate, not only the best")
    parser.add_argument("--cls", choices=sorted(TARGETS), default="cpu", help="class of schedules")
    parser.add_argument(
        "--lanes", type=int, help="float32 lanes of a vector register; default: the CPU device's"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    options = parser.parse_args()
    lanes = options.lanes or open_device("CPU").target.vector_width
    target = TARGETS[options.cls]
    if options.cls == "cpu":
        target = target._replace(vector_width=lanes)
    best = Peak(target)
    if not options.json:
        print(session().device.name.strip())
        print(f"{'case':44} {'GFLOP/s':>8} {'of peak':>8} {'x NumPy':>8} {'x ORT':>8}")
    for case in cases():
        if options.name not in case.name:
            continue
        for line in measure(case, target, options.all, best):
            if options.json:
                print(json.dumps(asdict(line)), flush=True)
                continue
            numbers = (line.gflops, line.of_peak, line.times_numpy, line.times_ort)
            print(f"{line.name:44}", *(f"{x:8.4g}" for x in numbers), end="", flush=True)
            print(f"  {line.tile}" if options.all else "", flush=True)


if __name__ == "__main__":
    main()

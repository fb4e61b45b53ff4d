"""Control flow next to ONNX Runtime: a voice detector whose rate of sampling chooses its half.

    python tools/bench_control.py [--device CPU] [--batch 1] [--rounds 400] [--steps 100]

Then loops of `--steps` steps that only the run knows: a small network until a condition, a greedy
decoder with a cache that grows, a Scan over time.

The model is of the kind of silero-vad: an If on `sr`, 16000 or not, with a network in each branch:
framed convolutions for as many samples as 32 ms have, an LSTM of 128 units whose state goes in and
out, a probability. Times are the tenth percentile of calls in turns, in one process.
"""

from __future__ import annotations

import argparse
from functools import partial
from time import perf_counter
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

UNITS = 128
SAMPLES = {16000: 512, 8000: 256}

Array = np.ndarray[Any, Any]


def detector(batch: int | str = "batch", samples: int | str = "samples") -> onnx.ModelProto:
    """The model; `bias`, which both branches read, is a constant of the outer graph."""
    rng = np.random.default_rng(7)
    constants = [
        numpy_helper.from_array(np.int64(16000), "wideband"),
        numpy_helper.from_array(rng.normal(0, 0.1, UNITS).astype(np.float32), "bias"),
    ]
    nodes = [
        helper.make_node("Tanh", ["audio"], ["soft"]),
        helper.make_node("Equal", ["sr", "wideband"], ["is_wide"]),
        helper.make_node(
            "If",
            ["is_wide"],
            ["speech", "next"],
            name="rate",
            then_branch=_half("wide", 256, rng),
            else_branch=_half("narrow", 128, rng),
        ),
    ]
    state = [2, batch, UNITS]
    graph = helper.make_graph(
        nodes,
        "detector",
        [
            helper.make_tensor_value_info("audio", TensorProto.FLOAT, [batch, samples]),
            helper.make_tensor_value_info("state", TensorProto.FLOAT, state),
            helper.make_tensor_value_info("sr", TensorProto.INT64, []),
        ],
        [
            helper.make_tensor_value_info("speech", TensorProto.FLOAT, [batch, 1]),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, state),
        ],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return model


def feeds(rate: int, batch: int = 1, seed: int = 0) -> dict[str, Array]:
    """Inputs for a rate: 32 ms of noise and a state."""
    rng = np.random.default_rng(seed)
    return {
        "audio": rng.normal(0, 0.5, (batch, SAMPLES[rate])).astype(np.float32),
        "state": rng.normal(0, 0.5, (2, batch, UNITS)).astype(np.float32),
        "sr": np.array(rate, np.int64),
    }


def _half(name: str, frame: int, rng: np.random.Generator) -> onnx.GraphProto:
    """A branch: frames of the audio, two convolutions, the LSTM over them, the last probability."""

    def weight(label: str, *shape: int) -> str:
        array = rng.normal(0, 1 / np.sqrt(np.prod(shape[1:])), shape).astype(np.float32)
        constants.append(numpy_helper.from_array(array, f"{name}_{label}"))
        return f"{name}_{label}"

    def node(op: str, inputs: list[str], label: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(op, inputs, [f"{name}_{label}"], **attributes))
        return f"{name}_{label}"

    constants = [
        numpy_helper.from_array(np.array(content, np.int64), f"{name}_{label}")
        for label, content in {"one": [1], "first": [0], "second": [1]}.items()
    ]
    nodes: list[onnx.NodeProto] = []
    x = node("Unsqueeze", ["soft", f"{name}_one"], "channel")
    x = node("Conv", [x, weight("basis", 64, 1, frame)], "frames", strides=[frame // 2])
    x = node("Abs", [x], "magnitude")
    x = node("Conv", [x, weight("mix", UNITS, 64, 3), "bias"], "mixed", pads=[1, 1])
    x = node("Relu", [x], "kept")
    x = node("Transpose", [x], "steps", perm=[2, 0, 1])
    h = node("Gather", ["state", f"{name}_first"], "h", axis=0)
    c = node("Gather", ["state", f"{name}_second"], "c", axis=0)
    gates = [weight("w", 1, 4 * UNITS, UNITS), weight("r", 1, 4 * UNITS, UNITS)]
    results = [f"{name}_all", f"{name}_hidden", f"{name}_cell"]
    lstm = ["LSTM", [x, *gates, "", "", h, c], results]
    nodes.append(helper.make_node(*lstm, hidden_size=UNITS))
    next_state = node("Concat", results[1:], "next", axis=0)
    last = node("Squeeze", [results[1], f"{name}_first"], "last")
    score = node("Gemm", [last, weight("head", 1, UNITS)], "score", transB=1)
    speech = node("Sigmoid", [score], "speech")
    outputs = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in (speech, next_state)
    ]
    return helper.make_graph(nodes, name, [], outputs, constants)


_HEAD = '<ir_version: 8, opset_import: ["": 18]>'
LOOPS = {
    "condition": """m (int64 n, float[1, 64] x, float[64, 64] w) => (y)
        <bool go = {1}, float top = {9}> {
        y = Loop(n, go, x) <body = b (int64 i, bool c, float[1, 64] s) => (d, t) {
            p = MatMul(s, w) q = Add(p, x) t = Tanh(q) m = ReduceMax<keepdims = 0>(t)
            d = Less(m, top) }>
    }""",
    "cache": """m (int64 n, float[1, 64] x, float[64, 64] w) => (z) <bool go = {1}> {
        y, k, z = Loop(n, go, x, x) <body = b (int64 i, bool c, float[1, 64] s, float[L, 64] k)
            => (d, t, j, t) {
            d = Identity(c) j = Concat<axis = 0>(k, s) f = Transpose<perm = [1, 0]>(j)
            a = MatMul(s, f) r = Softmax<axis = -1>(a) v = MatMul(r, j) p = MatMul(v, w)
            t = Tanh(p) }>
    }""",
    "scan": """m (float[N, 1, 64] x, float[64, 64] w, float[1, 64] h) => (z) {
        y, z = Scan<num_scan_inputs = 1, body = b (float[1, 64] s, float[1, 64] p) => (t, u) {
            q = MatMul(s, w) r = Add(q, p) t = Tanh(r) u = Mul(t, p) }>(h, x)
    }""",
}


def loop_feeds(name: str, steps: int) -> dict[str, Array]:
    """Inputs of one of `LOOPS` for so many steps."""
    rng = np.random.default_rng(3)
    w = rng.normal(0, 0.1, (64, 64)).astype(np.float32)
    row = rng.normal(0, 1, (1, 64)).astype(np.float32)
    if name == "scan":
        return {"x": np.repeat(row[None], steps, 0), "w": w, "h": row}
    return {"n": np.array(steps, np.int64), "x": row, "w": w}


def _times(calls: dict[str, Any], rounds: int) -> dict[str, float]:
    """The tenth percentile in microseconds of calls in turns."""
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(rounds + 20):
        for name, call in calls.items():
            start = perf_counter()
            call()
            if number >= 20:
                taken[name].append(perf_counter() - start)
    return {name: float(np.percentile(found, 10)) * 1e6 for name, found in taken.items()}


def main() -> None:
    import onnxruntime

    import clinfer

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="CPU")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=400)
    parser.add_argument("--steps", type=int, default=100)
    options = parser.parse_args()
    content = detector().SerializeToString()
    theirs = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    core = clinfer.Core()
    for name, text in LOOPS.items():
        loop = onnx.parser.parse_model(_HEAD + text).SerializeToString()
        x = loop_feeds(name, options.steps)
        peer = onnxruntime.InferenceSession(loop, providers=["CPUExecutionProvider"])
        model = core.compile_model(core.read_model(loop), options.device)
        error = float(np.abs(model(x)[0] - peer.run(None, x)[0]).max())
        calls = {"ours": partial(model, x), "theirs": partial(peer.run, None, x)}
        times = _times(calls, options.rounds // 4)
        print(
            f"{name}, {options.steps} steps, {len(model.host_steps)} host steps: clinfer "
            f"{times['ours']:.0f} us, ONNX Runtime {times['theirs']:.0f} us, ratio "
            f"{times['ours'] / times['theirs']:.2f}; largest difference {error:.1e}"
        )
    ours = core.compile_model(core.read_model(content), options.device)
    print(f"{len(list(ours.plan.launches))} launches, {len(ours.host_steps)} host steps")
    for rate in SAMPLES:
        x = feeds(rate, options.batch)
        wanted, found = theirs.run(None, x), ours(x)
        error = max(float(np.abs(found[n] - w).max()) for n, w in enumerate(wanted))
        calls = {"ours": partial(ours, x), "theirs": partial(theirs.run, None, x)}
        times = _times(calls, options.rounds)
        print(
            f"sr {rate}: clinfer {times['ours']:.1f} us, ONNX Runtime {times['theirs']:.1f} us, "
            f"ratio {times['ours'] / times['theirs']:.2f}; largest difference {error:.1e}"
        )


if __name__ == "__main__":
    main()

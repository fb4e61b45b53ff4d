"""Quantised operators become arithmetic with kernels; layers that differ in scales share them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnxruntime import GraphOptimizationLevel, InferenceSession, SessionOptions

from clinfer.passes.pipeline import PHASES
from passes.interpreter import run_graph
from passes.passes_helpers import check, kinds, model, optimised, random

QUANTISED = {
    "QuantizeLinear",
    "DequantizeLinear",
    "MatMulInteger",
    "QLinearMatMul",
    "ConvInteger",
    "QLinearConv",
}


class Case(NamedTuple):
    """One model, its constants, and the input x."""

    signature: str
    body: str
    constants: dict[str, Any]
    x: np.ndarray
    opset: int = 21


def integers(shape: tuple[int, ...], dtype: str, seed: int = 0) -> np.ndarray:
    limits = np.iinfo(dtype)
    rng = np.random.default_rng(seed)
    return rng.integers(limits.min, limits.max, shape, dtype, endpoint=True)


def weights(shape: tuple[int, ...]) -> np.ndarray:
    """int8 of 7 bits: ONNX Runtime's products of uint8 and int8 saturate on processors without
    VNNI where two neighbours sum to more than 16 bits."""
    return integers(shape, "int8", 1) // 2


def f(*numbers: float) -> np.ndarray:
    return np.array(numbers, np.float32)


ACTIVATIONS = {"xs": np.float32(0.02), "xz": np.uint8(120)}
RESULT = {"ys": np.float32(0.7), "yz": np.uint8(131)}
CASES = {
    "to uint8": Case(
        "float[3, 40] x => uint8[3, 40] y",
        "y = QuantizeLinear(x, s, z)",
        {"s": np.float32(0.017), "z": np.uint8(128)},
        random((3, 40)) * 2,
    ),
    "to int8 without a zero point, out of range too": Case(
        "float[3, 40] x => int8[3, 40] y",
        "y = QuantizeLinear<output_dtype = 3>(x, s)",
        {"s": np.float32(0.017)},
        random((3, 40)) * 1e4,
    ),
    "to int16 by axis": Case(
        "float[2, 3, 5] x => int16[2, 3, 5] y",
        "y = QuantizeLinear<axis = 1>(x, s, z)",
        {"s": f(0.01, 0.002, 0.5), "z": np.array([0, -7, 300], np.int16)},
        random((2, 3, 5)),
    ),
    "to uint8 in blocks": Case(
        "float[2, 6] x => uint8[2, 6] y",
        "y = QuantizeLinear<axis = -1, block_size = 3>(x, s, z)",
        {"s": f(0.01, 0.02, 0.04, 0.03).reshape(2, 2), "z": integers((2, 2), "uint8")},
        random((2, 6)),
    ),
    "from int8": Case(
        "int8[3, 40] x => float[3, 40] y",
        "y = DequantizeLinear(x, s, z)",
        {"s": np.float32(0.3), "z": np.int8(-3)},
        integers((3, 40), "int8"),
    ),
    "from uint16 by the last axis": Case(
        "uint16[4, 3] x => float[4, 3] y",
        "y = DequantizeLinear<axis = -1>(x, s, z)",
        {"s": f(0.3, 0.1, 2), "z": integers((3,), "uint16")},
        integers((4, 3), "uint16"),
    ),
    "from int32": Case(
        "int32[3, 40] x => float[3, 40] y",
        "y = DequantizeLinear(x, s)",
        {"s": np.float32(1e-6)},
        integers((3, 40), "int32"),
    ),
    "from int8 in blocks": Case(
        "int8[2, 6] x => float[2, 6] y",
        "y = DequantizeLinear<axis = 1, block_size = 2>(x, s, z)",
        {"s": f(1, 2, 3, 4, 5, 6).reshape(2, 3), "z": integers((2, 3), "int8")},
        integers((2, 6), "int8"),
    ),
    "dynamic": Case(
        "float[3, 40] x => uint8[3, 40] y, float s, uint8 z",
        "y, s, z = DynamicQuantizeLinear(x)",
        {},
        random((3, 40)),
    ),
    "integer product, exact": Case(
        "uint8[4, 1200] x => int32[4, 7] y",
        "y = MatMulInteger(x, w, xz, wz)",
        {"w": weights((1200, 7)), "xz": np.uint8(3), "wz": integers((7,), "int8", 2)},
        integers((4, 1200), "uint8"),
    ),
    "quantised product": Case(
        "uint8[4, 20] x => uint8[4, 7] y",
        "y = QLinearMatMul(x, xs, xz, w, ws, wz, ys, yz)",
        {
            **ACTIVATIONS,
            **RESULT,
            "w": weights((20, 7)),
            "ws": np.float32(0.01),
            "wz": np.int8(5),
        },
        integers((4, 20), "uint8"),
    ),
    "integer convolution": Case(
        "uint8[1, 3, 8, 8] x => int32[1, 5, 8, 8] y",
        "y = ConvInteger<pads = [1, 1, 1, 1]>(x, w, xz)",
        {"w": integers((5, 3, 3, 3), "uint8", 1), "xz": np.uint8(9)},
        integers((1, 3, 8, 8), "uint8"),
    ),
    "integer convolution with a zero point beyond int8": Case(
        "uint8[2, 3, 8, 9] x => int32[2, 5, 4, 9] y",
        "y = ConvInteger<pads = [1, 0, 1, 2], strides = [2, 1]>(x, w, xz, wz)",
        {
            "w": integers((5, 3, 3, 3), "uint8", 1),
            "xz": np.uint8(9),
            "wz": np.uint8(201),
        },
        integers((2, 3, 8, 9), "uint8"),
    ),
    "dynamically quantised convolution with a zero point beyond int8": Case(
        "float[1, 3, 7, 7] x => int32[1, 4, 7, 7] y",
        "q, s, z = DynamicQuantizeLinear(x) "
        "y = ConvInteger<pads = [2, 2, 2, 2], dilations = [2, 2]>(q, w, z, wz)",
        {"w": integers((4, 3, 3, 3), "uint8", 1), "wz": np.uint8(113)},
        random((1, 3, 7, 7)),
    ),
    "quantised convolution by channel": Case(
        "uint8[1, 4, 8, 8] x => uint8[1, 6, 4, 4] y",
        "y = QLinearConv<pads = [1, 1, 1, 1], strides = [2, 2], group = 2>"
        "(x, xs, xz, w, ws, wz, ys, yz, b)",
        {
            **ACTIVATIONS,
            **RESULT,
            "w": weights((6, 2, 3, 3)),
            "ws": np.abs(random((6,), 2)) / 50,
            "wz": np.zeros(6, np.int8),
            "b": integers((6,), "int16", 3).astype(np.int32),
        },
        integers((1, 4, 8, 8), "uint8"),
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_with_the_results_of_onnx_runtime(case: Case) -> None:
    proto = model(case.signature, case.body, case.constants, case.opset)
    graph, _ = optimised(proto, "canonicalise")
    assert not QUANTISED & set(kinds(graph))
    check(proto, {"x": case.x})


def test_a_maximum_of_bytes_before_maxpool_took_them() -> None:
    """MaxPool is of floats alone up to operator set 11."""
    proto = model(
        "int8[1, 2, 6, 6] x => float[1, 2, 3, 3] y",
        "d = DequantizeLinear(x, s, z) "
        "m = MaxPool<kernel_shape = [3, 3], strides = [2, 2], pads = [1, 1, 0, 0]>(d) "
        "q = QuantizeLinear(m, s, z) y = DequantizeLinear(q, s, z)",
        {"s": np.float32(0.3), "z": np.int8(-3)},
        11,
    )
    check(proto, {"x": integers((1, 2, 6, 6), "int8")}, cls="cpu")


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("cls", ["cpu", "gpu"])
def test_a_last_block_of_weights_may_be_a_part(cls: str, turned: bool) -> None:
    """ONNX Runtime rounds x to bytes there, so what is wanted comes from NumPy."""
    codes, zeros = integers((48, 6), "uint8", 1), integers((2, 6), "uint8", 3)
    scales, x = np.abs(random((2, 6), 2)), random((3, 48))
    parts = {"w": codes, "s": scales, "z": zeros}
    decoding = "d = DequantizeLinear<axis = 0, block_size = 32>(w, s, z)"
    if turned:
        parts = {name: np.ascontiguousarray(part.T) for name, part in parts.items()}
        decoding = "e = DequantizeLinear<axis = 1, block_size = 32>(w, s, z) d = Transpose(e)"
    proto = model("float[3, 48] x => float[3, 6] y", f"{decoding} y = MatMul(x, d)", parts, 21)
    graph, _ = optimised(proto, list(PHASES)[-1], cls)
    (found,) = run_graph(graph, {"x": x})
    block = np.arange(48) // 32
    wanted = x @ ((codes.astype(np.float32) - zeros[block]) * scales[block])
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-3)


@settings(max_examples=25, deadline=None)
@given(st.floats(1e-4, 1e3), st.integers(-128, 127), st.integers(0, 999))
def test_there_and_back_is_off_by_half_a_step(scale: float, zero: int, seed: int) -> None:
    x = random((5, 7), seed) * np.float32(scale * 40)
    proto = model(
        "float[5, 7] x => float[5, 7] y",
        "q = QuantizeLinear(x, s, z) y = DequantizeLinear(q, s, z)",
        {"s": np.float32(scale), "z": np.int8(zero)},
    )
    check(proto, {"x": x}, atol=1e-6 * scale)


def _layers(count: int) -> Any:
    """Linear layers between quantisations, each with scales of its own."""
    body = []
    constants: dict[str, Any] = {}
    for i in range(count):
        body += [
            f"q{i} = QuantizeLinear(x{i}, s{i}, z{i})",
            f"d{i} = DequantizeLinear(q{i}, s{i}, z{i})",
            f"m{i} = MatMul(d{i}, w{i})",
            f"x{i + 1} = Relu(m{i})",
        ]
        constants[f"s{i}"] = np.float32(0.01 + 0.003 * i)
        constants[f"z{i}"] = np.uint8(100 + i)
        constants[f"w{i}"] = random((16, 16), i) / 4
    return model(f"float[4, 16] x0 => float[4, 16] x{count}", " ".join(body), constants)


def test_layers_that_differ_in_their_scales_share_their_kernels() -> None:
    found = {}
    for count in (3, 9):
        graph = check(_layers(count), {"x0": random((4, 16))}, atol=0.05)
        found[count] = {
            str(node.attrs.get(name))
            for node in graph.nodes
            for name in ("expr", "epilogue", "prologue")
        }
    assert found[3] == found[9]


def test_one_layer_keeps_its_literals() -> None:
    graph, _ = optimised(_layers(1))
    assert all(value.shape != () for node in graph.nodes for value in node.inputs if value)


def test_what_a_sum_reads_stays_bytes_in_memory() -> None:
    body = [
        "a = DequantizeLinear(q, s, z)",
        *(f"m{i} = MatMul(a, w{i}) r{i} = QuantizeLinear(m{i}, s, z)" for i in range(2)),
        *(f"d{i} = DequantizeLinear(r{i}, s, z)" for i in range(2)),
        "y = Add(d0, d1)",
    ]
    constants = {"s": np.float32(0.05), "z": np.uint8(130)}
    for i in range(2):
        codes = f"c{i}"
        body.insert(0, f"w{i} = DequantizeLinear({codes}, t{i})")
        constants |= {codes: np.roll(weights((16, 16)), i), f"t{i}": np.float32(0.01)}
    proto = model("uint8[4, 16] q => float[4, 16] y", " ".join(body), constants)
    graph, _ = optimised(proto, cls="cpu")
    made = [node.output.dtype for node in graph.nodes if node.op == "MatMul"]
    assert sorted(map(str, made)) == ["float32", "uint8"]


HALVES = {
    "of a sum": (
        "d = DequantizeLinear(x, s, z) t = Transpose(x) e = DequantizeLinear(t, r, z)"
        " a = Add(d, e) y = QuantizeLinear(a, q, z)",
        {"s": np.float32(0.0235), "r": np.float32(0.03), "q": np.float32(0.04), "z": np.int8(9)},
    ),
    "of a sum with a constant in bytes": (
        "d = DequantizeLinear(x, s, z) c = DequantizeLinear(k, s, z) a = Add(d, c)"
        " y = QuantizeLinear(a, q, z)",
        {"s": np.float32(1 / 127), "q": np.float32(2 / 127), "k": np.int8(127), "z": np.int8(0)},
    ),
}


@pytest.mark.parametrize("name", HALVES)
def test_integers_and_a_half_fall_as_the_definition_lets_them(name: str) -> None:
    """Where scales have simple ratios these are frequent; each operator's rounding decides."""
    body, constants = HALVES[name]
    proto = model("int8[64, 64] x => int8[64, 64] y", body, constants, 21)
    x = integers((64, 64), "int8")
    options = SessionOptions()
    options.graph_optimization_level = GraphOptimizationLevel.ORT_DISABLE_ALL
    session = InferenceSession(proto.SerializeToString(), options)
    graph, _ = optimised(proto, cls="cpu")
    np.testing.assert_array_equal(run_graph(graph, {"x": x})[0], session.run(None, {"x": x})[0])

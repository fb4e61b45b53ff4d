"""Functions of one quantised tensor are tables of its bytes; what moves, moves bytes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from passes.passes_helpers import check, model, optimised

ALL = np.arange(256, dtype=np.uint8)
S = {"s": np.float32(0.05), "z": np.uint8(121), "t": np.float32(0.03), "u": np.uint8(60)}
SILU = (
    "d = DequantizeLinear(x, s, z) g = Sigmoid(d) gq = QuantizeLinear(g, o, n)"
    " gd = DequantizeLinear(gq, o, n) m = Mul(d, gd) y = QuantizeLinear(m, t, u)"
)
UNIT = {"o": np.float32(1 / 255), "n": np.uint8(0)}
CASES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "an activation": ("uint8", SILU, UNIT),
    "several operators with constants": (
        "uint8",
        "d = DequantizeLinear(x, s, z) a = Add(d, k) r = LeakyRelu<alpha = 0.2>(a)"
        " h = HardSwish(r) b = Mul(h, d) y = QuantizeLinear(b, t, u)",
        {"k": np.full((1, 1, 1), 0.7, np.float32)},
    ),
    "of signed bytes": (
        "int8",
        "d = DequantizeLinear(x, s, z) g = Tanh(d) y = QuantizeLinear(g, t, u)",
        {"z": np.int8(-7), "u": np.int8(3)},
    ),
    "from unsigned to signed bytes": (
        "uint8",
        "d = DequantizeLinear(x, s, z) g = Elu(d) y = QuantizeLinear(g, t, u)",
        {"u": np.int8(-3)},
    ),
    "another scale": (
        "uint8",
        "d = DequantizeLinear(x, s, z) y = QuantizeLinear(d, t, u)",
        {},
    ),
}


def case_of(name: str) -> tuple[Any, np.ndarray]:
    dtype, body, more = CASES[name]
    constants = {**S, **more}
    result = "int8" if constants["u"].dtype == np.int8 else "uint8"
    used = {k: v for k, v in constants.items() if f" {k}" in body or f"({k}" in body}
    signature = f"{dtype}[2, 8, 16] x => {result}[2, 8, 16] y"
    return model(signature, body, used, 21), ALL.view(dtype).reshape(2, 8, 16)


@pytest.mark.parametrize("name", CASES)
def test_a_function_of_one_tensor_is_a_table(name: str) -> None:
    proto, x = case_of(name)
    graph, _ = optimised(proto, cls="cpu")
    (node,) = graph.nodes
    assert "lookup" in {line.op for line in node.attrs["expr"].lines}
    check(proto, {"x": x}, cls="cpu")


def test_what_reads_two_tensors_is_no_table() -> None:
    body = (
        "a = DequantizeLinear(x, s, z) b = DequantizeLinear(w, s, z) m = Mul(a, b)"
        " y = QuantizeLinear(m, t, u)"
    )
    proto = model("uint8[2, 128] x, uint8[2, 128] w => uint8[2, 128] y", body, S, 21)
    check(proto, {"x": ALL.reshape(2, 128), "w": ALL[::-1].reshape(2, 128)}, cls="cpu", atol=1)


def test_parts_and_sums_of_parts_stay_bytes() -> None:
    body = (
        "d = DequantizeLinear(x, s, z) a, b = Split<axis = 1>(d, c)"
        " aq = QuantizeLinear(a, s, z) ad = DequantizeLinear(aq, s, z)"
        " bq = QuantizeLinear(b, t, u) bd = DequantizeLinear(bq, t, u)"
        ' e = Resize<mode = "nearest", coordinate_transformation_mode = "asymmetric",'
        ' nearest_mode = "floor">(ad, , k)'
        " eq = QuantizeLinear(e, t, u) ed = DequantizeLinear(eq, t, u)"
        ' f = Resize<mode = "nearest", coordinate_transformation_mode = "asymmetric",'
        ' nearest_mode = "floor">(bd, , k)'
        " fq = QuantizeLinear(f, s, z) fd = DequantizeLinear(fq, s, z)"
        " j = Concat<axis = 1>(ed, fd) y = QuantizeLinear(j, t, u)"
    )
    scales = np.array([1, 1, 2, 2], np.float32)
    constants = {**S, "c": np.array([3, 5], np.int64), "k": scales}
    proto = model("uint8[1, 8, 4, 8] x => uint8[1, 8, 8, 16] y", body, constants, 21)
    graph, _ = optimised(proto, cls="cpu")
    floats = [v for n in graph.nodes for v in n.outputs if v is not None and v.dtype == "float32"]
    assert not floats
    check(proto, {"x": ALL.reshape(1, 8, 4, 8)}, cls="cpu")

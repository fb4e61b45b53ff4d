"""Models of float16 are computed in float32 on CPUs."""

from __future__ import annotations

import numpy as np
import pytest

from clinfer.graph.ir import Graph
from passes.passes_helpers import check, kinds, model, optimised, random

_X = "float16[2, 3, 6, 6] x"
_BODY = """a = Conv<kernel_shape = [3, 3]>(x, w) b = Relu(a) c = GlobalAveragePool(b)
           d = Flatten(c) e = MatMul(d, v) f = Add(e, one) y = Softmax(f)"""
_CONSTANTS = {
    "w": random((4, 3, 3, 3), 1, "float16"),
    "v": random((4, 5), 2, "float16"),
    "one": np.float16(1),
}
_FEED = {"x": random((2, 3, 6, 6), 3, "float16")}


def halves(graph: Graph) -> set[str]:
    """The nodes that make float16."""
    return {
        node.kind
        for node in graph.nodes
        if any(v is not None and v.dtype == "float16" for v in node.outputs)
    }


def test_only_inputs_and_outputs_stay_float16():
    proto = model(f"{_X} => float16[2, 5] y", _BODY, _CONSTANTS)
    graph = check(proto, _FEED, rtol=1e-2, atol=1e-2, cls="cpu")
    assert [v.dtype for v in (*graph.inputs, *graph.outputs)] == ["float16", "float16"]
    values = [v for v in graph.values() if v.dtype == "float16"]
    made = [v for v in values if v.producer is None or v.producer.kind != "Transpose"]
    assert len(made) == 2, values
    assert "float16" in {v.dtype for v in optimised(proto)[0].values() if v.const is not None}


def test_types_that_attributes_state_follow():
    body = """h = Cast<to = 10>(x) m = MatMul(h, w) e = EyeLike<dtype = 10>(m)
              s = Add(m, e) y = Cast<to = 1>(s)"""
    proto = model("float[4, 4] x => float[4, 4] y", body, {"w": random((4, 4), 1, "float16")})
    graph = check(proto, {"x": random((4, 4))}, rtol=1e-2, atol=1e-2, cls="cpu")
    assert not halves(graph)


def test_an_input_that_is_also_an_output_is_not_touched():
    proto = model(
        "float16[4, 4] x => float16[4, 4] y, float16[4, 4] z",
        "y = MatMul(x, w) z = Identity(x)",
        {"w": random((4, 4), 1, "float16")},
    )
    check(proto, {"x": random((4, 4), 2, "float16")}, rtol=1e-2, atol=1e-2, cls="cpu")


@pytest.mark.parametrize(
    ("signature", "body"),
    [
        ("float16[4, 4] x => float16[4, 4] y", "a = Exp(x) y = Add(a, w)"),
        (
            "float16[4, 4] x, bool c => float16[4, 4] y",
            """m = MatMul(x, w)
            y = If<then_branch = t () => (float16[4, 4] p) { p = Neg(m) },
                   else_branch = e () => (float16[4, 4] q) { q = Exp(m) }>(c)""",
        ),
    ],
)
def test_what_stays(signature, body):
    proto = model(signature, body, {"w": random((4, 4), 1, "float16")})
    assert halves(optimised(proto, cls="cpu")[0])


def test_gpus_keep_float16():
    proto = model(f"{_X} => float16[2, 5] y", _BODY, _CONSTANTS)
    assert "clinfer.Conv" in halves(optimised(proto)[0])
    assert kinds(optimised(proto)[0])["Cast"] == 0

"""Sizes known only in a run: one that is 1 repeats, one that does not fit is refused."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper

from api.made import finished
from clinfer.errors import ShapeError


class Case(NamedTuple):
    """An operator, its inputs' declared dimensions, and shapes of runs, good and bad."""

    op: str
    declared: list[list[Any]]
    good: list[list[tuple[int, ...]]]
    bad: list[list[tuple[int, ...]]] = []
    opset: int = 21
    attrs: dict[str, Any] = {}


CASES = {
    "a number and a name": Case(
        "Mul", [["n", 4], ["c"]], [[(2, 4), (1,)], [(2, 4), (4,)]], [[(2, 4), (3,)]]
    ),
    "two names": Case(
        "Add", [["n", 3], ["m", 3]], [[(1, 3), (5, 3)], [(5, 3), (1, 3)]], [[(2, 3), (5, 3)]]
    ),
    "no elements": Case("Add", [["n", 3], ["m", 3]], [[(0, 3), (1, 3)], [(0, 3), (0, 3)]]),
    "batches of a product": Case(
        "MatMul", [["n", 2, 3], ["m", 3, 2]], [[(1, 2, 3), (4, 3, 2)], [(4, 2, 3), (1, 3, 2)]]
    ),
    "inner sizes of a product": Case(
        "MatMul", [["n", "k"], ["l", 3]], [[(2, 4), (4, 3)]], [[(2, 4), (3, 3)], [(2, 1), (4, 3)]]
    ),
    "the bias of Gemm": Case(
        "Gemm",
        [["a", 3], [3, "e"], ["c"]],
        [[(2, 3), (3, 4), (1,)], [(2, 3), (3, 4), (4,)]],
        [[(2, 3), (3, 4), (3,)]],
    ),
    "the scale of a normalisation": Case(
        "LayerNormalization",
        [["n", "q"], ["k"]],
        [[(2, 5), (1,)], [(2, 5), (5,)]],
        [[(2, 5), (3,)]],
    ),
    "channels of a convolution": Case(
        "Conv",
        [["n", "c", 5, 5], ["m", "d", 3, 3]],
        [[(2, 2, 5, 5), (3, 2, 3, 3)]],
        [[(2, 2, 5, 5), (3, 4, 3, 3)], [(2, 4, 5, 5), (3, 2, 3, 3)]],
    ),
    "a reduction of nothing": Case("ReduceSum", [["n", "m"]], [[(3, 0)], [(0, 3)]]),
}


def _arrays(case: Case, shapes: list[tuple[int, ...]]) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    return {f"x{i}": rng.standard_normal(s).astype("f") for i, s in enumerate(shapes)}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_as_onnx_runtime_or_refused(case, core, device):
    names = [f"x{i}" for i in range(len(case.declared))]
    node = helper.make_node(case.op, names, ["y"], **case.attrs)
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, dims)
        for name, dims in zip(names, case.declared, strict=True)
    ]
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    proto = finished(helper.make_graph([node], "g", inputs, [output]), case.opset)
    model = core.compile_model(proto, device)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options)
    for shapes in case.good:
        feeds = _arrays(case, shapes)
        (expected,) = session.run(None, feeds)
        found = model(feeds)["y"]
        assert found.shape == expected.shape
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    for shapes in case.bad:
        with pytest.raises(ShapeError):
            model(_arrays(case, shapes))
    feeds = _arrays(case, case.good[-1])
    np.testing.assert_allclose(model(feeds)["y"], session.run(None, feeds)[0], rtol=1e-4, atol=1e-5)

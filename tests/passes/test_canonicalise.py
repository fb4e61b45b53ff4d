"""Canonical form: each operator's many forms become docs/ir.md's one, with the same results."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest

from clinfer_kernels.dims import evaluate, sym
from passes.passes_helpers import check, kinds, model, optimised, random

I = np.int64  # noqa: E741 - the dtype of shapes and axes


class Case(NamedTuple):
    """One model; `left` are the kinds of node that canonicalisation leaves."""

    signature: str
    body: str
    constants: dict[str, Any]
    left: dict[str, int]
    opset: int = 18
    shape: tuple[int, ...] = (2, 3, 4)


_X = "float[2, 3, 4] x =>"
CASES = {
    "identity": Case(f"{_X} float[2, 3, 4] y", "a = Identity(x) y = Identity(a)", {}, {}),
    "dropout": Case(f"{_X} float[2, 3, 4] y", "y = Dropout(x)", {}, {}),
    "dropout mask": Case(
        f"{_X} float[2, 3, 4] y, bool[2, 3, 4] m", "y, m = Dropout(x)", {}, {"Expand": 1}
    ),
    "cast": Case(f"{_X} float[2, 3, 4] y", "y = Cast<to = 1>(x)", {}, {}),
    "flatten": Case(f"{_X} float[6, 4] y", "y = Flatten<axis = 2>(x)", {}, {"Reshape": 1}),
    "views": Case(
        f"{_X} float[2, 12] y",
        "a = Unsqueeze(x, ax) b = Squeeze(a, ax) c = Reshape(b, s) y = Flatten(c)",
        {"ax": np.array([1], I), "s": np.array([2, 2, 6], I)},
        {"Reshape": 1},
    ),
    "same shape": Case(
        f"{_X} float[2, 3, 4] y", "y = Reshape(x, s)", {"s": np.array([2, -1, 4], I)}, {}
    ),
    "old squeeze": Case(
        "float[2, 1, 4] x => float[2, 4] y",
        "y = Squeeze<axes = [1]>(x)",
        {},
        {"Reshape": 1},
        opset=11,
        shape=(2, 1, 4),
    ),
    "transposes": Case(
        f"{_X} float[2, 3, 4] y",
        "a = Transpose(x) b = Transpose<perm = [2, 1, 0]>(a) y = Transpose<perm = [0, 1, 2]>(b)",
        {},
        {},
    ),
    "expand": Case(
        f"{_X} float[5, 2, 3, 4] y",
        "y = Expand(x, s)",
        {"s": np.array([5, 1, 1, 4], I)},
        {"Expand": 1},
    ),
    "slice": Case(
        f"{_X} float[1, 2, 2] y",
        "y = Slice(x, b, e, a, s)",
        {
            "b": np.array([-1, 0, 100], I),
            "e": np.array([9, 2, -9], I),
            "a": np.array([0, 1, 2], I),
            "s": np.array([1, 1, -2], I),
        },
        {"Slice": 1},
    ),
    "old slice": Case(
        f"{_X} float[2, 2, 4] y",
        "y = Slice<starts = [1], ends = [3], axes = [1]>(x)",
        {},
        {"Slice": 1},
        opset=9,
    ),
    "whole slice": Case(
        f"{_X} float[2, 3, 4] y",
        "y = Slice(x, b, e)",
        {"b": np.array([0, 0], I), "e": np.array([99, 3], I)},
        {},
    ),
    "split": Case(
        f"{_X} float[2, 1, 4] y, float[2, 2, 4] z",
        "y, z = Split<axis = -2>(x, n)",
        {"n": np.array([1, 2], I)},
        {"Slice": 2},
    ),
    "split evenly": Case(
        f"{_X} float[2, 3, 2] y, float[2, 3, 2] z",
        "y, z = Split<axis = 2, num_outputs = 2>(x)",
        {},
        {"Slice": 2},
    ),
    "gather one": Case(
        f"{_X} float[2, 4] y",
        "y = Gather<axis = 1>(x, i)",
        {"i": np.array(-1, I)},
        {"Slice": 1, "Reshape": 1},
    ),
    "gather some": Case(
        f"{_X} float[2, 3, 2] y",
        "y = Gather<axis = 2>(x, i)",
        {"i": np.array([1, 2], I)},
        {"Slice": 1},
    ),
    "gather apart": Case(
        f"{_X} float[2, 3, 2] y",
        "y = Gather<axis = 2>(x, i)",
        {"i": np.array([-1, 0], I)},
        {"Gather": 1},
    ),
    "concat": Case(
        f"{_X} float[2, 3, 8] y",
        "y = Concat<axis = -1>(x, none, x)",
        {"none": np.zeros((2, 3, 0), np.float32)},
        {"Concat": 1},
    ),
    "tile": Case(
        f"{_X} float[4, 3, 12] y",
        "y = Tile(x, r)",
        {"r": np.array([2, 1, 3], I)},
        {"Reshape": 2, "Expand": 1},
    ),
    "gemm": Case(
        "float[4, 2] x => float[2, 3] y",
        "y = Gemm<transA = 1, transB = 1, alpha = 0.5, beta = 2.0>(x, w, b)",
        {"w": random((3, 4)), "b": random((3,))},
        {"Transpose": 1, "MatMul": 1, "Mul": 2, "Add": 1},
        shape=(4, 2),
    ),
    "vector times matrix": Case(
        f"{_X} float[2, 4] y",
        "y = MatMul(w, x)",
        {"w": random((3,))},
        {"MatMul": 1, "Reshape": 1},
    ),
    "matrix times vector": Case(
        f"{_X} float[2, 3] y",
        "y = MatMul(x, w)",
        {"w": random((4,))},
        {"MatMul": 1, "Reshape": 1},
    ),
    "reduce all": Case(f"{_X} float[1, 1, 1] y", "y = ReduceSum(x)", {}, {"ReduceSum": 1}),
    "reduce axes": Case(
        f"{_X} float[3] y",
        "y = ReduceMean<keepdims = 0>(x, a)",
        {"a": np.array([-1, 0], I)},
        {"ReduceMean": 1},
    ),
    "reduce nothing": Case(
        f"{_X} float[2, 3, 4] y",
        "a = ReduceMax<noop_with_empty_axes = 1>(x) y = ReduceL1<noop_with_empty_axes = 1>(a)",
        {},
        {"Abs": 1},
    ),
    "arg max": Case(f"{_X} int64[1, 3, 4] y", "y = ArgMax(x)", {}, {"ArgMax": 1}),
    "softmax": Case(f"{_X} float[2, 3, 4] y", "y = Softmax(x)", {}, {"clinfer.Softmax": 1}),
    "softmax elsewhere": Case(
        f"{_X} float[2, 3, 4] y",
        "y = LogSoftmax<axis = 0>(x)",
        {},
        {"clinfer.Softmax": 1, "Transpose": 2},
    ),
    "layer norm": Case(
        f"{_X} float[2, 3, 4] y",
        "y = LayerNormalization<axis = 1, epsilon = 0.1>(x, s, b)",
        {"s": random((3, 4)), "b": random((3, 4), 1)},
        {"clinfer.Norm": 1, "Mul": 1, "Add": 1},
    ),
    "layer norm statistics": Case(
        f"{_X} float[2, 3, 4] y, float[2, 1, 1] m, float[2, 1, 1] d",
        "y, m, d = LayerNormalization<axis = 1>(x, s)",
        {"s": random((3, 4))},
        {
            "Reshape": 4,
            "Mul": 3,
            "ReduceMean": 2,
            "Sub": 2,
            "Div": 1,
            "Add": 1,
            "Sqrt": 1,
            "Reciprocal": 1,
        },
    ),
    "instance norm": Case(
        f"{_X} float[2, 3, 4] y",
        "y = InstanceNormalization(x, s, b)",
        {"s": random((3,)), "b": random((3,), 1)},
        {"clinfer.Norm": 1, "Mul": 1, "Add": 1},
    ),
    "group norm": Case(
        "float[2, 6, 4] x => float[2, 6, 4] y",
        "y = GroupNormalization<num_groups = 3>(x, s, b)",
        {"s": random((6,)), "b": random((6,), 1)},
        {"Reshape": 2, "clinfer.Norm": 1, "Mul": 1, "Add": 1},
        opset=21,
        shape=(2, 6, 4),
    ),
    "global pool": Case(
        f"{_X} float[2, 3, 1] y", "y = GlobalAveragePool(x)", {}, {"ReduceMean": 1}
    ),
    "batch norm": Case(
        f"{_X} float[2, 3, 4] y",
        "y = BatchNormalization(x, s, b, m, v)",
        {"s": random((3,)), "b": random((3,), 1), "m": random((3,), 2), "v": random((3,), 3) ** 2},
        {"Mul": 1, "Add": 1},
    ),
    "powers": Case(
        f"{_X} float[2, 3, 4] y",
        "a = Pow(x, two) b = Pow(a, half) c = Pow(b, one) y = Pow(c, three)",
        {"two": np.float32(2), "half": np.float32(0.5), "one": np.float32(1), "three": np.int64(3)},
        {"Mul": 3, "Sqrt": 1},
    ),
    "depth to space": Case(
        "float[1, 8, 2, 3] x => float[1, 2, 4, 6] y",
        'y = DepthToSpace<blocksize = 2, mode = "CRD">(x)',
        {},
        {"Reshape": 2, "Transpose": 1},
        shape=(1, 8, 2, 3),
    ),
    "space to depth": Case(
        "float[1, 2, 4, 6] x => float[1, 8, 2, 3] y",
        "y = SpaceToDepth<blocksize = 2>(x)",
        {},
        {"Reshape": 2, "Transpose": 1},
        shape=(1, 2, 4, 6),
    ),
    "einsum": Case(
        f"{_X} float[2, 5, 3] y",
        'y = Einsum<equation = "bij, jk -> bki">(x, w)',
        {"w": random((4, 5))},
        {"Reshape": 2, "MatMul": 1, "Transpose": 1},
    ),
    "einsum of three": Case(
        f"{_X} float[2, 3, 5] y",
        'y = Einsum<equation = "bsn, nhd, bsh -> bsd">(x, w, v)',
        {"w": random((4, 6, 5)), "v": random((2, 3, 6))},
        {"Reshape": 3, "MatMul": 2, "Transpose": 1},
    ),
    "einsum of one": Case(
        f"{_X} float[4, 2] y",
        'y = Einsum<equation = "bij -> jb">(x)',
        {},
        {"ReduceSum": 1, "Transpose": 1},
    ),
    "einsum without a sum": Case(
        f"{_X} float[3, 5, 2, 4] y",
        'y = Einsum<equation = "bij, k -> ikbj">(x, w)',
        {"w": random((5,))},
        {"Reshape": 2, "Mul": 1, "Transpose": 1},
    ),
    "einsum with an ellipsis": Case(
        f"{_X} float[2, 3, 5] y",
        'y = Einsum<equation = "a...j, ...jk">(x, w)',
        {"w": random((1, 3, 4, 5))[0, :1]},
        {"Reshape": 2, "MatMul": 1, "Transpose": 1},
    ),
    "einsum with sums of one operand": Case(
        f"{_X} float[] y",
        'y = Einsum<equation = "bij, kj ->">(x, w)',
        {"w": random((5, 4))},
        {"Reshape": 3, "MatMul": 1, "ReduceSum": 2},
    ),
    "trilu": Case(
        f"{_X} float[2, 3, 4] y",
        "y = Trilu<upper = 0>(x, k)",
        {"k": np.array(-1, I)},
        {"Sub": 1, "LessOrEqual": 1, "Where": 1},
    ),
    "resize": Case(
        "float[1, 2, 3, 4] x => float[1, 2, 6, 8] y",
        'y = Resize<mode = "linear">(x, , s)',
        {"s": np.array([1, 1, 2, 2], np.float32)},
        {"Resize": 1},
        shape=(1, 2, 3, 4),
    ),
    "old resize": Case(
        "float[1, 2, 3, 4] x => float[1, 2, 6, 8] y",
        "y = Upsample(x, s)",
        {"s": np.array([1, 1, 2, 2], np.float32)},
        {"Resize": 1},
        opset=9,
        shape=(1, 2, 3, 4),
    ),
    "empty pad": Case(f"{_X} float[2, 3, 4] y", "y = Pad(x, p)", {"p": np.zeros(6, I)}, {}),
}


@pytest.mark.parametrize("name", CASES)
def test_canonical_form(name):
    case = CASES[name]
    proto = model(case.signature, case.body, case.constants, case.opset)
    graph, _ = optimised(proto, "canonicalise")
    assert kinds(graph) == case.left
    check(proto, {"x": random(case.shape, 7)})


def test_softmax_before_opset_13_is_over_all_dimensions_from_its_axis_on():
    proto = model("float[2, 3, 4] x => float[2, 3, 4] y", "y = Softmax(x)", opset=12)
    graph = check(proto, {"x": random((2, 3, 4))})
    assert [n.output.shape for n in graph.nodes] == [(2, 12), (2, 12), (2, 3, 4)]


def test_sizes_of_dynamic_dimensions_stay_symbols_and_their_nodes_go():
    proto = model(
        "float[b, s, 8] x => float[b, s, 2, 4] y",
        """shape = Shape(x) b = Gather(shape, i0) s = Gather(shape, i1)
           b1 = Unsqueeze(b, i0) s1 = Unsqueeze(s, i0)
           target = Concat<axis = 0>(b1, s1, two, minus) y = Reshape(x, target)""",
        {
            "i0": np.array([0], I).reshape(()),
            "i1": np.array(1, I),
            "two": np.array([2], I),
            "minus": np.array([-1], I),
        },
        opset=12,
    )
    for node in proto.graph.node:
        if node.op_type == "Unsqueeze":
            del node.input[1:]
            node.attribute.add(name="axes", type=7, ints=[0])
    graph = check(proto, {"x": random((3, 5, 8))}, {"x": random((1, 2, 8))})
    assert kinds(graph) == {"Reshape": 1}
    assert graph.outputs[0].shape == (sym("b"), sym("s"), 2, 4)


def test_slicing_a_dynamic_dimension_from_its_end():
    proto = model(
        "float[n, 4] x => float[m, 4] y, float[k, 4] z",
        "y = Slice(x, last, end) z = Slice(x, first, most)",
        {
            "last": np.array([-1], I),
            "end": np.array([2**62], I),
            "first": np.array([1], I),
            "most": np.array([-1], I),
        },
    )
    graph = check(proto, {"x": random((6, 4))}, {"x": random((3, 4))})
    assert [n.attrs["starts"] for n in graph.nodes] == [[sym("n") - 1], [1]]


def test_sizes_from_data_are_read_once():
    proto = model("float[2, 3] x, int64[2] s => float[a, b] y", "y = Reshape(x, s)")
    graph, _ = optimised(proto)
    assert kinds(graph) == {"clinfer.Sizes": 1, "Reshape": 1}


def test_what_depends_on_data_stays_as_it_is_with_a_reason():
    proto = model(
        "float[2, 3, 4] x => float[a] y, int64[b] i, int64[c] n, int64[d] m",
        "y, i, n, m = Unique<axis = 1>(x)",
    )
    graph, report = optimised(proto)
    assert kinds(graph) == {"Unique": 1}
    assert "it compares rows" in [reason for _, _, reason in report.log.refused]


def test_strings_keep_the_form_of_onnx():
    proto = model("string[2, 3] x => string[6] y", "y = Reshape(x, s)", {"s": np.array([6], I)})
    graph, _ = optimised(proto)
    assert [len(n.inputs) for n in graph.nodes] == [2]


def test_a_place_in_a_dynamic_dimension_must_exist():
    proto = model("float[n, 4] x => float[4] y", "y = Gather(x, i)", {"i": np.array(2, I)})
    graph = check(proto, {"x": random((3, 4))})
    (constraint,) = graph.constraints
    assert evaluate(constraint.left, {"n": 3}) == evaluate(constraint.right, {"n": 3})
    assert evaluate(constraint.left, {"n": 2}) != evaluate(constraint.right, {"n": 2})
    assert "reach 3 where the data has n places along axis 0" in constraint.message


@pytest.mark.parametrize("mode", ["bilinear", "nearest", "bicubic"])
@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
def test_samples_of_a_grid_have_channels_last(mode, padding):
    for aligned in (0, 1):
        proto = model(
            "float[n, 3, h, 5] x, float[n, a, 7, 2] g => float[n, 3, a, 7] y",
            f"""y = GridSample<mode = "{mode}", padding_mode = "{padding}",
                align_corners = {aligned}>(x, g)""",
        )
        samples = [
            {"x": random((n, 3, h, 5)), "g": 1.3 * random((n, 2, 7, 2), 4)}
            for n, h in ((1, 4), (2, 6))
        ]
        graph = check(proto, *samples)
        assert kinds(graph)["clinfer.GridSample"] == 1


@pytest.mark.parametrize(
    ("block", "attrs", "left"),
    [
        ((2, 3), {"strides": [2, 3]}, {"Reshape": 2, "Transpose": 1}),
        ((2, 3), {}, {"Reshape": 1, "ConvTranspose": 1}),
        ((3, 3), {"strides": [2, 2], "pads": [1, 0, 2, 1]}, {"Reshape": 1, "ConvTranspose": 1}),
        ((2, 2), {"dilations": [2, 1]}, {"Reshape": 1, "ConvTranspose": 1}),
    ],
)
def test_columns_are_tiles_or_a_transposed_convolution(block, attrs, left):
    image = (6, 9)
    pads = attrs.get("pads", [0] * 4)
    spans = [
        (image[a] + pads[a] + pads[a + 2] - attrs.get("dilations", [1, 1])[a] * (block[a] - 1) - 1)
        // attrs.get("strides", [1, 1])[a]
        + 1
        for a in (0, 1)
    ]
    width = 2 * block[0] * block[1]
    text = ", ".join(f"{name} = {value}" for name, value in attrs.items())
    proto = model(
        f"float[n, {width}, {spans[0] * spans[1]}] x => float[n, 2, 6, 9] y",
        f"y = Col2Im<{text}>(x, image, block)" if text else "y = Col2Im(x, image, block)",
        {"image": np.array(image, I), "block": np.array(block, I)},
    )
    assert kinds(optimised(proto, "canonicalise")[0]) == left
    check(proto, {"x": random((3, width, spans[0] * spans[1]))})

"""Host steps: NumPy's short cuts, onnx's reference implementation, control flow."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from graph_helpers import by_onnxruntime, model, proto, run

from clinfer.errors import ShapeError, UnsupportedError
from clinfer.graph import numpy_ops
from clinfer.graph.reader import read
from clinfer.graph.reference import HostOp

X = np.arange(24, dtype=np.float32).reshape(2, 3, 4) - 7


def step(text: str, opset: int = 18) -> HostOp:
    graph = model(text, opset).graph()
    return HostOp.from_node(graph.nodes[-1], graph.opsets)


@pytest.mark.parametrize(
    ("body", "inputs"),
    [
        ("y = Shape<start = 1>(x)", []),
        ("y = Size(x)", []),
        ("y = Reshape(x, i)", [[0, -1]]),
        ("y = Flatten<axis = 2>(x)", []),
        ("y = Flatten<axis = -1>(x)", []),
        ("y = Squeeze(x)", []),
        ("y = Unsqueeze(x, i)", [[0, -1]]),
        ("y = Transpose(x)", []),
        ("y = Transpose<perm = [1, 0, 2]>(x)", []),
        ("y = Concat<axis = -1>(x, x)", []),
        ("y = Gather<axis = 1>(x, i)", [[[0, -1], [2, 1]]]),
        ("y = Expand(x, i)", [[2, 1, 1, 1]]),
        ("y = NonZero(x)", []),
        ("y = ConstantOfShape(i)", [[2, 3]]),
        ("y = Cast<to = 7>(x)", []),
        ("y = Cast<to = 9>(x)", []),
    ],
)
def test_short_cuts_do_what_onnx_runtime_does(body: str, inputs: list[object]) -> None:
    indices = np.array(inputs[0] if inputs else [0], np.int64)
    dims = ", ".join(map(str, indices.shape))
    source = proto(f"m (float[2, 3, 4] x, int64[{dims}] i) => (float y) {{ {body} }}", 18)
    source.graph.output[0].type.tensor_type.ClearField("shape")
    graph = read(source).graph()
    assert graph.nodes[0].kind in numpy_ops.TABLE
    source.graph.output[0].type.tensor_type.elem_type = {
        "float32": 1,
        "int64": 7,
        "bool": 9,
    }[str(graph.outputs[0].dtype)]
    (expected,) = by_onnxruntime(source, {"x": X, "i": indices})
    (result,) = run(graph, [X, indices])
    assert result.dtype == expected.dtype
    np.testing.assert_array_equal(result, expected)


def test_a_step_is_plain_data() -> None:
    import json

    op = step("m (float[2, 3, 4] x) => (float[2, 3, 4] y) { y = Erf(x) }")
    again = HostOp.from_json(json.loads(json.dumps(op.to_json())))
    assert again == op
    np.testing.assert_array_equal(again.run([X])[0], op.run([X])[0])


def test_results_own_their_memory_layout() -> None:
    op = step("m (float[2, 3, 4] x) => (float[4, 3, 2] y) { y = Transpose(x) }")
    assert op.run([X])[0].flags.c_contiguous


def test_absent_inputs_and_outputs() -> None:
    op = step("m (float[N] x, float h) => (float[N] y) { y = Clip(x, , h) }")
    assert op.run([X.ravel(), None, np.float32(3)])[0].max() == 3
    unique = step("m (float[N] x) => (int64[M] c) { , , , c = Unique(x) }")
    results = unique.run([np.float32([1, 1, 2])])
    assert results[3].tolist() == [2, 1]


def test_what_the_reference_lacks_is_named() -> None:
    op = step("m (float[1, 1, 4, 4] x) => (float[1, 1, 1, 1] y) { y = GlobalLpPool(x) }")
    with pytest.raises(UnsupportedError, match=r'GlobalLpPool "y".*reference implementation'):
        op.run([np.zeros((1, 1, 4, 4), np.float32)])


@pytest.mark.parametrize("rank", [0, 1])
def test_a_loop_counts_in_the_rank_that_its_body_declares(rank: int) -> None:
    kind = "[1]" if rank else ""
    dims = "[4, 1]" if rank else "[4]"
    op = step(
        f"m (int64{kind} n, bool{kind} go) => (float{dims} y) {{ y = Loop(n, go) <body = b"
        f" (int64{kind} i, bool{kind} c) => (bool{kind} d, float{kind} s)"
        " { d = Identity(c) s = Cast<to = 1>(i) }> }"
    )
    (found,) = op.run([np.full((1,) * rank, 4), np.full((1,) * rank, True)])
    np.testing.assert_array_equal(found, np.arange(4, dtype=np.float32).reshape(-1, *([1] * rank)))


def test_short_cuts_do_not_load_onnx() -> None:
    op = step("m (float[2, 3, 4] x) => (int64[3, M] y) { y = NonZero(x) }")
    code = (
        "import sys, json, numpy as np\n"
        "from clinfer.graph.reference import HostOp\n"
        f"op = HostOp.from_json(json.loads({__import__('json').dumps(op.to_json())!r}))\n"
        "assert op.run([np.eye(2, dtype=np.float32)])[0].tolist() == [[0, 1], [0, 1]]\n"
        "assert 'onnx' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


LOOPS = [
    """m (int64 n, float[2] x) => (float[2] y, float[K, 2] rows) {
        c = Constant<value = bool {1}>()
        y, rows = Loop(n, c, x) <body = b (int64 i, bool go, float[2] s)
            => (bool on, float[2] t, float[2] row) {
            on = Identity(go) t = Add(s, x) row = Mul(s, s)
        }>
    }""",
    """m (int64 n, float[2] x) => (float y, int64[K] rows) {
        start = Constant<value = float {0.0}>()
        y, rows = Loop(n, , start) <body = b (int64 i, bool go, float s)
            => (bool on, float t, int64 row) {
            limit = Constant<value = float {2.5}>() one = Constant<value = float {1.0}>()
            t = Add(s, one) on = Less(t, limit) row = Identity(i)
        }>
    }""",
]


@pytest.mark.parametrize("text", LOOPS)
@pytest.mark.parametrize("count", [1, 3, 9])
def test_loops(text: str, count: int) -> None:
    source = proto(text, 16)
    feeds = {"n": np.array(count), "x": np.float32([1, 2])}
    for result, expected in zip(
        run(read(source).graph(), list(feeds.values())), by_onnxruntime(source, feeds), strict=True
    ):
        np.testing.assert_array_equal(result, expected)


def test_a_loop_that_never_runs() -> None:
    result = run(model(LOOPS[0], 16).graph(), [np.array(0), np.float32([1, 2])])
    assert result[0].tolist() == [1, 2]
    assert result[1].shape == (0, 2)


@pytest.mark.parametrize(
    "attributes",
    [
        "",
        ", scan_input_directions = [1]",
        ", scan_input_axes = [1], scan_output_axes = [1]",
        ", scan_output_directions = [1]",
    ],
)
def test_scans(attributes: str) -> None:
    source = proto(
        f"""m (float[2] s, float[2, 2] x) => (float[2] e, float[A, B] rows) {{
        e, rows = Scan<num_scan_inputs = 1 {attributes}>(s, x) <body = b (float[2] p, float[2] q)
            => (float[2] t, float[2] row) {{ t = Add(p, q) row = Mul(t, q) }}>
    }}""".replace(
            f"<num_scan_inputs = 1 {attributes}>(s, x) <",
            f"(s, x) <num_scan_inputs = 1 {attributes}, ",
        ),
        16,
    )
    feeds = {"s": np.float32([1, 2]), "x": np.float32([[3, 4], [5, 6]])}
    for result, expected in zip(
        run(read(source).graph(), list(feeds.values())), by_onnxruntime(source, feeds), strict=True
    ):
        np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("is_centred", [0, 1])
@pytest.mark.parametrize("limit", [0, 7, 500])
def test_boxes_that_overlap_better_ones_are_dropped(is_centred: int, limit: int) -> None:
    """Also more boxes than are looked at together, boxes without an area, and equal scores."""
    rng = np.random.default_rng(limit)
    boxes = rng.random((2, 300, 4), np.float32)
    boxes[:, 5:9, 2:] = boxes[:, 5:9, :2]
    scores = rng.integers(0, 90, (2, 3, 300)).astype(np.float32) / 90
    source = proto(f"""m (float[2, 300, 4] b, float[2, 3, 300] s) => (int64[K, 3] y)
        <int64 most = {{{limit}}}, float iou = {{0.3}}, float least = {{0.2}}> {{
        y = NonMaxSuppression<center_point_box = {is_centred}>(b, s, most, iou, least)
    }}""")
    (found,) = run(read(source).graph(), [boxes, scores])
    (wanted,) = by_onnxruntime(source, {"b": boxes, "s": scores})
    assert np.array_equal(found, wanted)


def test_a_shape_without_sizes_is_that_of_one_element() -> None:
    text = "m (float[{}] x, int64[0] s) => (float y) {{ y = Reshape(x, s) }}"
    with pytest.raises(ShapeError, match="elements before and after must be equal, found 6 and 1"):
        model(text.format("2, 3"))
    one, none = np.full((1, 1), 3, np.float32), np.zeros(0, np.int64)
    graph = model(text.format("n, k")).graph()
    (found,) = run(graph, [one, none])
    assert (found.shape, found.item()) == ((), 3)


@pytest.mark.parametrize(("value", "count"), [(3.0, 1), (0.0, 0)])
def test_a_scalar_has_no_index(value: float, count: int) -> None:
    """The specification: [0, count] of a scalar, unlike NumPy."""
    graph = model("m (float x) => (int64[a, b] y) { y = NonZero(x) }").graph()
    assert run(graph, [np.array(value, np.float32)])[0].shape == (0, count)


@pytest.mark.parametrize(("op", "kind"), [("Equal", "bool"), ("StringConcat", "string")])
def test_text_is_of_any_length_and_may_end_in_zeros(op: str, kind: str) -> None:
    source = proto(f"m (string[2, 3] a, string[3] b) => ({kind}[2, 3] y) {{ y = {op}(a, b) }}", 20)
    a = np.array([["abc", "é", "a\0"], ["", "é", "a"]], object)
    b = np.array(["a", "é", "a"], object)
    (found,) = run(read(source).graph(), [a, b])
    (wanted,) = by_onnxruntime(source, {"a": a, "b": b})
    assert found.tolist() == wanted.tolist()


@pytest.mark.parametrize("action", ["LOWER", "UPPER", "NONE"])
@pytest.mark.parametrize("is_case_sensitive", [0, 1])
@pytest.mark.parametrize("locale", ["C", "C.UTF-8"])
@pytest.mark.parametrize("words", ["the", "THE", ""])
def test_text_in_one_case_without_stop_words(
    action: str, is_case_sensitive: int, locale: str, words: str
) -> None:
    """Empty text, accents and what surrounds a stop word stay."""
    attrs = f'case_change_action="{action}", is_case_sensitive={is_case_sensitive}'
    attrs += f', locale="{locale}"' + (f', stopwords=["{words}"]' if words else "")
    text = "m (string[{0}] x) => (string[{0}] y) {{ y = StringNormalizer <{1}> (x) }}"
    x = np.array(["The", "the", "\u00c9 stra\u00dfe", "", "a the b", "x\0"], object)
    for given in (x, x[None], x[:2], x[None, :2]):
        sizes = ", ".join(map(str, given.shape[:-1])) + (", n" if given.ndim == 2 else "n")
        source = proto(text.format(sizes, attrs).replace("[" + sizes + "] y", "[] y", 1), 20)
        source.graph.output[0].type.tensor_type.ClearField("shape")
        (wanted,) = by_onnxruntime(source, {"x": given})
        (found,) = run(read(source).graph(), [given])
        assert found.tolist() == wanted.tolist()


@pytest.mark.parametrize("attrs", ["", "delimiter", "maxsplit", "both"])
@pytest.mark.parametrize("by", [",", " ", "  "])
def test_text_in_parts(attrs: str, by: str) -> None:
    given = [f'delimiter="{by}"'] * (attrs in ("delimiter", "both"))
    given += ["maxsplit=1"] * (attrs in ("maxsplit", "both"))
    text = "m (string[n] x) => (string[n, k] y, int64[n] count) { y, count = StringSplit"
    source = proto(text + f"{'<' + ', '.join(given) + '>' if given else ''} (x) }}", 20)
    x = np.array(["a b  c", " lead", "", "tail ", "a,b,,c", "\u00e9  \u00fc x", "x\0"], object)
    wanted = by_onnxruntime(source, {"x": x})
    for a, b in zip(run(read(source).graph(), [x]), wanted, strict=True):
        assert a.tolist() == b.tolist()

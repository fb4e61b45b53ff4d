"""Sizes, axes and places that are inputs of a model: read by the plan, not by host steps.

The measure is ONNX Runtime; each model is run with several contents, one compiled model for all.
"""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest

from clinfer.errors import ClinferError

X = np.arange(24, dtype=np.float32).reshape(2, 3, 4) - 7
LIST = {name: np.array(v, np.int64) for name, v in {"one": [1], "none": [], "two": [0, 2]}.items()}

# name -> (signature, body, the contents of inputs after x)
CASES: dict[str, tuple[str, str, list[tuple[object, ...]]]] = {
    "reshape": ("int64[3] s", "y = Reshape(x, s)", [([4, -1, 3],), ([0, 3, 4],), ([24, 1, -1],)]),
    "expand": ("int64[4] s", "y = Expand(x, s)", [([2, 1, 3, 1],), ([1, 2, 3, 4],)]),
    "tile": ("int64[3] r", "y = Tile(x, r)", [([1, 2, 1],), ([3, 1, 0],), ([1, 1, 1],)]),
    "constant of shape": ("int64[2] s", "y = ConstantOfShape(s)", [([2, 3],), ([0, 3],)]),
    "slice": (
        "int64[2] s, int64[2] e",
        "y = Slice(x, s, e)",
        [([0, 1], [2, 9]), ([-1, -2], [9, -1]), ([1, 3], [1, 2])],
    ),
    "slice of axes": (
        "int64[2] s, int64[2] e, int64[2] a, int64[2] t",
        "y = Slice(x, s, e, a, t)",
        [([0, 3], [2, 0], [0, -1], [1, -2]), ([-9, 2], [9, -9], [1, 0], [2, -1])],
    ),
    "split": ("int64[2] s", "y, z = Split<axis = 2>(x, s)", [([1, 3],), ([0, 4],)]),
    "sum": ("int64[1] a", "y = ReduceSum<keepdims = 1>(x, a)", [([0],), ([-1],), ([1],)]),
    "norm": ("int64[2] a", "y = ReduceL2<keepdims = 0>(x, a)", [([0, 1],), ([-1, 0],)]),
    "largest": ("int64[1] a", "y = ReduceMax<keepdims = 0>(x, a)", [([2],), ([-3],)]),
    "cumsum": ("int64 a", "y = CumSum<reverse = 1>(x, a)", [(0,), (-1,), (1,)]),
    "unsqueeze": ("int64[2] a", "y = Unsqueeze(x, a)", [([0, 2],), ([-1, 1],)]),
    "squeeze": ("int64[1] a", "n = Unsqueeze(x, one) y = Squeeze(n, a)", [([1],), ([-3],)]),
    "top k": ("int64[1] k", "y, z = TopK(x, k)", [([1],), ([4],), ([0],)]),
    "one hot": ("int64 d", "i = Cast<to = 7>(x) y = OneHot(i, d, v)", [(3,), (9,)]),
    "range": ("float a, float b, float c", "y = Range(a, b, c)", [(0.5, 3, 0.4), (1, 0, 0.1)]),
    "range of integers": (
        "int64 a, int64 b, int64 c",
        "y = Range(a, b, c)",
        [(0, 7, 2), (5, -2, -3), (3, 3, 1)],
    ),
    "trilu": ("int64 k", "y = Trilu(x, k)", [(0,), (-1,), (2,)]),
    "pad": (
        "int64[6] p",
        "y = Pad(x, p)",
        [([0, 1, 0, 1, 0, 2],), ([0, -1, 1, 0, 0, -2],)],
    ),
    "pad by mirror": ("int64[6] p", 'y = Pad<mode = "reflect">(x, p)', [([0, 1, 2, 0, 1, 3],)]),
    "resize to sizes": (
        "int64[3] s",
        'y = Resize<mode = "linear">(x, , , s)',
        [([2, 6, 4],), ([2, 2, 7],)],
    ),
    "nearest by factors": ("float[3] s", "y = Resize(x, , s)", [([1, 2, 0.5],), ([1, 0.7, 3],)]),
    "found": ("float[3] w", "y = NonZero(w)", [([0, 1, 2],), ([0, 0, 0],)]),
    "chosen": ("bool[2] c", "y = Compress<axis = 2>(x, c)", [([True, False],), ([True, True],)]),
    "distinct": ("float[5] w", "y, i, r, c = Unique(w)", [([3, 1, 3, 2, 1],), ([1, 1, 1, 1, 1],)]),
    "distinct as met": (
        "float[4] w",
        "y, i, r, c = Unique<sorted = 0>(w)",
        [([3, 1, 3, 2],), ([2, 2, 5, 1],)],
    ),
}
WRONG = {
    "reshape": ([5, 5, 1],),
    "expand": ([2, 5, 1, 4],),
    "split": ([1, 2],),
    "top k": ([5],),
    "cumsum": (3,),
    "sum": ([3],),
    "squeeze": ([0],),
    "range of integers": (0, 3, 0),
}
_TYPES = {"int64": np.int64, "float": np.float32, "bool": np.bool_}


def model_of(name: str) -> onnx.ModelProto:
    signature, body, _ = CASES[name]
    parts = [statement.split("=")[0] for statement in body.split(")") if "=" in statement]
    outputs = ", ".join(out.strip() for out in parts[-1].split(","))
    text = f"""<ir_version: 8, opset_import: ["": 18]> m (float[A, B, C] x, {signature}) => (Z)
    <int64[1] one = {{1}}, float[2] v = {{0.5, 2.5}}> {{ {body} }}"""
    text = text.replace("=> (Z)", f"=> ({outputs})")
    proto = onnx.parser.parse_model(text)
    typed = onnx.shape_inference.infer_shapes(proto)
    kinds = {v.name: v.type.tensor_type.elem_type for v in typed.graph.output}
    for value in proto.graph.output:
        value.type.tensor_type.elem_type = kinds[value.name] or 1
    return proto


def fed(name: str, contents: tuple[object, ...]) -> dict[str, np.ndarray]:
    signature = CASES[name][0]
    found = {"x": X}
    for part, content in zip(signature.split(", "), contents, strict=True):
        kind, given = part.split(" ")
        found[given] = np.array(content, _TYPES[kind.split("[")[0]])
    return found


@pytest.mark.parametrize("name", CASES)
def test_contents_decide_what_they_do_in_onnx_runtime(core, device, name):
    proto = model_of(name)
    session = onnxruntime.InferenceSession(proto.SerializeToString())
    model = core.compile_model(proto, device)
    assert not model.host_steps, [(s.label, s.reason) for s in model.host_steps]
    for contents in (*CASES[name][2], CASES[name][2][0]):
        feeds = fed(name, contents)
        expected = session.run(None, feeds)
        found = list(model(feeds).to_tuple())
        for want, have in zip(expected, found, strict=True):
            assert (have.dtype, have.shape) == (want.dtype, want.shape), contents
            np.testing.assert_allclose(have, want, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", WRONG)
def test_contents_that_do_not_fit_are_refused_and_the_next_run_is_right(core, device, name):
    model = core.compile_model(model_of(name), device)
    with pytest.raises(ClinferError):
        model(fed(name, WRONG[name]))
    assert model(fed(name, CASES[name][2][0])).to_tuple()


def test_a_cached_model_reads_sizes_too(core):
    blob = core.compile_model(model_of("slice of axes"), "CPU").export_model()
    model = core.import_model(blob, "CPU")
    feeds = fed("slice of axes", CASES["slice of axes"][2][0])
    assert np.array_equal(model(feeds)["y"], X[:, :, 3:0:-2])

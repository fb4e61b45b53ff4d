"""Positions that come from data: ONNX Runtime's verdict on each, and what follows from an error.

Every operator is run with the same small data and one position that is varied. Where ONNX Runtime
refuses it an `InputError` names the node and the position; where it answers, so does clinfer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import helper, numpy_helper

import clinfer
from clinfer.errors import ClinferError, InputError, ShapeError

Array = np.ndarray[Any, Any]
Case = tuple[str, dict[str, Array], dict[str, Any]]
FAR = (2**32, -(2**40), 2**63 - 1, -(2**63))


def numbers(*shape: int) -> Array:
    return np.arange(1, np.prod(shape) + 1, dtype=np.float32).reshape(shape)


def places(*values: int, shape: Sequence[int] = (-1,)) -> Array:
    return np.array(values, np.int64).reshape(shape)


def gather(p: int) -> Case:
    return "Gather", {"x": numbers(3, 2), "i": places(0, p)}, {}


def gather_columns(p: int) -> Case:
    return "Gather", {"x": numbers(2, 3), "i": places(0, p)}, {"axis": 1}


def gather_one(p: int) -> Case:
    return "Gather", {"x": numbers(3), "i": np.array(p, np.int64)}, {}


def gather_int32(p: int) -> Case:
    return "Gather", {"x": numbers(3, 2), "i": np.array([p], np.int32)}, {}


def gather_elements(p: int) -> Case:
    return "GatherElements", {"x": numbers(3, 2), "i": places(0, p, shape=(1, 2))}, {}


def gather_nd(p: int) -> Case:
    return "GatherND", {"x": numbers(3, 3), "i": places(0, p, shape=(1, 2))}, {}


def scatter_elements(p: int) -> Case:
    ins = {"x": numbers(3, 2), "i": places(0, p, shape=(1, 2)), "u": numbers(1, 2)}
    return "ScatterElements", ins, {}


def scatter_added(p: int) -> Case:
    return "ScatterElements", scatter_elements(p)[1], {"reduction": "add"}


def scatter_nd(p: int) -> Case:
    ins = {"x": numbers(3, 2), "i": places(0, p, shape=(2, 1)), "u": numbers(2, 2)}
    return "ScatterND", ins, {}


def one_hot(p: int) -> Case:
    ins = {"i": places(0, p), "d": places(3), "v": np.array([2, 5], np.float32)}
    return "OneHot", ins, {}


def reverse_sequence(p: int) -> Case:
    ins = {"x": numbers(2, 4), "l": places(1, p)}
    return "ReverseSequence", ins, {"batch_axis": 0, "time_axis": 1}


def max_unpool(p: int) -> Case:
    ins = {"x": numbers(1, 1, 1, 2), "i": places(0, p, shape=(1, 1, 1, 2))}
    return "MaxUnpool", ins, {"kernel_shape": [2, 2], "strides": [2, 2]}


def nll_loss(p: int) -> Case:
    return "NegativeLogLikelihoodLoss", {"x": numbers(2, 3), "t": places(0, p)}, {}


def weighted_loss(p: int) -> Case:
    ins = {"x": numbers(2, 3), "t": places(0, p), "w": numbers(3)}
    return "SoftmaxCrossEntropyLoss", ins, {"ignore_index": -1}


def rotary(p: int) -> Case:
    ins = {"x": numbers(1, 2, 3, 4), "c": numbers(5, 2), "s": numbers(5, 2)}
    return "RotaryEmbedding", {**ins, "p": places(0, 1, p, shape=(1, 3))}, {}


def lstm(p: int) -> Case:
    ins = {"x": numbers(3, 2, 3) / 9, "w": numbers(1, 8, 3) / 99, "r": numbers(1, 8, 2) / 99}
    return "LSTM", {**ins, "b": numbers(1, 16), "l": np.array([2, p], np.int32)}, {"hidden_size": 2}


def tensor_scatter(p: int) -> Case:
    ins = {"x": numbers(1, 4, 2), "u": numbers(1, 2, 2), "i": places(p)}
    return "TensorScatter", ins, {"axis": 1}


def circular_scatter(p: int) -> Case:
    return "TensorScatter", tensor_scatter(p)[1], {"axis": 1, "mode": "circular"}


def features(p: int) -> Case:
    return "ai.onnx.ml.ArrayFeatureExtractor", {"x": numbers(2, 3), "i": places(0, p)}, {}


def roi_align(p: int) -> Case:
    ins = {"x": numbers(2, 1, 4, 4), "r": np.array([[0, 0, 3, 3]], np.float32), "i": places(p)}
    return "RoiAlign", ins, {"output_height": 2, "output_width": 2}


def max_roi_pool(p: int) -> Case:
    ins = {"x": numbers(2, 1, 4, 4), "r": np.array([[p, 0, 0, 3, 3]], np.float32)}
    return "MaxRoiPool", ins, {"pooled_shape": [2, 2]}


def slice_to(p: int) -> Case:
    return "Slice", {"x": numbers(4), "s": places(1), "e": places(p)}, {}


CASES: dict[Callable[[int], Case], Sequence[int]] = {
    gather: (2, -3, 3, -4, *FAR),
    gather_columns: (2, 3, -4, *FAR),
    gather_one: (-1, 3, *FAR),
    gather_int32: (-3, 3, 2**31 - 1, -(2**31)),
    gather_elements: (2, 3, -4, *FAR),
    gather_nd: (2, 3, -4, *FAR),
    scatter_elements: (-3, 3, -4, *FAR),
    scatter_added: (2, 3),
    scatter_nd: (-3, 3, -4, *FAR),
    one_hot: (2, 3, -3, -4, *FAR),
    reverse_sequence: (0, 4, 5, -1, *FAR),
    max_unpool: (7, 8, -1, *FAR),
    nll_loss: (2, 3, -4, *FAR),
    weighted_loss: (2, -1, 3, -4),
    rotary: (4, 5, -1, *FAR),
    lstm: (0, 3, 4, -1),
    tensor_scatter: (2, 3, -1, *FAR[:2]),
    circular_scatter: (2, 3, 9, -1),
    features: (2, 3, -1, *FAR[:2]),
    roi_align: (1, 2, -1, *FAR[:2]),
    max_roi_pool: (1, 2, -1, *FAR[:2]),
    slice_to: (3, 9, -1, -9),
}
CONSTANTS = {"w": ("LSTM",), "r": ("LSTM",), "b": ("LSTM",), "d": ("OneHot",)}


def model_of(case: Case) -> onnx.ModelProto:
    """The operator alone; sizes of its inputs are free, weights are constants."""
    kind, ins, attrs = case
    domain, _, op = kind.rpartition(".")
    known = [n for n in ins if kind in CONSTANTS.get(n, ())]
    values = [
        helper.make_tensor_value_info(
            name,
            helper.np_dtype_to_tensor_dtype(array.dtype),
            # The definitions of losses ask for some sizes, tuples of indices for their length.
            [f"{name}{k}" if k < array.ndim - 1 else n for k, n in enumerate(array.shape)],
        )
        for name, array in ins.items()
        if name not in known
    ]
    output = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)
    node = helper.make_node(op, [*ins], ["y"], name="the_node", domain=domain, **attrs)
    constants = [numpy_helper.from_array(ins[name], name) for name in known]
    graph = helper.make_graph([node], "g", values, [output], constants)
    version = {"RotaryEmbedding": 23, "TensorScatter": 24}.get(op, 18)
    opsets = [helper.make_opsetid("", version), helper.make_opsetid("ai.onnx.ml", 3)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def given(case: Case) -> dict[str, Array]:
    kind, ins, _ = case
    return {n: a for n, a in ins.items() if kind not in CONSTANTS.get(n, ())}


@cache
def compiled(make: Callable[[int], Case], device: str) -> clinfer.CompiledModel:
    model = model_of(make(1))
    return clinfer.Core().compile_model(model.SerializeToString(), device)


@pytest.mark.parametrize("make", CASES, ids=lambda make: make.__name__)
def test_a_position_is_refused_or_means_what_onnx_runtime_says(make, device):
    model = compiled(make, device)
    theirs = ort.InferenceSession(
        model_of(make(1)).SerializeToString(), providers=["CPUExecutionProvider"]
    )
    for position in CASES[make]:
        inputs = given(make(position))
        try:
            (expected,) = theirs.run(None, inputs)
        except Exception:
            with pytest.raises(InputError, match=rf"the_node.*: .*{position}\b"):
                model(inputs)
        else:
            np.testing.assert_allclose(model(inputs)["y"], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "make", [gather, gather_elements, gather_nd, scatter_elements, scatter_nd, lstm]
)
def test_the_host_is_as_strict(make):
    from clinfer.graph import numpy_ops

    for position in CASES[make]:
        kind, ins, attrs = make(position)
        model = model_of((kind, ins, attrs)).SerializeToString()
        theirs = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
        function = numpy_ops.find(kind, attrs, list(ins.values()))
        assert function is not None
        try:
            (expected,) = theirs.run(None, given((kind, ins, attrs)))
        except Exception:
            with pytest.raises(InputError, match=f"is {position} where"):
                function(attrs, list(ins.values()))
        else:
            (found, *_) = function(attrs, list(ins.values()))
            np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_the_call_after_an_error_is_right(device):
    model = compiled(gather, device)
    table = numbers(3, 2)
    for position in (1, 7, 2, 7, 7, 0):
        inputs = {"x": table, "i": places(0, position)}
        if position < 3:
            np.testing.assert_array_equal(model(inputs)["y"], table[[0, position]])
        else:
            with pytest.raises(InputError, match="is 7 where -3 to 2 is expected"):
                model(inputs)


def test_a_background_run_tells_at_wait_and_others_know_nothing_of_it(device):
    model = compiled(gather, device)
    wrong, right = model.create_infer_request(), model.create_infer_request()
    for _ in range(3):
        wrong.start_async({"x": numbers(3, 2), "i": places(0, 3)})
        right.start_async({"x": numbers(3, 2), "i": places(2, 1)})
        right.wait()
        np.testing.assert_array_equal(right.results["y"], numbers(3, 2)[[2, 1]])
        with pytest.raises(InputError, match="is 3 where"):
            wrong.wait()


def test_the_first_node_that_met_one_is_named(core, device):
    text = """<ir_version: 10, opset_import: ["": 18]>
    m (float[n, 2] x, int64[a] i, int64[b] j) => (float[b, 2] y) {
        first = Gather(x, i) near = Tanh(first) y = Gather(near, j)
    }"""
    model = core.compile_model(onnx.parser.parse_model(text), device)
    with pytest.raises(InputError, match=r'Gather "first": .* is 4 where'):
        model([numbers(3, 2), places(4, 0), places(9)])
    with pytest.raises(InputError, match=r'Gather "y": .* is 9 where -2 to 1'):
        model([numbers(3, 2), places(1, 0), places(9)])


def test_a_host_step_never_sees_what_a_wrong_index_gave(core, device):
    """Sizes that come from a gather would ask for any amount of memory."""
    text = """<ir_version: 10, opset_import: ["": 18]>
    m (int64[n] sizes, int64[1] i) => (float[k] y) {
        size = Gather(sizes, i) y = ConstantOfShape(size)
    }"""
    model = core.compile_model(onnx.parser.parse_model(text), device)
    assert model([places(3, 5), places(1)])["y"].shape == (5,)
    with pytest.raises(InputError, match='Gather "size"'):
        model([places(3, 2**45), places(2)])
    assert model([places(3, 5), places(0)])["y"].shape == (3,)


@pytest.mark.parametrize("index", [0, -1, 2, -3, 3, -4])
@pytest.mark.parametrize("size", [0, 3])
def test_a_constant_index_is_checked_when_the_size_is_known(core, device, index, size):
    text = f"""<ir_version: 10, opset_import: ["": 18]>
    m (float[n, 2] x) => (float[1, 2] y) <int64[1] i = {{{index}}}> {{ y = Gather(x, i) }}"""
    model = core.compile_model(onnx.parser.parse_model(text), device)
    if -size <= index < size:
        np.testing.assert_array_equal(model([numbers(size, 2)])["y"], numbers(size, 2)[[index]])
    else:
        with pytest.raises(ShapeError, match='Gather "y"'):
            model([numbers(size, 2)])


@pytest.mark.parametrize(
    ("make", "name", "axis"),
    [
        (gather, "x", 0),
        (gather_elements, "x", 0),
        (gather_nd, "x", 0),
        (scatter_elements, "x", 0),
        (scatter_nd, "x", 0),
    ],
)
def test_an_axis_without_elements_has_no_index(make, name, axis, device):
    inputs = given(make(0))
    inputs[name] = np.delete(inputs[name], slice(None), axis)
    with pytest.raises((InputError, ShapeError), match="the_node"):
        compiled(make, device)(inputs)


def test_no_index_into_an_axis_without_elements_is_nothing(device):
    text = """<ir_version: 10, opset_import: ["": 18]>
    m (float[n, 2] x, int64[k] i) => (float[k, 2] y) { y = Gather(x, i) }"""
    model = clinfer.Core().compile_model(onnx.parser.parse_model(text), device)
    assert model([numbers(0, 2), places()])["y"].shape == (0, 2)


@pytest.mark.parametrize(
    ("kind", "shapes"),
    [
        ("GatherElements", [(3, 2), (1, 5)]),
        ("ScatterElements", [(3, 2), (1, 5), (1, 5)]),
        ("ScatterElements", [(3, 2), (2, 2), (1, 1)]),
        ("ScatterND", [(3, 2), (2, 1), (2, 1)]),
        ("ScatterND", [(3, 2), (2, 1), (1, 2)]),
        ("MaxUnpool", [(1, 1, 4, 4), (1, 1, 1, 2)]),
        ("ReverseSequence", [(4, 6), (2,)]),
    ],
)
def test_operands_that_do_not_fit_are_refused_before_anything_runs(core, cpu, kind, shapes):
    attrs = {"MaxUnpool": {"kernel_shape": [2, 2]}, "ReverseSequence": {"batch_axis": 0}}.get(kind)
    attrs = {**(attrs or {}), **({"time_axis": 1} if kind == "ReverseSequence" else {})}
    arrays = {
        f"x{n}": np.zeros(shape, np.int64 if n == 1 else np.float32)
        for n, shape in enumerate(shapes)
    }
    with pytest.raises(ShapeError, match="the_node"):
        core.compile_model(model_of((kind, arrays, attrs)).SerializeToString(), cpu)(arrays)


def test_every_grid_means_something(core, device):
    """What padding is for: places far outside, infinite ones too."""
    grids = np.array([-3, 3, 1e9, -1e30, np.inf, -np.inf], np.float32)
    grid = np.stack([grids, np.zeros_like(grids)], -1).reshape(1, 1, -1, 2)
    for mode, expected in (("border", [5, 8, 8, 5, 8, 5]), ("zeros", [0] * 6)):
        case = ("GridSample", {"x": numbers(1, 1, 3, 4), "g": grid}, {"padding_mode": mode})
        model = core.compile_model(model_of(case).SerializeToString(), device)
        np.testing.assert_allclose(model(case[1])["y"].reshape(-1), expected)


def test_errors_survive_a_stored_model(core, cpu, tmp_path):
    case = gather(1)
    core.set_property({"CACHE_DIR": str(tmp_path)})
    for _ in range(2):
        model = core.compile_model(model_of(case).SerializeToString(), cpu)
        with pytest.raises(InputError, match="is 3 where -3 to 2 is expected"):
            model(given(gather(3)))
    assert model.get_property("LOADED_FROM_CACHE")


def test_no_position_is_no_excuse_for_another_error(core, device):
    """Every one of them is clinfer's own."""
    for make in (gather_nd, scatter_nd):
        kind, ins, attrs = make(1)
        ins["i"] = np.zeros((2, 5), np.int64)
        with pytest.raises(ClinferError, match="the_node"):
            core.compile_model(model_of((kind, ins, attrs)).SerializeToString(), device)(ins)

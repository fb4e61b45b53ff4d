"""Scatters, cumulative sums and top-k selection against NumPy and the ONNX reference."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from harness import TARGETS, Array, dtype_name, numpy_dtype, run_kernel, view_of
from onnx.reference import ReferenceEvaluator

from clinfer_kernels import scan, scatter, topk
from clinfer_kernels.spec import dense
from clinfer_kernels.specs import ScanSpec, ScatterSpec, TopKSpec

rng = np.random.default_rng(11)
REDUCTIONS = ["none", "add", "mul", "max", "min"]


def scattered(
    kind: str,
    reduction: str,
    ins: tuple[Array, Array, Array],
    cls: str,
    axis: int = 0,
    reports: Array | None = None,
) -> Array:
    dtype = dtype_name(ins[0])
    views = tuple(view_of(a, a) for a in ins)
    spec = ScatterSpec(kind, axis, reduction, views, (dense(dtype, ins[0].shape),))
    target = TARGETS[cls]
    kernel = scatter.emit(spec, scatter.candidates(spec, target)[0], target)
    (value,) = run_kernel(kernel, list(ins), [(ins[0].shape, dtype)], reports=reports)
    return value


def reference(op: str, ins: tuple[Array, ...], **attrs: object) -> Array:
    names = [f"x{i}" for i in range(len(ins))]
    infos = [
        onnx.helper.make_tensor_value_info(
            n, onnx.helper.np_dtype_to_tensor_dtype(x.dtype), x.shape
        )
        for n, x in zip(names, ins, strict=True)
    ]
    node = onnx.helper.make_node(op, names, ["y"], **attrs)
    out = onnx.helper.make_tensor_value_info("y", infos[0].type.tensor_type.elem_type, None)
    graph = onnx.helper.make_graph([node], "g", infos, [out])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)])
    (value,) = ReferenceEvaluator(model).run(None, dict(zip(names, ins, strict=True)))
    return np.asarray(value)


@pytest.mark.parametrize("cls", TARGETS)
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_scatter_elements(cls: str, reduction: str) -> None:
    """With duplicates, whose order decides."""
    data = rng.random((4, 9, 5), np.float32)
    indices = rng.integers(-9, 9, (3, 7, 5))
    updates = rng.random(indices.shape, np.float32)
    wanted = data.copy()
    combine = {"none": lambda a, b: b, "add": np.add, "mul": np.multiply}
    combine |= {"max": np.maximum, "min": np.minimum}
    for i, t, j in np.ndindex(indices.shape):
        place = i, int(indices[i, t, j]) % 9, j
        wanted[place] = combine[reduction](wanted[place], updates[i, t, j])
    value = scattered("elements", reduction, (data, indices, updates), cls, 1)
    np.testing.assert_allclose(value, wanted, rtol=1e-6)


@pytest.mark.parametrize("cls", TARGETS)
@pytest.mark.parametrize("reduction", ["none", "add"])
@pytest.mark.parametrize("width", [1, 2, 3])
def test_scatter_nd(cls: str, reduction: str, width: int) -> None:
    data = rng.random((4, 5, 6), np.float32)
    indices = np.stack([rng.integers(0, n, (2, 3)) for n in data.shape[:width]], -1)
    if reduction == "none":
        flat = rng.permutation(int(np.prod(data.shape[:width])))[:4]
        indices = np.stack(np.unravel_index(flat, data.shape[:width]), -1)
    updates = rng.random(indices.shape[:-1] + data.shape[width:], np.float32)
    wanted = reference("ScatterND", (data, indices, updates), reduction=reduction)
    value = scattered("nd", reduction, (data, indices, updates), cls)
    np.testing.assert_allclose(value, wanted, rtol=1e-6)


@pytest.mark.parametrize("cls", TARGETS)
@pytest.mark.parametrize("kind", ["elements", "nd"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "int64"])
def test_columns_that_go_by_one_index(cls: str, kind: str, dtype: str) -> None:
    """What graph networks sum by: messages of 21 columns, nodes many times."""
    data = rng.integers(0, 9, (5, 21)).astype(dtype)
    updates = rng.integers(0, 9, (40, 21)).astype(dtype)
    nodes = rng.integers(-5, 5, (40, 1))
    wanted = data.copy()
    np.add.at(wanted, nodes[:, 0], updates)
    views = [view_of(a, a) for a in (data, nodes, updates)]
    if kind == "elements":
        views[1] = view_of(np.broadcast_to(nodes, updates.shape), nodes)
    out = dense(dtype, data.shape)
    spec = ScatterSpec(kind, 0, "add", tuple(views), (out,))
    reports = np.zeros(2, np.int64)
    for tile in scatter.candidates(spec, TARGETS[cls]):
        kernel = scatter.emit(spec, tile, TARGETS[cls])
        ins = [data, nodes, updates]
        (value,) = run_kernel(kernel, ins, [(data.shape, dtype)], reports=reports)
        np.testing.assert_array_equal(value, wanted)
    assert not reports.any()


@pytest.mark.parametrize("cls", TARGETS)
def test_a_column_is_written_into_a_cache(cls: str) -> None:
    """What an attention cache does: int64 positions, float16 rows."""
    data = rng.random((6, 16)).astype(np.float16)
    indices = np.array([[2], [5], [-6]], np.int64)
    updates = rng.random((3, 16)).astype(np.float16)
    wanted = data.copy()
    wanted[[2, 5, 0]] = updates
    np.testing.assert_array_equal(scattered("nd", "none", (data, indices, updates), cls), wanted)


@pytest.mark.parametrize("cls", TARGETS)
@pytest.mark.parametrize("reduction", ["none", "add"])
@pytest.mark.parametrize("index", [3, -4, 2**32, -(2**63)])
def test_an_update_outside_the_data_is_reported_and_left_out(
    cls: str, reduction: str, index: int
) -> None:
    data = np.ones((3, 2), np.float32)
    for kind, indices, slot in [("elements", [[0, index]], 1), ("nd", [[1, index], [0, 0]], 2)]:
        reports = np.zeros(3, np.int64)
        places = np.array(indices, np.int64)
        updates = np.full(places.shape if kind == "elements" else places.shape[:1], 7, np.float32)
        value = scattered(kind, reduction, (data, places, updates), cls, reports=reports)
        assert (reports[0], reports[slot]) == (slot, index)
        assert (value != 1).sum() == 1


@pytest.mark.parametrize("cls", TARGETS)
@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("exclusive", [False, True])
@pytest.mark.parametrize("reverse", [False, True])
def test_cumulative_sums(cls: str, axis: int, exclusive: bool, reverse: bool) -> None:
    x = rng.random((3, 4, 13), np.float32)
    spec = ScanSpec("sum", axis, exclusive, reverse, (view_of(x, x),), (dense("float32", x.shape),))
    target = TARGETS[cls]
    wanted = reference(
        "CumSum", (x, np.array(axis)), exclusive=int(exclusive), reverse=int(reverse)
    )
    for tile in scan.candidates(spec, target):
        (value,) = run_kernel(scan.emit(spec, tile, target), [x], [(x.shape, "float32")])
        np.testing.assert_allclose(value, wanted, rtol=1e-5)


@pytest.mark.parametrize("dtype", ["int64", "int32", "float16", "float64"])
def test_cumulative_products_and_types(dtype: str) -> None:
    x = rng.integers(1, 3, (5, 9)).astype(numpy_dtype(dtype))
    target = TARGETS["cpu"]
    for op, wanted in (("sum", np.cumsum(x, 0)), ("prod", np.cumprod(x, 0))):
        spec = ScanSpec(op, 0, False, False, (view_of(x, x),), (dense(dtype, x.shape),))
        kernel = scan.emit(spec, scan.candidates(spec, target)[0], target)
        (value,) = run_kernel(kernel, [x], [(x.shape, dtype)])
        np.testing.assert_array_equal(value, wanted.astype(x.dtype))


@pytest.mark.parametrize("cls", TARGETS)
@pytest.mark.parametrize("largest", [False, True])
@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("k", [1, 5, 23])
def test_top_k(cls: str, largest: bool, axis: int, k: int) -> None:
    """Sorted, ties by the lower index."""
    x = rng.integers(0, 9, (23, 23)).astype(np.float32)
    order = np.argsort(-x if largest else x, axis=axis, kind="stable")
    places = np.take(order, np.arange(k), axis=axis)
    shape = places.shape
    outs = (dense("float32", shape), dense("int64", shape))
    spec = TopKSpec(axis, largest, (view_of(x, x),), outs)
    target = TARGETS[cls]
    kernel = topk.emit(spec, topk.candidates(spec, target)[0], target)
    values, found = run_kernel(kernel, [x], [(shape, "float32"), (shape, "int64")])
    np.testing.assert_array_equal(found, places)
    np.testing.assert_array_equal(values, np.take_along_axis(x, places, axis))


@pytest.mark.parametrize("dtype", ["float16", "int64", "uint8", "float64"])
def test_top_k_types(dtype: str) -> None:
    x = rng.permutation(100).astype(numpy_dtype(dtype))
    outs = (dense(dtype, (10,)), dense("int64", (10,)))
    spec = TopKSpec(0, True, (view_of(x, x),), outs)
    target = TARGETS["cpu"]
    kernel = topk.emit(spec, topk.candidates(spec, target)[0], target)
    values, _ = run_kernel(kernel, [x], [((10,), dtype), ((10,), "int64")])
    np.testing.assert_array_equal(values, np.sort(x)[::-1][:10])


@pytest.mark.parametrize("cls", TARGETS)
@pytest.mark.parametrize("largest", [False, True])
@pytest.mark.parametrize("step", [1, 2])
def test_top_k_of_long_lines(cls: str, largest: bool, step: int) -> None:
    """Most of a line is worse than what has been seen."""
    base = rng.standard_normal((3, 1001 * step)).astype(np.float32)
    x = base[:, ::step]
    order = np.argsort(-x if largest else x, axis=1, kind="stable")[:, :7]
    outs = (dense("float32", (3, 7)), dense("int64", (3, 7)))
    spec = TopKSpec(1, largest, (view_of(x, base),), outs)
    target = TARGETS[cls]
    kernel = topk.emit(spec, topk.candidates(spec, target)[0], target)
    values, found = run_kernel(kernel, [base], [((3, 7), "float32"), ((3, 7), "int64")])
    np.testing.assert_array_equal(found, order)
    np.testing.assert_array_equal(values, np.take_along_axis(x, order, 1))


@pytest.mark.parametrize("cls", TARGETS)
@pytest.mark.parametrize("largest", [True, False])
@pytest.mark.parametrize("axis", [0, 1])
def test_nan_counts_as_the_largest(cls: str, largest: bool, axis: int) -> None:
    x = rng.standard_normal((37, 41)).astype(np.float32)
    x[rng.random(x.shape) < 0.2] = np.nan
    k = 12
    shape = (k, 41) if axis == 0 else (37, k)
    outs = (dense("float32", shape), dense("int64", shape))
    spec = TopKSpec(axis, largest, (view_of(x, x),), outs)
    target = TARGETS[cls]
    kernel = topk.emit(spec, topk.candidates(spec, target)[0], target)
    values, indices = run_kernel(kernel, [x], [(shape, "float32"), (shape, "int64")])
    keys = np.where(np.isnan(x), np.inf, x)
    order = np.argsort(-keys if largest else keys, axis=axis, kind="stable").take(range(k), axis)
    np.testing.assert_array_equal(indices, order)
    np.testing.assert_array_equal(values, np.take_along_axis(x, order, axis))

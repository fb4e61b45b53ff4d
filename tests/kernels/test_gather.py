"""Gather, GatherElements and GatherND against NumPy and the ONNX reference."""

from __future__ import annotations

import numpy as np
import pytest
from harness import TARGETS, Array, dtype_name, numpy_dtype, run_kernel, view_of
from onnx.reference.ops.op_gathernd import _gather_nd_impl

from clinfer_kernels.dims import sym
from clinfer_kernels.gather import candidates, emit
from clinfer_kernels.spec import Tensor, dense
from clinfer_kernels.specs import GatherSpec

rng = np.random.default_rng(5)


def compute(
    kind: str,
    data: Array,
    indices: Array,
    cls: str,
    axis: int = 0,
    batch: int = 0,
    positions: str = "wrapped",
    reports: Array | None = None,
) -> Array:
    if kind == "elements":
        shape = indices.shape
    elif kind == "axis":
        shape = data.shape[:axis] + indices.shape + data.shape[axis + 1 :]
    else:
        shape = indices.shape[:-1] + data.shape[batch + indices.shape[-1] :]
    dtype = dtype_name(data)
    out = dense(dtype, shape)
    ins = (view_of(data, data), view_of(indices, indices))
    spec = GatherSpec(kind, axis, batch, ins, (out,), positions)
    target = TARGETS[cls]
    kernel = emit(spec, candidates(spec, target)[0], target)
    (value,) = run_kernel(kernel, [data, indices], [(shape, dtype)], reports=reports)
    return value


@pytest.mark.parametrize("cls", TARGETS)
@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("shape", [(), (4,), (2, 3)])
def test_along_an_axis(cls: str, axis: int, shape: tuple[int, ...]) -> None:
    data = rng.random((6, 5, 13), np.float32)
    size = data.shape[axis]
    indices = np.asarray(rng.integers(-size, size, shape), np.int64)
    np.testing.assert_array_equal(
        compute("axis", data, indices, cls, axis), np.take(data, indices, axis)
    )


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "int64", "bool", "uint8", "float64"])
def test_element_types(dtype: str) -> None:
    data = rng.integers(0, 2, (9, 21)).astype(numpy_dtype(dtype))
    indices = rng.integers(0, 9, 7).astype(np.int32)
    np.testing.assert_array_equal(compute("axis", data, indices, "cpu"), data[indices])


@pytest.mark.parametrize("cls", TARGETS)
def test_indices_of_the_clamped_rule_lead_to_the_nearest_place(cls: str) -> None:
    data = np.arange(5, dtype=np.float32)
    indices = np.array([-(2**62), -1, 4, 77, 2**32], np.int64)
    value = compute("axis", data, indices, cls, positions="clamped")
    np.testing.assert_array_equal(value, [0, 0, 4, 4, 4])


@pytest.mark.parametrize("cls", TARGETS)
@pytest.mark.parametrize("index", [3, -4, 2**32, -(2**32), 2**63 - 1, -(2**63)])
def test_an_index_outside_its_axis_is_reported_and_reads_what_is_there(
    cls: str, index: int
) -> None:
    data = np.arange(6, dtype=np.float32).reshape(3, 2)
    for kind, indices, slot in [
        ("axis", [1, index], 1),
        ("elements", [[0, index]], 1),
        ("nd", [[1, index], [0, 0]], 2),
    ]:
        reports = np.zeros(3, np.int64)
        value = compute(kind, data, np.array(indices, np.int64), cls, reports=reports)
        assert (reports[0], reports[slot]) == (slot, index)
        assert np.isin(value, data).all()


@pytest.mark.parametrize("cls", TARGETS)
def test_the_first_report_stays(cls: str) -> None:
    reports = np.array([5, 0, 0], np.int64)
    compute("axis", np.ones(3, np.float32), np.array([9]), cls, reports=reports)
    assert reports[0] == 5


@pytest.mark.parametrize("cls", TARGETS)
@pytest.mark.parametrize("index, is_right", [(-1, False), (0, True), (2, True), (3, False)])
def test_a_natural_index_is_not_counted_from_the_end(cls: str, index: int, is_right: bool) -> None:
    reports = np.zeros(2, np.int64)
    data = np.arange(3, dtype=np.float32)
    compute("axis", data, np.array([index]), cls, positions="natural", reports=reports)
    assert bool(reports[0]) != is_right


@pytest.mark.parametrize("cls", TARGETS)
@pytest.mark.parametrize("kind", ["axis", "elements", "nd"])
def test_an_axis_without_elements_is_never_read(cls: str, kind: str) -> None:
    """Nor is anything written, what the harness would have to call right: poison stays."""
    data = np.zeros((0, 2), np.float32)
    indices = np.zeros((3,) if kind == "axis" else (3, 2) if kind == "elements" else (3, 1))
    reports = np.zeros(2, np.int64)
    value = compute(kind, data, indices.astype(np.int64), cls, reports=reports)
    assert reports[0] == 1
    assert np.isnan(value).all()


@pytest.mark.parametrize("cls", TARGETS)
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_elements(cls: str, axis: int) -> None:
    data = rng.random((4, 7, 9), np.float32)
    shape = list(data.shape)
    shape[axis] = 5
    indices = rng.integers(-data.shape[axis], data.shape[axis], shape)
    np.testing.assert_array_equal(
        compute("elements", data, indices, cls, axis),
        np.take_along_axis(data, indices % data.shape[axis], axis),
    )


@pytest.mark.parametrize("cls", TARGETS)
@pytest.mark.parametrize("batch, width", [(0, 1), (0, 2), (0, 3), (1, 1), (1, 2)])
def test_tuples(cls: str, batch: int, width: int) -> None:
    data = rng.random((4, 5, 10), np.float32)
    shape = (4, 6, width)
    indices = np.stack(
        [rng.integers(-n, n, shape[:-1]) for n in data.shape[batch : batch + width]], -1
    )
    wanted = np.asarray(_gather_nd_impl(data, indices, batch)[0])
    np.testing.assert_array_equal(compute("nd", data, indices, cls, batch=batch), wanted)


@pytest.mark.parametrize("cls", TARGETS)
@pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
def test_one_element(cls: str, shape: tuple[int, ...]) -> None:
    data = rng.random(5, np.float32)
    index = np.full(shape, 3)
    np.testing.assert_array_equal(compute("axis", data, index, cls), data[index])
    if shape:
        wanted = np.asarray(_gather_nd_impl(data, index, 0)[0]).reshape(shape[:-1])
        np.testing.assert_array_equal(compute("nd", data, index, cls), wanted)


@pytest.mark.parametrize("cls", TARGETS)
def test_views_and_dynamic_sizes(cls: str) -> None:
    """Rows of a transposed table, as many as there are tokens."""
    table = rng.random((12, 40), np.float32)
    tokens = sym("tokens")
    data = Tensor("float32", (40, 12), (1, 40))
    spec = GatherSpec(
        "axis", 0, 0, (data, dense("int64", (tokens,))), (dense("float32", (tokens, 12)),)
    )
    target = TARGETS[cls]
    kernel = emit(spec, candidates(spec, target)[0], target)
    for count in (3, 0, 17):
        indices = rng.integers(0, 40, count)
        (value,) = run_kernel(
            kernel, [table, indices], [((count, 12), "float32")], {"tokens": count}
        )
        np.testing.assert_array_equal(value, table.T[indices])

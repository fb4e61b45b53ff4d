"""Later calls, which look less at what they are given: right all the same."""

from __future__ import annotations

import numpy as np
import pytest

import clinfer
from api.made import one_node

_SMALL, _LARGE = [3, 5], [3, 5000]  # copied, and read and written in place


@pytest.fixture(params=[_SMALL, _LARGE], ids=["small", "large"])
def shape(request) -> list[int]:
    return request.param


@pytest.fixture
def model(device, shape):
    float32 = 1
    ports = {"a": (float32, shape), "b": (float32, shape)}
    made = one_node("Sub", ports, {"y": (float32, shape)})
    compiled = clinfer.Core().compile_model(made.SerializeToString(), device)
    compiled([np.ones(shape, np.float32), np.zeros(shape, np.float32)])
    return compiled


def array(shape, value: float) -> np.ndarray:
    return np.full(shape, value, np.float32)


def test_each_call_has_its_own_inputs_and_results(model, shape):
    first = model({"a": array(shape, 5), "b": array(shape, 2)})["y"]
    second = model({"b": array(shape, 5), "a": array(shape, 2)})["y"]
    third = model([array(shape, 9), array(shape, 1)])["y"]
    assert [float(r[0, 0]) for r in (first, second, third)] == [3, -3, 8]
    first[:] = 0
    assert (third == 8).all()


@pytest.mark.parametrize(
    "wrong",
    [
        lambda a: a.astype(np.float64).astype("U8"),
        lambda a: a[:2],
        lambda a: a.reshape(-1),
        lambda a: None,
        lambda a: {"x": a},
    ],
)
def test_what_does_not_fit_is_refused_by_name(model, shape, wrong):
    good = array(shape, 1)
    with pytest.raises(clinfer.InputError, match="'a'"):
        model({"a": wrong(good), "b": good})
    with pytest.raises(clinfer.InputError, match="'b'"):
        model([good, wrong(good)])
    with pytest.raises(clinfer.InputError, match="'b'"):
        model({"a": good})
    with pytest.raises(clinfer.InputError, match="'c'"):
        model({"a": good, "c": good})
    assert (model([good, good])["y"] == 0).all()


def test_arrays_of_other_layouts_are_read_right(model, shape):
    wide = np.arange(np.prod(shape) * 2, dtype=np.float32).reshape(shape[0], -1)
    for value in (wide[:, ::2], np.asfortranarray(wide[:, : shape[1]]), wide[::-1, : shape[1]]):
        found = model([value, array(shape, 1)])["y"]
        np.testing.assert_array_equal(found, value - 1)
    swapped = wide[:, : shape[1]].astype(">f4")
    np.testing.assert_array_equal(
        model([swapped, array(shape, 1)])["y"], swapped.astype(np.float32) - 1
    )
    masked = np.ma.masked_array(wide[:, : shape[1]], copy=True)
    np.testing.assert_array_equal(model([masked, masked])["y"], np.zeros(shape))


def test_a_request_run_again_reads_what_is_in_its_arrays_now(model, shape):
    request = model.create_infer_request()
    a, b = array(shape, 4), array(shape, 1)
    request.infer([a, b])
    a[:] = 7
    assert (request.infer()["y"] == 6).all()
    request.set_tensor("b", array(shape, 2))
    assert (request.infer()["y"] == 5).all()
    assert (request.infer({"a": array(shape, 3)})["y"] == 1).all()
    assert (request.infer()["y"] == 1).all()
    with pytest.raises(clinfer.InputError, match="'a'"):
        request.infer({"b": b})


def test_what_becomes_of_a_list_afterwards_is_not_seen(model, shape):
    request = model.create_infer_request()
    given = [array(shape, 4), array(shape, 1)]
    request.infer(given)
    request.infer(given)
    given[0] = array(shape, 100)
    assert (request.infer()["y"] == 3).all()


def test_tensors_keep_their_memory_from_run_to_run(model, shape):
    request = model.create_infer_request()
    a, b = request.get_input_tensor(0), request.get_input_tensor(1)
    y = request.get_output_tensor()
    memory = y.data
    for value in (3, 8):
        a.data[:] = value
        b.data[:] = 1
        request.infer()
        assert (memory == value - 1).all()
    kept = request.infer()["y"]
    a.data[:] = 1
    request.infer()
    assert (kept == 7).all()
    assert (memory == 0).all()


def test_a_result_is_written_where_the_caller_wants_it(model, shape):
    place = array(shape, -1)
    assert model([array(shape, 4), array(shape, 1)], outputs=[place])["y"] is place
    assert (place == 3).all()
    over = array(shape, 6)  # an input, too
    model([over, array(shape, 2)], outputs=[over])
    assert (over == 4).all()

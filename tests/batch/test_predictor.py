"""Batches as Ray Data and Dask hand them out: results, bad rows, other processes."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from onnx import TensorProto, helper

import clinfer
from api.made import dense_answer, dense_model, finished, one_node, save
from clinfer.batch import ERROR, Predictor


def test_a_dict_of_arrays_gets_columns_of_results(dense, x):
    batch = {"x": x, "id": np.arange(100)}
    found = Predictor(dense)(batch)
    assert list(found) == ["x", "id", "y", ERROR]
    np.testing.assert_allclose(found["y"], dense_answer(x), rtol=1e-5, atol=1e-5)
    assert set(found[ERROR]) == {""}
    assert "y" not in batch


def test_columns_and_outputs_by_other_names(dense, x):
    predictor = Predictor(dense, columns={"x": "pixels"}, outputs={"y": "scores"}, keep=False)
    found = predictor({"pixels": x, "other": np.zeros(100)})
    assert list(found) == ["scores", ERROR]
    np.testing.assert_allclose(found["scores"], dense_answer(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("rows", [1, 7, 100, 1000])
def test_any_number_of_rows_at_a_time(dense, x, rows):
    found = Predictor(dense, batch_rows=rows)({"x": x})["y"]
    np.testing.assert_allclose(found, dense_answer(x), rtol=1e-5, atol=1e-5)


def test_a_model_of_a_fixed_number_of_rows(tmp_path, cpu, x):
    model = save(dense_model(rows=8), tmp_path / "eight.onnx")
    found = Predictor(model)({"x": x})["y"]
    np.testing.assert_allclose(found, dense_answer(x), rtol=1e-5, atol=1e-5)


def test_a_model_without_a_dimension_for_rows(tmp_path, cpu, x):
    model = save(
        one_node("Relu", {"x": (TensorProto.FLOAT, [24])}, {"y": (TensorProto.FLOAT, [24])}),
        tmp_path / "relu.onnx",
    )
    np.testing.assert_array_equal(Predictor(model)({"x": x})["y"], np.maximum(x, 0))


def test_rows_of_several_lengths(tmp_path, cpu):
    ports = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", "length"])]
    outs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", "length"])]
    nodes = [helper.make_node("Softmax", ["x"], ["y"], axis=1)]
    model = save(finished(helper.make_graph(nodes, "g", ports, outs)), tmp_path / "softmax.onnx")
    rows = [[0.0, 0.0], [1.0], [0.0, 0.0, 0.0, 0.0], [5.0, 5.0], []]
    column = np.empty(5, object)
    column[:] = [np.float32(row) for row in rows]
    found = Predictor(model)({"x": column})["y"]
    assert [np.round(y, 3).tolist() for y in found] == [
        [0.5, 0.5],
        [1.0],
        [0.25] * 4,
        [0.5, 0.5],
        [],
    ]


def test_bad_rows_say_why_and_spoil_no_other(dense, x):
    rows = list(x[:6])
    rows[1] = None
    rows[3] = x[3][:5]
    rows[4] = ["no", "number"]
    column = np.empty(6, object)
    column[:] = rows
    found = Predictor(dense)({"x": column})
    errors = found[ERROR].tolist()
    assert [bool(e) for e in errors] == [False, True, False, True, True, False]
    assert "null" in errors[1]
    assert "[1, 5]" in errors[3]
    good = [0, 2, 5]
    np.testing.assert_allclose(found["y"][good], dense_answer(x[good]), rtol=1e-5, atol=1e-5)
    assert np.isnan(found["y"][[1, 3, 4]]).all()


def test_numbers_that_the_input_has_no_room_for_are_bad_rows(tmp_path, cpu):
    ports = {"x": (TensorProto.INT8, ["n", 1])}, {"y": (TensorProto.INT8, ["n", 1])}
    model = save(one_node("Identity", *ports), tmp_path / "identity.onnx")
    found = Predictor(model)({"x": np.array([[3], [300], [-4]])})
    assert [bool(error) for error in found[ERROR]] == [False, True, False]
    assert found["y"][[0, 2]].ravel().tolist() == [3, -4]


def test_nulls_and_strings_among_numbers_are_bad_rows(dense, x):
    column = np.empty(4, object)
    column[:] = [x[0].tolist(), [None] * 24, [str(v) for v in x[1]], x[1].tolist()]
    found = Predictor(dense)({"x": column})
    assert [bool(error) for error in found[ERROR]] == [False, True, True, False]
    assert "null is among" in found[ERROR][1]
    assert "holds strings" in found[ERROR][2]


def test_lists_of_lists_as_ray_and_pandas_read_them(tmp_path, cpu):
    """Arrays of arrays, a Python object each."""
    ports = {"x": (TensorProto.FLOAT, ["n", 2, 2])}, {"y": (TensorProto.FLOAT, ["n", 2, 2])}
    model = save(one_node("Relu", *ports), tmp_path / "relu.onnx")

    def nested(*items) -> np.ndarray:
        made = np.empty(len(items), object)
        made[:] = items
        return made

    ones = np.ones(2, np.float32)
    column = nested(nested(ones, 2 * ones), nested(ones, None), nested(ones, ones[:1]))
    found = Predictor(model)({"x": column})
    assert [bool(error) for error in found[ERROR]] == [False, True, True]
    assert found["y"][0].tolist() == [[1, 1], [2, 2]]


def test_a_batch_of_bad_rows_has_columns_of_the_shape_of_good_ones(dense, x):
    found = Predictor(dense)({"x": x[:3, :5]})
    assert all(found[ERROR])
    assert found["y"].shape == (3, 10)
    assert Predictor(dense)({"x": x[:0]})["y"].shape == (0, 10)


def test_integers_without_a_sign_take_no_negative_ones(tmp_path, cpu):
    """The bits of -5 are those of a large number: the value would not stay what it is."""
    ports = {"x": (TensorProto.UINT64, ["n", 1])}, {"y": (TensorProto.UINT64, ["n", 1])}
    model = save(one_node("Identity", *ports), tmp_path / "identity.onnx")
    found = Predictor(model)({"x": np.array([[3], [-5]])})
    assert [bool(error) for error in found[ERROR]] == [False, True]
    with pytest.raises(clinfer.InputError, match="uint64 does not reach"):
        clinfer.Core().compile_model(model, cpu)({"x": np.array([[-5]])})


def test_strings_come_through_whole(tmp_path, cpu):
    ports = {"s": (TensorProto.STRING, ["n"])}, {"y": (TensorProto.STRING, ["n"])}
    model = save(one_node("Identity", *ports), tmp_path / "identity.onnx")
    column = np.empty(6, object)
    column[:] = ["a", "end\0", "größer".encode(), b"\xff", 7, None]
    found = Predictor(model)({"s": column})
    assert found["y"][:3].tolist() == ["a", "end\0", "größer"]
    assert [bool(error) for error in found[ERROR]] == [False] * 3 + [True] * 3
    assert "expected strings" in found[ERROR][4]


def test_an_output_without_rows_takes_a_row_at_a_time(tmp_path, cpu):
    ports = {"x": (TensorProto.FLOAT, ["n", 3])}, {"y": (TensorProto.INT64, [2, "k"])}
    model = save(one_node("NonZero", *ports), tmp_path / "nonzero.onnx")
    rows = np.array([[1, 0, 2], [0, 0, 3]], np.float32)
    with pytest.raises(clinfer.ModelError, match="batch_rows=1"):
        Predictor(model)({"x": rows})
    found = Predictor(model, batch_rows=1)({"x": rows})["y"]
    assert [y.tolist() for y in found] == [[[0, 0], [0, 2]], [[0], [2]]]


def test_inputs_whose_rows_do_not_go_together(tmp_path, cpu):
    ports = {n: (TensorProto.FLOAT, ["n", 3]) for n in "ab"}, {"y": (TensorProto.FLOAT, ["n", 3])}
    model = save(one_node("Add", *ports), tmp_path / "add.onnx")
    found = Predictor(model)({"a": np.ones((2, 3)), "b": np.ones(2)})
    assert "0 of 'b'" in found[ERROR][0]


def test_one_bad_index_is_found_among_many(tmp_path, cpu):
    """What only the inference refuses: halves of the batch run again."""
    data, index = (TensorProto.FLOAT, [4]), (TensorProto.INT64, ["n", 1])
    made = one_node("Gather", {"d": data, "i": index}, {"y": (TensorProto.FLOAT, ["n", 1])}, axis=0)
    made.graph.initializer.append(
        helper.make_tensor("d", TensorProto.FLOAT, [4], [10.0, 11.0, 12.0, 13.0])
    )
    del made.graph.input[0]
    model = save(made, tmp_path / "gather.onnx")
    indices = np.arange(64)[:, None] % 4
    indices[37] = 99
    found = Predictor(model)({"i": indices})
    bad = [row for row, error in enumerate(found[ERROR]) if error]
    assert bad == [37]
    np.testing.assert_array_equal(np.delete(found["y"], 37, 0), np.delete(indices, 37, 0) + 10)


def test_wrong_names_are_told_at_once(dense, x):
    with pytest.raises(clinfer.InputError, match=r"no column 'x'.*'a', 'b'"):
        Predictor(dense)({"a": x, "b": x})
    with pytest.raises(clinfer.InputError, match="no input 'z'"):
        Predictor(dense, columns={"z": "a"})({"a": x})
    with pytest.raises(clinfer.InputError, match="no output 'z'"):
        Predictor(dense, outputs=["z"])({"x": x})
    with pytest.raises(clinfer.InputError, match="batch_rows"):
        Predictor(dense, batch_rows=0)
    with pytest.raises(clinfer.InputError, match="found int"):
        Predictor(dense)(3)
    for outputs in ("y", {"y": ERROR}):
        with pytest.raises(clinfer.InputError, match="outputs: expected"):
            Predictor(dense, outputs=outputs)({"x": x})
    twice = arrow_table_of_two(x)
    with pytest.raises(clinfer.InputError, match="more than one column 'x'"):
        Predictor(dense)(twice)
    with pytest.raises(clinfer.InputError, match="columns are arrays; 'x' is 3"):
        Predictor(dense)({"x": 3})


def arrow_table_of_two(x):
    arrow = pytest.importorskip("pyarrow")
    return arrow.table([arrow.array(x.tolist())] * 2, names=["x", "x"])


def test_it_goes_to_other_processes_without_what_is_loaded(dense, x):
    predictor = Predictor(dense)
    predictor({"x": x})
    sent = pickle.dumps(predictor)
    assert len(sent) < 2000
    found = pickle.loads(sent)({"x": x})["y"]
    np.testing.assert_allclose(found, dense_answer(x), rtol=1e-5, atol=1e-5)


def test_a_prepared_model_goes_with_its_steps(dense, x):
    model = clinfer.Core().read_model(dense)
    processor = clinfer.preprocess.PrePostProcessor(model)
    processor.input().preprocess().scale(2.0)
    sent = pickle.dumps(Predictor(processor.build()))
    found = pickle.loads(sent)({"x": x})["y"]
    np.testing.assert_allclose(found, dense_answer(x / 2), rtol=1e-5, atol=1e-5)


def test_tables_of_arrow(dense, x):
    arrow = pytest.importorskip("pyarrow")
    lists = arrow.array(x.tolist(), arrow.list_(arrow.float32()))
    fixed = arrow.FixedSizeListArray.from_arrays(arrow.array(x.reshape(-1)), 24)
    tensors = arrow.FixedShapeTensorArray.from_numpy_ndarray(x)
    for column in (lists, fixed, tensors):
        found = Predictor(dense)(arrow.table({"x": column, "id": list(range(100))}))
        assert found.column_names == ["x", "id", "y", ERROR]
        y = np.array(found["y"].to_pylist(), np.float32)
        np.testing.assert_allclose(y, dense_answer(x), rtol=1e-5, atol=1e-5)
    with_null = arrow.array([None, *x[1:3].tolist()], arrow.list_(arrow.float32()))
    found = Predictor(dense)(arrow.table({"x": with_null}))
    assert found["y"].to_pylist()[0] is None
    assert "null" in found[ERROR][0].as_py()


def test_data_frames(dense, x):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"x": x.tolist(), "id": range(100)}, index=range(200, 300))
    found = Predictor(dense)(frame)
    assert list(found.columns) == ["x", "id", "y", ERROR]
    assert list(found.index) == list(frame.index)
    np.testing.assert_allclose(np.array(found["y"].tolist()), dense_answer(x), rtol=1e-5, atol=1e-5)
    frame.loc[201, "x"] = pandas.NA
    assert "null" in Predictor(dense)(frame)[ERROR].iloc[1]
    empty = Predictor(dense).empty(frame.iloc[:0])
    assert list(empty.columns) == list(found.columns)
    assert list(empty.dtypes) == list(found.dtypes)

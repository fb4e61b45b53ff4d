"""`clinfer bench`, benchmark_app's options, and numbers for sizes that a model leaves free."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

import clinfer as api
from cli.conftest import DIGITS, F, rows, save
from clinfer.cli.shapes import parse_groups, parse_shapes
from clinfer.cli.sizes import fitting_sizes
from clinfer.device.discover import open_device
from clinfer.errors import InputError
from clinfer.plugins.compiler import plan_model

QUICK = ("-d", "CPU", "-niter", "4", "--json")


@pytest.fixture
def unet(tmp_path):
    """Halved and doubled again beside itself, so that height and width must be even."""
    twice = numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "twice")
    nodes = [
        helper.make_node("Constant", [], ["twice"], value=twice),
        helper.make_node("MaxPool", ["x"], ["half"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Resize", ["half", "", "twice"], ["whole"], mode="nearest"),
        helper.make_node("Concat", ["whole", "x"], ["y"], axis=1),
    ]
    size = ["n", 1, "height", "width"]
    return save(tmp_path / "unet.onnx", nodes, {"x": (F, size)}, {"y": (F, None)})


def report(done) -> dict:
    assert (done.code, done.err) == (0, ""), done.err
    return json.loads(done.out)


# -- measurements --------------------------------------------------------------------------------


def test_latency_with_one_request_then_throughput(clinfer, two_inputs, tmp_path):
    np.save(tmp_path / "a.npy", rows(4))
    found = report(clinfer("bench", two_inputs, *QUICK, "-i", f"a={tmp_path / 'a.npy'}"))
    latency, throughput = found["measurements"]
    assert (latency["hint"], throughput["hint"]) == ("latency", "throughput")
    assert (latency["requests"], latency["iterations"]) == (1, 4)
    ms = latency["latency_ms"]
    assert 0 < ms["min"] <= ms["median"] <= ms["p90"] <= ms["p99"] <= ms["max"]
    assert throughput["throughput_per_second"] > 0
    assert found["inputs"] == [{"a": [4, 3], "b": [4, 3]}]
    assert "cold" not in found["load"]


def test_options_of_benchmark_app(clinfer, two_inputs):
    given = ("-hint", "tput", "-nstreams", "2", "-nireq", "3", "-t", "0.01", "-niter", "7")
    found = report(clinfer("bench", "-m", two_inputs, *QUICK, *given, "-b", "5"))
    (row,) = found["measurements"]
    assert (row["streams"], row["requests"]) == (2, 3)
    assert row["iterations"] >= 7
    assert found["inputs"] == [{"a": [5, 3], "b": [5, 3]}]
    found = report(clinfer("bench", two_inputs, *QUICK, "-shape", "a[2,3],b[2,3]"))
    assert found["inputs"] == [{"a": [2, 3], "b": [2, 3]}]


def test_data_of_several_shapes_in_turn(clinfer, two_inputs):
    found = report(clinfer("bench", two_inputs, *QUICK, "-data_shape", "a[1,3][4,3]"))
    assert found["inputs"] == [{"a": [n, 3], "b": [n, 3]} for n in (1, 4)]
    bench = ("bench", two_inputs, *QUICK, "-data_shape")
    clinfer(*bench, "a[1,4]").fails_with("'a' [n,3] is 3, found 4", "--shape")
    clinfer(*bench, "a[1]").fails_with("'a' has the shape [n,3]")
    clinfer(*bench, "z[1]").fails_with("no input 'z'", "a, b")
    clinfer(*bench, "a[?,3]").fails_with("is no number")


def test_nothing_is_built_that_was_not_asked_for(clinfer, two_inputs, tmp_path):
    bench = ("bench", two_inputs, *QUICK, "--cache-dir", tmp_path / "c")
    assert report(clinfer(*bench))["load"]["programs_built"] > 0
    load = report(clinfer(*bench))["load"]
    assert (load["programs_built"], load["from_cache"]) == (0, True)


def test_load_with_every_cache_empty(clinfer, two_inputs):
    load = report(clinfer("bench", two_inputs, *QUICK, "--cold"))["load"]
    assert load["built"] == 2  # the kernel and the player
    assert load["warm"] < load["cold"]


def test_time_of_each_kernel_and_reports(clinfer, two_inputs, tmp_path):
    trace, folder = tmp_path / "trace.json", tmp_path / "new"
    given = ("--profile", trace, "-report_type", "csv", "-report_folder", folder)
    found = report(clinfer("bench", two_inputs, *QUICK, *given))
    assert found["kernels"][0]["launches"] == 1
    assert found["kernels"][0]["peak"] in ("FMA", "copy")
    assert found["kernels"][0]["of peak"] > 0
    assert sum(row["share"] for row in found["kernels"]) == pytest.approx(1)
    assert set(found["peaks"]) == {"gflops", "gigabytes"}
    assert json.loads(trace.read_text())["traceEvents"]
    first, second = (list(csv.DictReader(open(file))) for file in found["files"])  # noqa: SIM115, PTH123
    assert [row["hint"] for row in first] == ["latency", "throughput"]
    assert float(first[0]["latency_median_ms"]) > 0
    assert second[0]["kernel"] == found["kernels"][0]["kernel"]


def test_bench_prints_lines_for_people(clinfer, two_inputs):
    done = clinfer("bench", two_inputs, "-d", "CPU", "-niter", "2")
    assert done.code == 0, done.err
    for words in ("load", "latency     min", "throughput  min", "2 in", "1 request\n"):
        assert words in done.out


def test_bench_says_what_is_wrong(clinfer, two_inputs, tmp_path):
    for option, value in (("-t", "0"), ("-t", "nan"), ("-nireq", "0"), ("-hint", "speed")):
        assert clinfer("bench", two_inputs, option, value).code == 2
    bench = ("bench", two_inputs, *QUICK)
    clinfer(*bench, "--input", f"z={tmp_path}").fails_with("no input 'z'")
    clinfer(*bench, "--profile", tmp_path).fails_with("--profile", "is a folder")
    clinfer(*bench, "-report_type", "csv", "-report_folder", "/proc/no").fails_with(
        "-report_folder", "cannot be written"
    )
    clinfer("bench", "-d", "CPU").fails_with("which model?")


# -- shapes --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "shapes"),
    [
        ("ids=1x128", [("ids", [1, 128])]),
        ("ids=?xlength", [("ids", [None, "length"])]),
        ("ids[1,128],mask[?, -1]", [("ids", [1, 128]), ("mask", [None, None])]),
        ("[1,3,8,8]", [("", [1, 3, 8, 8])]),
        ("scalar[]", [("scalar", [])]),
    ],
)
def test_shapes_in_both_forms(text, shapes):
    assert parse_shapes(text) == shapes


def test_several_shapes_of_an_input():
    assert parse_groups("x[1][2],y[3]") == {"x": [[1], [2]], "y": [[3]]}


@pytest.mark.parametrize(
    "text", ["=1x2", "1x2", "x=", "x=1x", "x[1", "x[1]y", "x[1][2]", "x=1[2]", "[1.5]"]
)
def test_other_forms_are_wrong_usage(clinfer, text):
    done = clinfer("run", DIGITS, "--shape", text)
    assert done.code == 2, done
    assert "--shape" in done.err


# -- sizes that are free -------------------------------------------------------------------------


def test_free_sizes_are_what_the_graph_accepts(clinfer, unet):
    found = report(clinfer("bench", unet, *QUICK, "-hint", "latency"))
    assert found["inputs"] == [{"x": [1, 1, 224, 224]}]
    run = report(clinfer("run", unet, "--device", "CPU", "--json"))
    assert run["outputs"][0]["shape"] == [1, 2, 224, 224]


def test_a_size_that_cannot_fit_is_asked_for(clinfer, unet):
    done = clinfer("bench", unet, *QUICK, "-data_shape", "[1,1,7,8]")
    done.fails_with("axis 2", "6", "7 (height)")


def fitted(path, **known) -> dict[str, int]:
    model = api.Core().read_model(path)
    return fitting_sizes(plan_model(model, open_device("CPU")), model.inputs, known)


def test_sizes_follow_from_each_other(tmp_path):
    """As in a language model: the mask is as long as past and new tokens together."""
    axes = numpy_helper.from_array(np.array([2]), "axes")
    nodes = [
        helper.make_node("Constant", [], ["axes"], value=axes),
        helper.make_node("Concat", ["past", "new"], ["all"], axis=1),
        helper.make_node("Unsqueeze", ["mask", "axes"], ["column"]),
        helper.make_node("Mul", ["all", "column"], ["y"]),
    ]
    inputs = {
        "past": (F, ["n", "p", 4]), "new": (F, ["n", "t", 4]), "mask": (F, ["n", "total"]),
    }  # fmt: skip
    path = save(tmp_path / "lm.onnx", nodes, inputs, {"y": (F, None)})
    found = fitted(path)
    assert found["n"] == 1
    assert found["total"] in (1, found["p"] + found["t"])
    assert fitted(path, p=3, t=2)["total"] in (1, 5)


def test_limits_of_a_size_are_kept(unet):
    model = api.Core().read_model(unet)
    model.reshape({"x": [None, 1, (1, 100), (300, 400)]})
    found = fitting_sizes(plan_model(model, open_device("CPU")), model.inputs)
    assert list(found.values()) == [1, 100, 300]


def test_sizes_that_nothing_fits_are_named(tmp_path):
    """Rows of 7 below rows of k, added to 4 rows: k is 7, and m, which is given, is not 2."""
    nodes = [
        helper.make_node("Concat", ["x", "y"], ["z"], axis=0),
        helper.make_node("Add", ["z", "w"], ["sum"]),
    ]
    inputs = {"x": (F, [2, "k"]), "y": (F, ["m", 7]), "w": (F, [4, "k"])}
    path = save(tmp_path / "none.onnx", nodes, inputs, {"sum": (F, None)})
    assert fitted(path) == {"k": 7, "m": 2}
    with pytest.raises(InputError, match=r"sizes k are free.*--shape x=2xk"):
        fitted(path, m=3)


def test_an_input_without_a_rank_is_asked_for(clinfer, tmp_path):
    node = helper.make_node("Relu", ["x"], ["y"])
    path = save(tmp_path / "open.onnx", [node], {"x": (TensorProto.FLOAT, None)}, {"y": (F, None)})
    clinfer("bench", path, *QUICK).fails_with("input 'x'", "--input")

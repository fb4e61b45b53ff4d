"""The GPU plugin's plans in the cache: a warm start lowers nothing and believes no entry."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest import mock

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import clinfer
import fault_operations
from api.made import dense_answer, dense_model, finished, save
from api.test_tune import choose
from clinfer.cache import Store, read, to_bytes
from clinfer.cli import main
from clinfer.device import weights
from clinfer.lowering import lower
from clinfer.lowering.plan import Absent

X = np.random.default_rng(3).standard_normal((5, 24)).astype(np.float32)
IDS = np.array([5, 0, 4095], np.int64)
ROWS, COLUMNS = 4096, 128


def table(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((ROWS, COLUMNS)).astype(np.float32)


def table_model(seed: int = 0) -> onnx.ModelProto:
    """y = table[ids]; the table, of 2 MiB, is used as it lies in the file."""
    graph = helper.make_graph(
        [helper.make_node("Gather", ["table", "ids"], ["y"], name="look up")],
        "table",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["n"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", COLUMNS])],
        [numpy_helper.from_array(table(seed), "table")],
    )
    return finished(graph)


def compiled(model, cache: Path, **more):
    return clinfer.Core().compile_model(model, "GPU", {"CACHE_DIR": str(cache), **more})


def plans(cache: Path) -> list[Path]:
    return [
        Store(cache).folder.entry(i.digest)
        for i in Store(cache).entries()
        if i.record.kind == "plan"
    ]


@pytest.fixture
def lowered(monkeypatch) -> list[str]:
    """The graphs that are lowered, by name."""
    found: list[str] = []
    original = lower.lower

    def noted(graph, target, choose):
        found.append(graph.name)
        return original(graph, target, choose)

    monkeypatch.setattr(lower, "lower", noted)
    return found


@pytest.fixture
def own_memory():
    """PoCL as a GPU that has memory of its own, to which weights are copied."""
    with fault_operations.own_memory():
        yield


def test_a_warm_start_lowers_nothing_and_gives_the_same_bits(gpu, tmp_path, lowered):
    path = save(dense_model(), tmp_path / "m.onnx")
    first = compiled(path, tmp_path / "c")
    assert lowered == ["dense"]
    second = compiled(path, tmp_path / "c")
    assert lowered == ["dense"]
    assert second.programs_built == 0
    np.testing.assert_array_equal(second(X)[0], first(X)[0])


def test_of_threads_that_want_one_plan_one_makes_it(gpu, tmp_path, lowered):
    path = save(dense_model(), tmp_path / "m.onnx")
    with ThreadPoolExecutor(6) as pool:
        models = list(pool.map(lambda _: compiled(path, tmp_path / "c"), range(6)))
    assert lowered == ["dense"]
    assert sorted(model.programs_built for model in models)[:5] == [0] * 5
    for model in models:
        np.testing.assert_array_equal(model(X)[0], models[0](X)[0])


def test_every_form_of_a_model_finds_the_plan(core, gpu, tmp_path, lowered):
    path = save(dense_model(), tmp_path / "m.onnx")
    core.set_property({"CACHE_DIR": str(tmp_path / "c")})
    core.compile_model(path, gpu)
    for model in (core.read_model(path), path.read_bytes(), core.read_model(path.read_bytes())):
        np.testing.assert_allclose(
            core.compile_model(model, gpu)(X)[0], dense_answer(X), rtol=1e-4, atol=1e-5
        )
    assert lowered == ["dense"]
    reshaped = core.read_model(path)
    reshaped.reshape([5, 24])
    core.compile_model(reshaped, gpu)
    assert lowered == ["dense", "dense"]


_CHILD = """
import json, sys
import clinfer
core = clinfer.Core()
core.set_property({"CACHE_DIR": sys.argv[2]})
model = core.compile_model(sys.argv[1], "GPU")
heavy = ("onnx", "clinfer.graph.ir", "clinfer.passes.pipeline", "clinfer.lowering.lower")
print(json.dumps([model.programs_built, [name for name in heavy if name in sys.modules]]))
"""


def test_a_warm_process_loads_no_reader_no_passes_and_no_lowering(gpu, tmp_path):
    path = save(dense_model(), tmp_path / "m.onnx")
    compiled(path, tmp_path / "c")
    command = [sys.executable, "-c", _CHILD, str(path), str(tmp_path / "c")]
    environment = {"PYTHONPATH": ":".join(sys.path), "CLINFER_GPU_PLATFORM": "Portable"}
    with mock.patch.dict("os.environ", environment):
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [0, []]


def test_changed_weights_miss(gpu, tmp_path, lowered):
    path = save(dense_model(0), tmp_path / "m.onnx")
    compiled(path, tmp_path / "c")
    save(dense_model(1), path)
    model = compiled(path, tmp_path / "c")
    assert len(lowered) == 2
    np.testing.assert_allclose(model(X)[0], dense_answer(X, 1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("memory", ["shared", "own"])
def test_changed_external_data_misses(gpu, tmp_path, lowered, memory, request):
    if memory == "own":
        request.getfixturevalue("own_memory")
    path = save(table_model(), tmp_path / "m.onnx", external=True)
    for _ in range(2):
        np.testing.assert_array_equal(compiled(path, tmp_path / "c")(IDS)[0], table(0)[IDS])
    assert len(lowered) == 1
    data = tmp_path / "m.onnx.data"
    changed = np.fromfile(data, np.float32) * 2
    changed.tofile(data)
    np.testing.assert_array_equal(compiled(path, tmp_path / "c")(IDS)[0], table(0)[IDS] * 2)
    assert len(lowered) == 2


# -- weights on a device with memory of its own ---------------------------------------------------


@pytest.mark.parametrize("external", [False, True])
def test_weights_that_lie_in_the_model_are_not_in_the_cache(
    gpu, own_memory, tmp_path, lowered, external
):
    path = save(table_model(), tmp_path / "m.onnx", external=external)
    first = compiled(path, tmp_path / "c")
    (entry,) = plans(tmp_path / "c")
    assert entry.stat().st_size < table(0).nbytes // 10
    second = compiled(path, tmp_path / "c")
    assert lowered == ["table"]
    for model in (first, second):
        np.testing.assert_array_equal(model(IDS)[0], table(0)[IDS])
        assert all(isinstance(constant, Absent) for constant in model.plan.constants)


def test_a_model_given_as_bytes_keeps_its_weights_there(gpu, own_memory, tmp_path, lowered):
    data = table_model().SerializeToString()
    for _ in range(2):
        np.testing.assert_array_equal(compiled(data, tmp_path / "c")(IDS)[0], table(0)[IDS])
    assert lowered == ["table"]
    (entry,) = plans(tmp_path / "c")
    assert entry.stat().st_size < table(0).nbytes // 10


def test_a_model_that_is_written_into_while_it_is_uploaded_is_read_anew(
    gpu, own_memory, tmp_path, monkeypatch
):
    path = save(table_model(0), tmp_path / "m.onnx")
    compiled(path, tmp_path / "c")
    original = weights.placed

    def placed(*arguments):
        found = original(*arguments)
        monkeypatch.setattr(weights, "placed", original)
        path.write_bytes(table_model(1).SerializeToString())
        return found

    monkeypatch.setattr(weights, "placed", placed)
    np.testing.assert_array_equal(compiled(path, tmp_path / "c")(IDS)[0], table(1)[IDS])
    np.testing.assert_array_equal(compiled(path, tmp_path / "c")(IDS)[0], table(1)[IDS])


def test_what_a_device_has_copied_may_change_in_the_file(gpu, own_memory, tmp_path):
    path = save(table_model(0), tmp_path / "m.onnx")
    models = [compiled(path, tmp_path / "c") for _ in range(2)]
    with path.open("r+b") as file:
        file.truncate(100)
    for model in models:
        np.testing.assert_array_equal(model(IDS)[0], table(0)[IDS])


def test_an_entry_of_a_device_that_copies_serves_one_that_does_not(gpu, tmp_path, lowered):
    """Such a device could be told apart by its key; what is read from files is copied anyway."""
    path = save(table_model(0), tmp_path / "m.onnx")
    with fault_operations.own_memory():
        compiled(path, tmp_path / "c")
    model = compiled(path, tmp_path / "c")
    assert lowered == ["table"]
    with path.open("r+b") as file:
        file.write(bytes(path.stat().st_size))
    np.testing.assert_array_equal(model(IDS)[0], table(0)[IDS])


# -- entries that cannot be believed --------------------------------------------------------------


def _flipped(data: bytes) -> bytes:
    return data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 4]) + data[len(data) // 2 + 1 :]


_SPOILED = {
    "a flipped bit": _flipped,
    "cut short": lambda data: data[:-100],
    "emptied": lambda data: b"",
    "another file": lambda data: b"no container" * 1000,
}


@pytest.mark.parametrize("how", _SPOILED)
def test_a_damaged_plan_is_a_miss_and_is_made_again(gpu, tmp_path, lowered, how):
    path = save(dense_model(), tmp_path / "m.onnx")
    compiled(path, tmp_path / "c")
    (entry,) = plans(tmp_path / "c")
    entry.write_bytes(_SPOILED[how](entry.read_bytes()))
    for count in (2, 2):
        model = compiled(path, tmp_path / "c")
        assert len(lowered) == count
        assert model.programs_built == 0
        np.testing.assert_allclose(model(X)[0], dense_answer(X), rtol=1e-4, atol=1e-5)


def _other_plan(change):
    def spoil(sections):
        document = json.loads(bytes(sections["plan"]))
        change(document)
        return {**sections, "plan": json.dumps(document).encode()}

    return spoil


def _set(part, value):
    return _other_plan(lambda document: document.__setitem__(part, value))


def _in_file(*place):
    def change(document):
        document["constants"] = [["file", "float32", [24, 10], *place]] * len(document["constants"])

    return _other_plan(change)


_FOREIGN = {
    "no plan": lambda s: {k: v for k, v in s.items() if k != "plan"},
    "no tuning": lambda s: {k: v for k, v in s.items() if k != "tuning"},
    "no JSON": lambda s: {**s, "plan": b"\x80\x04K\x01."},
    "another format": _set("format", 0),
    "a constant outside": _set("constants", [["float32", [24, 10], 1 << 40, 960]]),
    "tuning of another kind": lambda s: {**s, "tuning": b'["[[\\"kind\\",\\"model\\"]]",""]'},
    "tuning that is a number": lambda s: {**s, "tuning": b"7"},
    "a place behind the file": _in_file(0, 1 << 40, 960),
    "a place before the file": _in_file(0, -8, 960),
    "a file that is not there": _in_file(3, 0, 960),
    "a file before the first": _in_file(-1, 0, 960),
    "more bytes than elements": _in_file(0, 0, 1 << 20),
    "a constant of another size": _set("constants", [["float32", [1], 0, 4]] * 2),
}


@pytest.mark.parametrize("how", _FOREIGN)
def test_an_intact_entry_of_another_form_is_taken_back(gpu, tmp_path, lowered, how, caplog):
    path = save(dense_model(), tmp_path / "m.onnx")
    compiled(path, tmp_path / "c")
    (entry,) = plans(tmp_path / "c")
    known = read(entry)
    sections = _FOREIGN[how]({name: bytes(data) for name, data in known.sections.items()})
    entry.write_bytes(to_bytes(known.record, sections))
    shutil.copy(entry, tmp_path / "spoiled")
    for count in (2, 2):
        model = compiled(path, tmp_path / "c")
        assert len(lowered) == count
        np.testing.assert_allclose(model(X)[0], dense_answer(X), rtol=1e-4, atol=1e-5)
    shutil.copy(tmp_path / "spoiled", entry)
    command = ["verify", str(path), "--device", gpu, "--cache-dir", str(tmp_path / "c")]
    if "behind" not in how and "not there" not in how:  # the model is asked when it is needed
        assert main(command) == 3


def test_a_plan_is_stale_when_other_tuning_data_are_there(gpu, tmp_path, lowered, capsys):
    path = save(dense_model(rows=8), tmp_path / "m.onnx")
    cache = tmp_path / "c"
    arguments = ["verify", str(path), "--device", gpu, "--cache-dir", str(cache)]
    before = compiled(path, cache)
    assert main(arguments) == 0
    wanted = choose(cache, path, gpu, lambda count: count - 1)
    assert wanted != {program.digest for program in before.plan.programs}
    capsys.readouterr()
    assert main(arguments) == 3
    assert "other tuning data" in capsys.readouterr().out
    after = compiled(path, cache)
    assert {program.digest for program in after.plan.programs} == wanted
    lowered.clear()
    assert compiled(path, cache).programs_built == 0
    assert lowered == []


def test_a_cache_that_takes_nothing_costs_time_only(gpu, tmp_path, lowered):
    path = save(dense_model(), tmp_path / "m.onnx")
    (tmp_path / "file").write_bytes(b"")
    for _ in range(2):
        model = compiled(path, tmp_path / "file")
        np.testing.assert_allclose(model(X)[0], dense_answer(X), rtol=1e-4, atol=1e-5)
    assert len(lowered) == 2


# -- what else knows plans -------------------------------------------------------------------------


def test_cache_only_asks_for_the_plan(gpu, tmp_path):
    path = save(dense_model(), tmp_path / "m.onnx")
    compiled(path, tmp_path / "c")
    model = compiled(path, tmp_path / "c", CACHE_MODE="cache-only")
    np.testing.assert_allclose(model(X)[0], dense_answer(X), rtol=1e-4, atol=1e-5)
    plans(tmp_path / "c")[0].unlink()
    with pytest.raises(clinfer.CompileRequiredError, match="the model's plan is not in the cache"):
        compiled(path, tmp_path / "c", CACHE_MODE="cache-only")


@pytest.mark.parametrize("memory", ["shared", "own"])
def test_warm_stores_what_verify_proves_and_a_start_needs(
    gpu, tmp_path, lowered, capsys, memory, request
):
    if memory == "own":
        request.getfixturevalue("own_memory")
    path = save(table_model(), tmp_path / "m.onnx")
    cache = tmp_path / "c"
    arguments = [str(path), "--device", gpu, "--cache-dir", str(cache)]
    assert main(["verify", *arguments]) == 3
    assert "the model's plan: absent" in capsys.readouterr().out
    assert main(["warm", *arguments, "--json"]) == 0
    assert main(["verify", *arguments]) == 0
    lowered.clear()
    model = compiled(path, cache, CACHE_MODE="cache-only")
    np.testing.assert_array_equal(model(IDS)[0], table(0)[IDS])
    assert lowered == []
    plans(cache)[0].unlink()
    capsys.readouterr()
    assert main(["warm", *arguments, "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["models"]
    assert (row["result"], row["built"]) == ("warmed", 0)
    assert main(["cache", "list", str(cache)]) == 0
    assert "plan" in capsys.readouterr().out


def test_a_pack_of_a_model_has_its_plan_and_the_texts_of_its_programs(gpu, tmp_path, lowered):
    path = save(dense_model(), tmp_path / "m.onnx")
    compiled(path, tmp_path / "c")
    pack, other = tmp_path / "m.clpack", tmp_path / "other"
    assert main(["pack", "--new-key", str(tmp_path / "key")]) == 0
    made = ["pack", str(path), "--device", gpu, "--cache-dir", str(tmp_path / "c")]
    assert main([*made, "-o", str(pack), "--sources", "--key", str(tmp_path / "key")]) == 0
    trust = ["--trust", str(tmp_path / "key.pub")]
    assert main(["unpack", str(pack), "--cache-dir", str(other), *trust]) == 0
    lowered.clear()
    assert compiled(path, other, CACHE_MODE="cache-only").programs_built == 0
    assert lowered == []

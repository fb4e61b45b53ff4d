"""The seed layer: what an installed package brings is not compiled at a first start."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import clinfer
from api.conftest import prepare
from clinfer.cache.layers import Layers
from clinfer.cache.seed import PACKAGE
from clinfer.cache.store import Store
from clinfer.device import pocl_binary, processor
from clinfer.device.discover import open_device
from clinfer.lowering.plan import Program
from clinfer.models import Models
from clinfer.plugins import drafts
from clinfer.plugins import seed as seeds
from clinfer.plugins.compiler import program_record
from clinfer.settings import Settings

pytest.importorskip("hatchling")
X = np.linspace(-3, 3, 24, dtype=np.float32).reshape(4, 6)


W = np.linspace(-1, 1, 36, dtype=np.float32).reshape(6, 6)


def write_model(path: Path, w: np.ndarray = W) -> Path:
    """y = softmax(relu(x) w) over 6 columns, for any number of rows."""
    nodes = [
        helper.make_node("Relu", ["x"], ["r"]),
        helper.make_node("MatMul", ["r", "w"], ["m"]),
        helper.make_node("Softmax", ["m"], ["y"], axis=1),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 6])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 6])
    graph = helper.make_graph(nodes, "g", [x], [y], [numpy_helper.from_array(w, "w")])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), path)
    return path


def expected(w: np.ndarray = W) -> np.ndarray:
    grown = np.exp(np.maximum(X, 0) @ w)
    return grown / grown.sum(axis=1, keepdims=True)


class OneCase:
    """For `conformance_cases.Cases`, which takes seconds to make all of ONNX's."""

    def sample(self, count: int) -> list[str]:
        return ["test_abs"][:count]

    def model(self, name: str) -> onnx.ModelProto:
        return onnx.parser.parse_model(
            '<ir_version: 8, opset_import: ["" : 17]> g (float[3] x) => (float[3] y) {y = Abs(x)}'
        )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The seed of a model and a case for this machine's level, as the tool makes it."""
    import build_seed
    import seed_programs

    folder = tmp_path_factory.mktemp("seed")
    model = write_model(folder / "model.onnx")
    with pytest.MonkeyPatch.context() as patch:
        prepare("CPU", patch)
        patch.setattr(seed_programs, "Cases", OneCase)
        target = seeds.level_of(open_device("CPU"))
        if target is None:
            pytest.skip("this device takes programs of no level of x86-64")
        asked = [str(model), "--operators", "1", "--targets", target.name, "--jobs", "1"]
        assert build_seed.main([*asked, "--out", str(folder), "--work", str(folder / "work")]) == 0
    (made,) = folder.glob("*.whl")
    return made


@pytest.fixture
def installed(wheel, tmp_path, monkeypatch, cpu) -> Path:
    """The folder of the package, where Python finds it."""
    place = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(place)
    monkeypatch.syspath_prepend(str(place))
    monkeypatch.delenv("CLINFER_SEED", raising=False)
    return place / PACKAGE


@pytest.fixture
def model(tmp_path) -> Path:
    return write_model(tmp_path / "model.onnx")


def check(compiled, w: np.ndarray = W) -> None:
    np.testing.assert_allclose(compiled(X)[0], expected(w), rtol=1e-5)


def entries(folder: Path) -> list[Path]:
    return sorted(path for path in (folder / "entries").glob("*/*") if path.is_file())


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_first_start_builds_nothing(installed, model, tmp_path):
    before = content(installed)
    compiled = clinfer.Core().compile_model(model, "CPU")
    check(compiled)
    assert compiled.programs_built == 0
    cold = clinfer.Core().compile_model(model, "CPU", {"CACHE_DIR": tmp_path / "cache"})
    assert (cold.programs_built, cold.get_property("LOADED_FROM_CACHE")) == (0, False)
    warm = clinfer.Core().compile_model(model, "CPU", {"CACHE_DIR": tmp_path / "cache"})
    assert warm.get_property("LOADED_FROM_CACHE")
    check(warm)
    assert content(installed) == before
    assert PACKAGE not in sys.modules


def test_what_was_taken_is_let_go_of(installed, model):
    """PoCL aborts where a context goes that had a program without IR."""
    code = (
        "import gc, sys, clinfer\n"
        "compiled = clinfer.Core().compile_model(sys.argv[1], 'CPU')\n"
        "assert compiled.programs_built == 0\n"
        "del compiled; gc.collect(); print('gone')\n"
    )
    paths = os.pathsep.join([str(installed.parent), *sys.path])
    command = [sys.executable, "-c", code, str(model)]
    env = {**os.environ, "PYTHONPATH": paths}
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "gone\n"), done.stderr


def test_a_model_of_the_seed_is_not_read(installed, model):
    """Its plan is there: neither onnx nor the passes are needed, with the same results."""
    code = (
        "import sys, numpy as np, clinfer\n"
        "compiled = clinfer.Core().compile_model(sys.argv[1], 'CPU')\n"
        "x = np.linspace(-3, 3, 24, dtype=np.float32).reshape(4, 6)\n"
        "print(*np.ravel(compiled(x)[0]))\n"
        "print({'onnx', 'clinfer.passes'} & set(sys.modules))\n"
    )
    paths = os.pathsep.join([str(installed.parent), *sys.path])
    env = {**os.environ, "PYTHONPATH": paths}
    command = [sys.executable, "-c", code, str(model)]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    values, loaded = done.stdout.splitlines()
    np.testing.assert_allclose(np.array(values.split(), float), expected().ravel(), rtol=1e-5)
    assert loaded == "set()"


def test_other_weights_are_another_model(installed, tmp_path):
    compiled = clinfer.Core().compile_model(write_model(tmp_path / "other.onnx", W[::-1]), "CPU")
    check(compiled, W[::-1])
    assert compiled.programs_built == 0


def test_a_file_that_changes_meanwhile_is_read_again(installed, model, monkeypatch):
    """Weights that were read from it may be of either state."""
    real = drafts.load

    def load(*args):
        found = real(*args)
        model.write_bytes(model.read_bytes().replace(W.tobytes(), W[::-1].tobytes()))
        return found

    monkeypatch.setattr(drafts, "load", load)
    check(clinfer.Core().compile_model(model, "CPU"), W[::-1])


def test_with_tuning_data_it_is_planned_here(installed, model, tmp_path):
    device = open_device("CPU")
    source = Models().source(model, Layers(Store(tmp_path / "store")))
    content = drafts.make(source, device)[1]
    assert content is not None
    record = drafts.draft_record(source, device, Settings().effective("CPU", None))
    store = Store(tmp_path / "drafts")
    store.put(record, content)
    entry = store.get(record)
    assert entry is not None
    assert drafts.load(entry, source, device, lambda _: None) is not None
    assert drafts.load(entry, source, device, lambda _: entry) is None


def test_a_model_of_other_sizes_takes_the_same_programs(installed, model):
    core = clinfer.Core()
    read = core.read_model(model)
    read.reshape([8, 6])
    assert core.compile_model(read, "CPU").programs_built == 0


def test_profiled_and_late_runs_go_through_the_driver_with_a_seed_too(installed, model):
    compiled = clinfer.Core().compile_model(model, "CPU", {"PERF_COUNT": True})
    check(compiled)
    assert compiled.programs_built == 0


def test_a_reduced_binary_runs_on_the_drivers_queue(installed, model, monkeypatch):
    """Without the player PoCL launches the code itself; it has no IR to fall back to."""
    monkeypatch.setattr("clinfer.device.executor.Player.of", lambda *_: None)
    compiled = clinfer.Core().compile_model(model, "CPU")
    check(compiled)
    assert compiled.programs_built == 0


def test_without_the_ir_nothing_is_there(installed, model):
    shared = program_record(seeds.ir_program(), seeds.Seed.of(open_device("CPU"))._aimed)
    Store(installed).folder.entry(shared.digest).unlink()
    told = clinfer.Core().seed_coverage(model, "CPU")
    assert told is not None and len(told["missing"]) == told["needed"]
    assert clinfer.Core().compile_model(model, "CPU").programs_built > 0


@pytest.mark.parametrize("how", ["flipped", "cut", "empty", "other"])
def test_a_damaged_entry_is_a_miss_and_stays(installed, model, how, caplog):
    files = entries(installed)
    for path, other in zip(files, reversed([p.read_bytes() for p in files]), strict=True):
        data = bytearray(path.read_bytes())
        data[-9] ^= 4
        made = {"flipped": bytes(data), "cut": bytes(data[:-40]), "empty": b"", "other": other}
        path.write_bytes(made[how])
    before = content(installed)
    with caplog.at_level(logging.WARNING, "clinfer"):
        compiled = clinfer.Core().compile_model(model, "CPU")
    check(compiled)
    assert compiled.programs_built >= 2
    assert content(installed) == before
    said = "foreign" if how == "other" else "damaged"
    assert said in caplog.text


def test_an_intact_entry_that_is_no_binary_is_a_miss(installed, model):
    device = open_device("CPU")
    found = seeds.Seed.of(device)
    assert found is not None
    store = Store(installed)
    for path in entries(installed):
        info = next(e for e in store.entries() if e.digest == path.name)
        store.put(info.record, {"binary": b"poclbin\0 and then nothing that PoCL could read"})
    compiled = clinfer.Core().compile_model(model, "CPU")
    check(compiled)
    assert compiled.programs_built > 0


def test_a_seed_of_another_pocl_is_a_miss_that_says_so(installed, model, monkeypatch):
    real = seeds.program_record

    def of_another(program: Program, device):
        info = device.info._replace(platform_version="OpenCL 3.0 PoCL 3.0.9")
        return real(program, seeds._Aimed(info, device.target))

    monkeypatch.setattr(seeds, "program_record", of_another)
    compiled = clinfer.Core().compile_model(model, "CPU")
    assert compiled.programs_built > 0
    told = clinfer.Core().seed_coverage(model, "CPU")
    assert told is not None and len(told["missing"]) == told["needed"]
    assert all("platform_version" in reason and "3.0.9" in reason for reason in told["missing"])


def test_nothing_is_taken_for_another_processor(installed, model, monkeypatch):
    monkeypatch.setattr(seeds, "flags", lambda: processor.LEVELS["x86-64-v2"])
    assert seeds.Seed.of(open_device("CPU")) is None
    assert clinfer.Core().compile_model(model, "CPU").programs_built > 0


def test_a_folder_that_others_can_write_is_refused(installed, model, caplog):
    installed.chmod(0o777)
    with caplog.at_level(logging.WARNING, "clinfer"):
        compiled = clinfer.Core().compile_model(model, "CPU")
    assert compiled.programs_built > 0
    assert "can be written by every user" in caplog.text


def test_it_can_be_switched_off(installed, model, tmp_path, monkeypatch):
    only = {"CACHE_DIR": str(tmp_path / "none"), "CACHE_MODE": "cache-only"}
    with pytest.raises(clinfer.CompileRequiredError):
        clinfer.Core().compile_model(model, "CPU", only)
    off = clinfer.Core().compile_model(model, "CPU", {"CACHE_MODE": "off"})
    assert off.programs_built > 0
    monkeypatch.setenv("CLINFER_SEED", "0")
    assert seeds.Seed.of(open_device("CPU")) is None


def test_the_gpu_plugin_takes_what_its_keys_match(installed, model, tmp_path, monkeypatch):
    """Its own texts, put into the seed for the same target; the cache then is whole by itself."""
    prepare("GPU", monkeypatch)
    core = clinfer.Core()
    built = core.compile_model(model, "GPU", {"CACHE_DIR": tmp_path / "made"})
    assert built.programs_built > 0
    device = open_device("GPU")
    found = seeds.Seed.of(device)
    assert found is not None
    for program in built._loaded.plan.programs:
        entry = Store(tmp_path / "made").get(program_record(program, device))
        assert entry is not None
        binary = pocl_binary.without_ir(bytes(entry.section("binary")))
        Store(installed).put(found.record(program), {"binary": binary})
    again = clinfer.Core().compile_model(model, "GPU", {"CACHE_DIR": tmp_path / "cache"})
    check(again)
    assert again.programs_built == 0
    only = {"CACHE_DIR": tmp_path / "cache", "CACHE_MODE": "cache-only"}
    check(clinfer.Core().compile_model(model, "GPU", only))


def test_commands_show_the_seed(installed, model, capsys):
    from clinfer.cli import main

    assert main(["devices", "--device", "CPU", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["seed"]["folder"] == str(installed)
    assert row["seed"]["clinfer"] == clinfer.__version__
    assert main(["devices", "--device", "CPU"]) == 0
    assert f"seed of CPU: {installed}" in capsys.readouterr().out
    assert main(["explain", str(model), "--device", "CPU", "--cache"]) == 0
    assert f"programs are in the seed '{installed}'" in capsys.readouterr().out


def test_warm_takes_programs_from_it(installed, model, tmp_path, capsys):
    from clinfer.cli import main

    asked = ["warm", str(model), "--device", "CPU", "--cache-dir", str(tmp_path / "c"), "--json"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("clinfer.device.workers.Pool.build", None)  # nothing is to be built
        assert main(asked) == 0
    loaded = clinfer.Core().compile_model(model, "CPU", {"CACHE_DIR": tmp_path / "c"})
    check(loaded)
    assert loaded.get_property("LOADED_FROM_CACHE")


def test_importing_clinfer_looks_for_no_seed(installed):
    code = "import sys, clinfer; print(*sys.modules)"
    paths = os.pathsep.join([str(installed.parent), *sys.path])
    env = {**os.environ, "PYTHONPATH": paths}
    done = subprocess.run([sys.executable, "-c", code], check=True, env=env, capture_output=True)
    loaded = set(done.stdout.decode().split())
    assert not {"clinfer.cache.seed", "clinfer.plugins.seed", PACKAGE} & loaded

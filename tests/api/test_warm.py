"""`clinfer warm`: what it fills, what a failure costs, what an interruption leaves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import clinfer
from api.conftest import prepare
from api.made import dense_answer, dense_model, one_node, save
from clinfer.cli import main
from clinfer.cli.output import pace_text
from clinfer.device import workers
from clinfer.plugins import plans
from clinfer.plugins import warm as warming
from clinfer.plugins.warm import shard
from clocks import LIMIT, timer_over_at
from platforms import platform

DIGITS = Path(__file__).parent.parent.parent / "examples" / "digits.onnx"

# A worker whose compiler crashes or hangs where the source says so.
_BAD_COMPILER = """import os, sys, time
sys.path[:] = {path!r}
from clinfer.device import compiling
compile_well = compiling.compile_to_binary
def compile_to_binary(context, source, quirks):
    if "CRASH" in source.source:
        os._exit(7)
    if "HANG" in source.source:
        open({mark!r}, "w").close()
        time.sleep(3600)
    return compile_well(context, source, quirks)
compiling.compile_to_binary = compile_to_binary
from clinfer.device.worker import main
main()
"""


@pytest.fixture
def models(tmp_path: Path) -> list[Path]:
    """Two models that share no program."""
    float32 = 1
    softmax = one_node("Softmax", {"x": (float32, [3, 40])}, {"y": (float32, [3, 40])}, axis=1)
    return [
        save(dense_model(), tmp_path / "dense.onnx"),
        save(softmax, tmp_path / "softmax.onnx"),
    ]


def warm(capsys, *arguments: object) -> tuple[int, dict]:
    """The exit code and the JSON document."""
    capsys.readouterr()
    code = main(["warm", *map(str, arguments), "--json"])
    return code, json.loads(capsys.readouterr().out)


def spoil(monkeypatch, remark: str) -> None:
    """The first program of the model 'one' does not build as it should."""
    plan_model = warming.plan_model

    def planned(model, *more):
        plan = plan_model(model, *more)
        if model.name != "one":
            return plan
        first = plan.programs[0]
        spoiled = replace(first, source=f"{first.source}\n{remark}")
        return replace(plan, programs=(spoiled, *plan.programs[1:]))

    for module in (warming, plans):
        monkeypatch.setattr(module, "plan_model", planned)


@pytest.fixture
def bad_compiler(monkeypatch, tmp_path):
    """The file that is there when a compiler hangs."""
    mark = tmp_path / "hangs"

    def fresh() -> None:
        for pool in workers._pools.values():
            pool.close()
        workers._pools.clear()

    fresh()
    code = _BAD_COMPILER.replace("{mark!r}", repr(str(mark)))
    monkeypatch.setattr(workers, "_START", code)
    yield mark
    fresh()


def test_what_is_warm_compiles_nothing_and_answers_right(capsys, device, models, tmp_path):
    cache = tmp_path / "cache"
    arguments = (*models, "--device", device, "--cache-dir", cache)
    code, document = warm(capsys, *arguments)
    assert (code, document["failed"]) == (0, 0)
    assert [row["result"] for row in document["models"]] == ["warmed", "warmed"]
    assert main(["verify", *map(str, arguments)]) == 0
    config = {"CACHE_DIR": str(cache), "CACHE_MODE": "cache-only"}
    compiled = clinfer.Core().compile_model(models[0], device, config)
    x = np.random.default_rng(0).standard_normal((5, 24)).astype(np.float32)
    np.testing.assert_allclose(compiled({"x": x})["y"], dense_answer(x), rtol=1e-5, atol=1e-5)
    code, document = warm(capsys, *arguments)
    assert [row["built"] for row in document["models"]] == [0, 0]
    assert [row["result"] for row in document["models"]] == ["was warm", "was warm"]


def test_the_blob_of_a_warmed_model_is_the_exported_one(capsys, cpu, models, tmp_path):
    warm(capsys, models[0], "--device", cpu, "--cache-dir", tmp_path / "warmed")
    clinfer.Core().compile_model(models[0], cpu, {"CACHE_DIR": str(tmp_path / "compiled")})
    names = [
        sorted(path.name for path in (tmp_path / place / "entries").rglob("*") if path.is_file())
        for place in ("warmed", "compiled")
    ]
    assert names[0] == names[1]


def test_a_cache_too_small_for_all_is_told(capsys, device, models, tmp_path, monkeypatch):
    whole = tmp_path / "whole"
    warm(capsys, *models, "--device", device, "--cache-dir", whole)
    size = sum(path.stat().st_size for path in (whole / "entries").rglob("*") if path.is_file())
    # Entries hold times and dates as text: the second cache may be some bytes smaller.
    monkeypatch.setenv("CLINFER_CACHE_SIZE", str(size * 9 // 10))
    arguments = (*models, "--device", device, "--cache-dir", tmp_path / "small")
    code, document = warm(capsys, *arguments)
    failed = [row["model"] for row in document["models"] if "CLINFER_CACHE_SIZE" in row["error"]]
    assert code == 1
    assert failed
    assert main(["verify", *map(str, arguments), "--json"]) == 3
    checked = json.loads(capsys.readouterr().out)["models"]
    assert [row["model"] for row in checked if row["verdict"] != "complete"] == failed


def test_a_broken_model_costs_only_itself(capsys, device, models, tmp_path):
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no model")
    absent = tmp_path / "absent.onnx"
    arguments = (broken, models[0], absent, "--device", device, "--cache-dir", tmp_path / "c")
    code, document = warm(capsys, *arguments)
    rows = document["models"]
    assert (code, document["failed"]) == (1, 2)
    assert [row["result"] for row in rows] == ["failed", "warmed", "failed"]
    assert "broken.onnx" in rows[0]["error"]
    assert "absent.onnx" in rows[2]["error"]


def test_a_mistake_in_lowering_costs_only_its_model(capsys, device, models, tmp_path, monkeypatch):
    plan_model = warming.plan_model

    def planned(model, *more):
        return plan_model(model, *more) if model.name != "one" else {}["operator"]

    for module in (warming, plans):
        monkeypatch.setattr(module, "plan_model", planned)
    code, document = warm(capsys, *models, "--device", device, "--cache-dir", tmp_path / "c")
    assert code == 1
    assert [row["result"] for row in document["models"]] == ["warmed", "failed"]
    assert document["models"][1]["error"] == "internal error: KeyError: 'operator'"


@pytest.mark.parametrize(
    ("name", "remark", "said"),
    [
        ("CPU", "#error OUT OF ORDER", "OUT OF ORDER"),
        ("GPU", "#error OUT OF ORDER", "OUT OF ORDER"),
        ("CPU", "// CRASH", "died with code 7"),
        ("GPU", "// CRASH", "died with code 7"),
        ("GPU", "// HANG", "was ended after 600 s"),
    ],
)
def test_a_broken_kernel_costs_only_itself(
    capsys, models, tmp_path, monkeypatch, bad_compiler, name, remark, said
):
    device = prepare(name, monkeypatch)
    arguments = (*models, "--device", device, "--cache-dir", tmp_path / "c", "--jobs", 1)
    arguments = (*arguments, "--timeout", LIMIT)
    monkeypatch.setattr(workers, "Timer", timer_over_at(bad_compiler))
    with monkeypatch.context() as patch:
        spoil(patch, remark)
        code, document = warm(capsys, *arguments)
    assert code == 1
    first, second = document["models"]
    assert first["result"] == "warmed"
    assert second["result"] == "failed"
    assert said in second["error"]
    # What was built before is not built again.
    code, document = warm(capsys, *arguments)
    assert code == 0
    assert [row["built"] for row in document["models"]] == [0, 1]


@pytest.mark.skipif(os.name == "nt", reason="signals are POSIX")
@pytest.mark.parametrize("name", ["CPU", "GPU"])
def test_interrupted_work_goes_on_where_it_was(tmp_path, name):
    command = [sys.executable, "-m", "clinfer", "warm", str(DIGITS), "--device", name]
    command += ["--cache-dir", str(tmp_path / "c"), "--jobs", "1"]
    added = {"CLINFER_CPU_PLATFORM": platform(), "PYTHONPATH": os.pathsep.join(sys.path)}
    if name == "GPU":
        added["CLINFER_GPU_PLATFORM"] = platform()
    environment = {**os.environ, **added}
    running = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    assert running.stderr is not None
    for line in running.stderr:
        if " 2/" in line:
            running.send_signal(signal.SIGINT)
            break
    rest = running.stderr.read()
    assert running.wait(LIMIT) == 130
    assert "the same command goes on there" in rest
    done = subprocess.run([*command, "--json"], env=environment, capture_output=True, check=True)
    (row,) = json.loads(done.stdout)["models"]
    assert 0 < row["built"] <= row["programs"] - 2
    entries = [path for path in (tmp_path / "c" / "entries").rglob("*") if path.is_file()]
    assert len(entries) == (1 if name == "CPU" else row["programs"] + 1)  # and the plan
    assert not parts(tmp_path / "c")


def parts(cache: Path) -> list[Path]:
    """The memos of programs whose models are not stored."""
    memos = [path for path in (cache / "memos").rglob("*") if path.is_file()]
    return [path for path in memos if b'[["kind","part"]' in path.read_bytes()]


def test_parts_stay_until_all_models_that_need_them_are_stored(
    capsys, cpu, models, tmp_path, monkeypatch
):
    twin = save(dense_model(seed=3, name="one"), tmp_path / "twin.onnx")
    cache = tmp_path / "c"
    arguments = (models[0], twin, "--device", cpu, "--cache-dir", cache)
    with monkeypatch.context() as patch:
        patch.setattr("clinfer.plugins.cpu.CpuPlugin.whole", refuse)
        assert warm(capsys, *arguments)[0] == 1
    kept = parts(cache)
    assert kept
    code, document = warm(capsys, *arguments)
    assert code == 0
    assert [row["result"] for row in document["models"]] == ["warmed", "warmed"]
    assert not parts(cache)


def refuse(plugin, plan, binaries):
    raise clinfer.CacheError("not now")


def test_shards_are_a_partition_whatever_the_order():
    models = [("a", 5), ("b", 100), ("c", 7), ("d", 7), ("e", 1)]
    parts = [shard(models, index, 2) for index in range(2)]
    assert parts == [shard(models[::-1], index, 2) for index in range(2)]
    assert sorted(name for part in parts for name in part) == ["a", "b", "c", "d", "e"]
    assert [len(part) for part in parts] == [3, 2]
    assert shard(models, 6, 7) == []


def test_an_indexed_job_is_a_shard(capsys, cpu, models, tmp_path, monkeypatch):
    monkeypatch.setenv("JOB_COMPLETIONS", "2")
    names = []
    for index in ("0", "1"):
        monkeypatch.setenv("JOB_COMPLETION_INDEX", index)
        code, document = warm(capsys, *models, "--device", cpu, "--cache-dir", tmp_path / "c")
        assert code == 0
        names += [row["model"] for row in document["models"]]
    assert sorted(names) == sorted(map(str, models))
    assert main(["warm", "x.onnx", "--shard", "0/1", "--cache-dir", str(tmp_path / "c")]) == 1
    monkeypatch.delenv("JOB_COMPLETIONS")
    capsys.readouterr()
    assert main(["warm", str(models[0]), "--cache-dir", str(tmp_path / "c")]) == 1
    assert "JOB_COMPLETIONS must be the number of parts" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["2/2", "1", "-1/2", "a/b", "1/0"])
def test_a_wrong_shard_is_wrong_usage(capsys, text):
    with pytest.raises(SystemExit) as stopped:
        main(["warm", "x.onnx", f"--shard={text}"])
    assert stopped.value.code == 2
    assert "expected I/N" in capsys.readouterr().err


def test_a_lock_file_must_be_of_a_device_here(capsys, cpu, models, tmp_path):
    lock = tmp_path / "device.lock"
    assert main(["devices", "--device", cpu, "--lock", str(lock)]) == 0
    arguments = ["warm", str(models[0]), "--cache-dir", str(tmp_path / "c")]
    assert main([*arguments, "--device", f"@{lock}"]) == 0
    document = json.loads(lock.read_text())
    document["devices"][0]["driver_version"] = "of tomorrow"
    lock.write_text(json.dumps(document))
    capsys.readouterr()
    assert main([*arguments, "--device-lock", str(lock)]) == 1
    assert "driver_version: locked 'of tomorrow'" in capsys.readouterr().err


def test_a_cache_that_takes_nothing_is_a_failure(capsys, device, models, tmp_path, monkeypatch):
    place = tmp_path / "file"
    place.write_text("not a directory")
    arguments = (models[0], "--device", device, "--cache-dir", place)
    code, document = warm(capsys, *arguments)
    assert code == 1
    assert "takes no entries (" in document["models"][0]["error"]
    assert document["models"][0]["built"] == 0
    monkeypatch.setenv("CLINFER_CACHE_MODE", "read-only")
    assert main(["warm", *map(str, arguments)]) == 1
    assert "CACHE_MODE must be 'read-write'" in capsys.readouterr().err


def test_the_pace_is_told_while_there_is_more_to_do():
    assert pace_text(10, 40, 5.0) == " (2/s, 15 s left)"
    assert pace_text(1, 1000, 1.0) == " (1/s, 17 min left)"
    assert pace_text(4, 4, 1.0) == ""

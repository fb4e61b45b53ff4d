"""Tuning: choices are kept as data, change no result, and cost nothing where they do not fit."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import clinfer
from api.made import dense_answer, dense_model, save
from clinfer.cache import Store
from clinfer.cli import main
from clinfer.lowering.choose import KernelChoice
from clinfer.plugins import tune as tuning_run
from clinfer.plugins import tuning
from clinfer.plugins.compiler import optimised, plan_graph, plan_model, tuning_key

X = np.random.default_rng(3).standard_normal((8, 24)).astype(np.float32)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return save(dense_model(rows=8), tmp_path / "dense.onnx")


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def new_core(cache: Path, **properties: object) -> clinfer.Core:
    core = clinfer.Core()
    core.set_property({"CACHE_DIR": str(cache), **properties})
    return core


def command(capsys, *arguments: object) -> tuple[int, dict]:
    """The exit code and the JSON document."""
    capsys.readouterr()
    code = main([*map(str, arguments), "--json"])
    return code, json.loads(capsys.readouterr().out)


def tune(capsys, model: Path, device: str, cache: Path) -> dict:
    options = ("--device", device, "--cache-dir", cache, "--seconds", 0.1)
    code, report = command(capsys, "tune", model, *options)
    assert code == 0, report
    return report["models"][0]


def choose(cache: Path, model: Path, device: str, pick) -> set[str]:
    """Stores tuning data that choose candidate `pick(count)`; the digests of the programs."""
    core = new_core(cache)
    opened = core._device(device)
    graph = optimised(core.read_model(model), opened)
    _, asked = plan_graph(graph, opened, {})
    timings = []
    for problem in asked.problems.values():
        count = len(problem.tiles)
        texts = tuple(map(repr, problem.tiles))
        timings.append(
            tuning.Timing(problem.digest, str(problem), 0, pick(count), texts, (None,) * count)
        )
    assert Store(cache).put(tuning_key(asked, opened), tuning.sections(timings))
    chosen = {timing.digest: timing.chosen for timing in timings}
    return {program.digest for program in plan_graph(graph, opened, chosen)[0].programs}


def test_a_tuned_model_gives_the_same_answer_and_builds_nothing_more(
    device, model, cache, capsys
) -> None:
    report = tune(capsys, model, device, cache)
    assert report["problems"]
    assert report["tuned_ms"] <= report["untuned_ms"]
    kinds = {info.record.kind for info in Store(cache).entries()}
    assert "tuning" in kinds
    compiled = new_core(cache, CACHE_MODE="cache-only").compile_model(model, device)
    assert compiled.programs_built == 0
    np.testing.assert_allclose(compiled(X)[0], dense_answer(X), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("pick", [lambda count: count - 1, lambda count: count // 2])
def test_stored_choices_are_used(device, model, cache, pick) -> None:
    programs = choose(cache, model, device, pick)
    compiled = new_core(cache).compile_model(model, device)
    assert {program.digest for program in compiled.plan.programs} == programs
    np.testing.assert_allclose(compiled(X)[0], dense_answer(X), rtol=1e-4, atol=1e-5)


def test_retrained_weights_keep_their_tuning(device, model, cache, tmp_path) -> None:
    programs = choose(cache, model, device, lambda count: count - 1)
    retrained = save(dense_model(seed=1, rows=8), tmp_path / "retrained.onnx")
    compiled = new_core(cache).compile_model(retrained, device)
    assert {program.digest for program in compiled.plan.programs} == programs
    np.testing.assert_allclose(compiled(X)[0], dense_answer(X, 1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "content",
    [b"", b"{}", b"[]", b'{"problems": [{"digest": 1}]}', b'{"problems": null}', b"\xff"],
)
def test_tuning_data_of_another_form_are_not_used(cpu, model, cache, content) -> None:
    core = new_core(cache)
    opened = core._device(cpu)
    _, asked = plan_graph(optimised(core.read_model(model), opened), opened, {})
    assert Store(cache).put(tuning_key(asked, opened), {"timings": content})
    compiled = core.compile_model(model, cpu)
    np.testing.assert_allclose(compiled(X)[0], dense_answer(X), rtol=1e-4, atol=1e-5)


def test_a_choice_without_a_candidate_is_not_used(cpu, model) -> None:
    core = clinfer.Core()
    opened = core._device(cpu)
    graph = optimised(core.read_model(model), opened)
    plan, asked = plan_graph(graph, opened, {})
    wrong = {digest: len(problem.tiles) for digest, problem in asked.problems.items()}
    again, _ = plan_graph(graph, opened, wrong)
    assert [p.digest for p in again.programs] == [p.digest for p in plan.programs]


def test_another_set_of_candidates_is_another_problem(cpu, model, monkeypatch) -> None:
    core = clinfer.Core()
    opened = core._device(cpu)
    target = opened.target
    _, asked = plan_graph(optimised(core.read_model(model), opened), opened, {})
    problem = next(p for p in asked.problems.values() if len(p.tiles) > 1)
    fewer = problem.tiles[:-1]
    monkeypatch.setattr("clinfer.lowering.choose.candidates", lambda spec, target: fewer)
    choice = KernelChoice({problem.digest: 1})
    choice(problem.spec, target)
    assert problem.digest not in choice.chosen
    assert set(choice.chosen.values()) == {0}


def test_a_candidate_that_does_not_build_costs_itself_only(
    cpu, model, cache, capsys, monkeypatch
) -> None:
    plan_well = tuning_run.plan_graph

    def planned(graph, device, tuned):
        plan, choice = plan_well(graph, device, tuned)
        if not tuned:
            return plan, choice
        broken = {step.program for step in plan.launches if step.problem in tuned}
        programs = [
            replace(p, source=p.source + "\nerror") if i in broken else p
            for i, p in enumerate(plan.programs)
        ]
        return replace(plan, programs=tuple(programs)), choice

    monkeypatch.setattr(tuning_run, "plan_graph", planned)
    report = tune(capsys, model, cpu, cache)
    assert report["changed"] == 0
    assert any("does not build" in note for note in report["notes"])
    compiled = new_core(cache).compile_model(model, cpu)
    np.testing.assert_allclose(compiled(X)[0], dense_answer(X), rtol=1e-4, atol=1e-5)


def test_a_candidate_with_other_results_is_not_chosen(
    cpu, model, cache, capsys, monkeypatch
) -> None:
    monkeypatch.setattr(tuning_run, "_close", lambda left, right: False)
    report = tune(capsys, model, cpu, cache)
    assert report["changed"] == 0
    assert any("other results" in note for note in report["notes"])


def test_a_pack_has_the_choices_and_their_programs(gpu, model, cache, tmp_path, capsys) -> None:
    programs = choose(cache, model, gpu, lambda count: count - 1)
    new_core(cache).compile_model(model, gpu)
    choose(cache, model, gpu, lambda count: count - 1)
    pack = tmp_path / "tuned.clpack"
    code, packed = command(capsys, "pack", model, "--device", gpu, "--cache-dir", cache, "-o", pack)
    assert code == 0
    assert packed["kinds"]["tuning"] == 1
    trust = ("--allow-unsigned",)
    code, report = command(
        capsys,
        "verify",
        model,
        "--device",
        gpu,
        "--pack",
        pack,
        "--cache-dir",
        tmp_path / "none",
        *trust,
    )
    assert (code, report["verdict"]) == (0, "complete")
    elsewhere = tmp_path / "elsewhere"
    assert main(["unpack", str(pack), "--cache-dir", str(elsewhere), *trust]) == 0
    compiled = new_core(elsewhere, CACHE_MODE="cache-only").compile_model(model, gpu)
    assert {program.digest for program in compiled.plan.programs} == programs


def test_verify_asks_for_the_programs_of_the_choices(gpu, model, cache, capsys) -> None:
    new_core(cache).compile_model(model, gpu)
    options = ("verify", model, "--device", gpu, "--cache-dir", cache)
    assert command(capsys, *options)[0] == 0
    default = plan_model(clinfer.Core().read_model(model), clinfer.Core()._device(gpu))
    chosen = choose(cache, model, gpu, lambda count: count - 1)
    assert chosen != {program.digest for program in default.programs}
    assert command(capsys, *options)[0] == 3


def test_warm_tunes_once(device, model, cache, capsys, monkeypatch) -> None:
    options = ("warm", model, "--device", device, "--cache-dir", cache, "--tune", 0.1)
    code, report = command(capsys, *options)
    assert code == 0, report
    monkeypatch.setattr(tuning_run._Tuner, "measure", None)
    code, report = command(capsys, *options)
    assert code == 0, report
    assert report["models"][0]["result"] == "was warm"


def test_explain_shows_the_chosen_kernels(cpu, model, cache, capsys) -> None:
    programs = choose(cache, model, cpu, lambda count: count - 1)
    compiled = new_core(cache).compile_model(model, cpu)
    explain = ("explain", model, "--device", cpu)
    code, found = command(capsys, *explain, "--cache-dir", cache)
    assert code == 0
    kernels = {step["kernel"] for step in found["steps"]}
    entries = {p.entry for p in compiled.plan.programs if p.digest in programs}
    assert kernels == {name for name in entries if not name.startswith("play")}
    _, untuned = command(capsys, *explain, "--no-cache")
    assert {step["kernel"] for step in untuned["steps"]} != kernels


def test_tuning_needs_a_cache(cpu, model, capsys) -> None:
    assert main(["tune", str(model), "--device", cpu, "--no-cache"]) == 1
    assert "--cache-dir" in capsys.readouterr().err


def test_what_cannot_be_tuned_is_told(cpu, cache, tmp_path, capsys) -> None:
    code, report = command(
        capsys, "tune", tmp_path / "none.onnx", "--device", cpu, "--cache-dir", cache
    )
    assert code == 1
    assert "none.onnx" in report["models"][0]["error"]

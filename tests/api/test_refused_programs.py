"""A driver that does not build a kernel costs that kernel, where there is another schedule."""

from __future__ import annotations

import numpy as np
import pytest

import clinfer
from api.made import dense_answer, dense_model, save
from clinfer.cli import main
from clinfer.device import programs
from clinfer.errors import BuildError
from clinfer.plugins import warm_builds

X = np.random.default_rng(3).standard_normal((40, 24)).astype(np.float32)


@pytest.fixture
def refuse(monkeypatch):
    """Makes the driver refuse kernels whose names begin so."""

    def refuse(start):
        build_each = programs.build_each

        def some(device, sources, *arguments):
            made = build_each(device, sources, *arguments)
            pairs = zip(sources, made, strict=True)
            return [BuildError("too large") if s.entry.startswith(start) else m for s, m in pairs]

        monkeypatch.setattr(programs, "build_each", some)

    return refuse


def test_the_next_schedule_takes_the_place_of_a_refused_one(core, gpu, refuse, caplog):
    refuse("matmul_local_128x64")
    compiled = core.compile_model(dense_model(), gpu)
    kernels = {p.entry for p in compiled.plan.programs}
    assert not any(k.startswith("matmul_local_128x64") for k in kernels)
    assert "the next schedule takes its place" in caplog.text
    np.testing.assert_allclose(compiled([X])[0], dense_answer(X), rtol=1e-5, atol=1e-5)


def test_without_another_schedule_the_refusal_is_told(core, gpu, refuse):
    refuse("")
    with pytest.raises(BuildError, match="too large"):
        core.compile_model(dense_model(), gpu)


def test_what_is_kept_is_found_and_proved(core, gpu, refuse, tmp_path):
    """The plan names the schedules that the driver took: a warm start and `verify` agree."""
    model, cache = save(dense_model(), tmp_path / "dense.onnx"), tmp_path / "cache"
    refuse("matmul_local_128x64")
    core.compile_model(model, gpu, {"CACHE_DIR": str(cache)})
    assert main(["verify", str(model), "--device", gpu, "--cache-dir", str(cache)]) == 0
    only = {"CACHE_DIR": str(cache), "CACHE_MODE": "cache-only"}
    compiled = clinfer.Core().compile_model(model, gpu, only)
    np.testing.assert_allclose(compiled([X])[0], dense_answer(X), rtol=1e-5, atol=1e-5)


def test_warm_goes_on_to_the_next_schedule_too(gpu, monkeypatch, tmp_path, capsys):
    model, cache = save(dense_model(), tmp_path / "dense.onnx"), tmp_path / "cache"
    build_binaries = warm_builds.build_binaries

    def some(device, sources, done, *arguments):
        bad = {i for i, s in enumerate(sources) if s.entry.startswith("matmul_local_128x64")}
        places = [i for i in range(len(sources)) if i not in bad]
        for i in bad:
            done(i, BuildError("too large"), 0.0)
        good = [sources[i] for i in places]
        build_binaries(device, good, lambda i, *made: done(places[i], *made), *arguments)

    monkeypatch.setattr(warm_builds, "build_binaries", some)
    arguments = [str(model), "--device", gpu, "--cache-dir", str(cache)]
    assert main(["warm", *arguments]) == 0
    assert main(["verify", *arguments]) == 0
    assert main(["warm", *arguments]) == 0
    only = {"CACHE_DIR": str(cache), "CACHE_MODE": "cache-only"}
    compiled = clinfer.Core().compile_model(model, gpu, only)
    np.testing.assert_allclose(compiled([X])[0], dense_answer(X), rtol=1e-5, atol=1e-5)

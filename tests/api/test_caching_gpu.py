"""The GPU plugin's cache: one entry per program, shared by models, and a plan; no blobs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import clinfer
from api.made import dense_answer, dense_model, save
from clinfer.device import programs
from clinfer.errors import BuildError

DIGITS = Path(__file__).parent.parent.parent / "examples" / "digits.onnx"
X = np.random.default_rng(3).standard_normal((5, 24)).astype(np.float32)


def compiled(path, cache, **more):
    return clinfer.Core().compile_model(path, "GPU", {"CACHE_DIR": str(cache), **more})


def entries(cache: Path, kind: str = "program") -> list[Path]:
    from clinfer.cache import read_header

    files = sorted(p for p in (cache / "entries").rglob("*") if p.is_file())
    return [path for path in files if read_header(path).record.kind == kind]


def test_one_entry_per_program_and_no_blob(gpu, tmp_path):
    path = save(dense_model(), tmp_path / "m.onnx")
    first = compiled(path, tmp_path / "c")
    assert first.programs_built == len(first.plan.programs) == len(entries(tmp_path / "c"))
    assert len(entries(tmp_path / "c", "plan")) == 1
    assert not entries(tmp_path / "c", "model")
    assert not first.get_property("LOADED_FROM_CACHE")


def test_second_start_builds_nothing_and_gives_the_same_bits(gpu, tmp_path):
    path = save(dense_model(), tmp_path / "m.onnx")
    first = compiled(path, tmp_path / "c")
    second = compiled(path, tmp_path / "c")
    assert second.programs_built == 0
    np.testing.assert_array_equal(second(X)[0], first(X)[0])


def test_another_model_reuses_known_programs(gpu, tmp_path):
    compiled(save(dense_model(0), tmp_path / "a.onnx"), tmp_path / "c")
    other = compiled(save(dense_model(1, "other"), tmp_path / "b.onnx"), tmp_path / "c")
    assert other.programs_built == 0
    np.testing.assert_allclose(other(X)[0], dense_answer(X, 1), rtol=1e-4, atol=1e-5)


def test_export_is_refused_and_can_be_asked_beforehand(core, gpu, tmp_path):
    assert "EXPORT_IMPORT" not in core.get_property(gpu, "OPTIMIZATION_CAPABILITIES")
    model = core.compile_model(dense_model(), gpu)
    with pytest.raises(clinfer.DeviceError, match="CACHE_DIR"):
        model.export_model()
    with pytest.raises(clinfer.DeviceError, match="EXPORT_IMPORT"):
        core.import_model(b"", gpu)


def test_damaged_entry_is_rebuilt_with_the_right_answer(gpu, tmp_path):
    path = save(dense_model(), tmp_path / "m.onnx")
    compiled(path, tmp_path / "c")
    entry = entries(tmp_path / "c")[0]
    content = bytearray(entry.read_bytes())
    content[len(content) // 2] ^= 4
    entry.write_bytes(content)
    model = compiled(path, tmp_path / "c")
    assert model.programs_built == 1
    np.testing.assert_allclose(model(X)[0], dense_answer(X), rtol=1e-4, atol=1e-5)
    assert compiled(path, tmp_path / "c").programs_built == 0


@pytest.mark.parametrize("sections", [{"binary": b"no binary of any driver"}, {"other": b""}])
def test_a_binary_the_driver_refuses_is_rebuilt(gpu, tmp_path, sections):
    from clinfer.cache import read, to_bytes

    path = save(dense_model(), tmp_path / "m.onnx")
    compiled(path, tmp_path / "c")
    entry = entries(tmp_path / "c")[0]
    record = read(entry).record
    entry.write_bytes(to_bytes(record, sections))
    model = compiled(path, tmp_path / "c")
    assert model.programs_built == 1
    np.testing.assert_allclose(model(X)[0], dense_answer(X), rtol=1e-4, atol=1e-5)
    assert compiled(path, tmp_path / "c").programs_built == 0


@pytest.fixture
def given(monkeypatch):
    """The kernels whose binaries the driver is given; it refuses once those that are added."""
    names: list[str] = []
    refused: set[str] = set()
    original = programs._from_binary

    def noted(device, source, binary):
        names.append(source.entry)
        if source.entry in refused:
            refused.remove(source.entry)
            raise BuildError(f"{source.entry}: the driver refused the binary")
        return original(device, source, binary)

    monkeypatch.setattr(programs, "_from_binary", noted)
    return names, refused


def test_the_driver_gets_the_binaries_that_sizes_need_and_may_refuse_them_then(
    gpu, tmp_path, given
):
    names, refused = given
    path = save(dense_model(), tmp_path / "m.onnx")
    compiled(path, tmp_path / "c")
    names.clear()
    model = compiled(path, tmp_path / "c")
    assert names == []
    np.testing.assert_allclose(model(X)[0], dense_answer(X), rtol=1e-4, atol=1e-5)
    needed = set(names)
    assert 0 < len(needed) < len(model.plan.programs)  # others are for other sizes
    assert model.programs_built == 0
    refused.update(names[:1])
    model = compiled(path, tmp_path / "c")
    np.testing.assert_allclose(model(X)[0], dense_answer(X), rtol=1e-4, atol=1e-5)
    assert model.programs_built == 1
    refused.update(names[:1])
    with pytest.raises(clinfer.CompileRequiredError, match=r"rejected.*the driver refused"):
        compiled(path, tmp_path / "c", CACHE_MODE="cache-only")


def test_cache_only_names_a_program_and_how_many_more_are_missing(gpu, tmp_path):
    compiled(DIGITS, tmp_path / "c")
    count = len(entries(tmp_path / "c"))
    assert count > 1
    config = {"CACHE_DIR": str(tmp_path / "c"), "CACHE_MODE": "cache-only"}
    first, *others = entries(tmp_path / "c")
    kept = {path: path.read_bytes() for path in others}
    for path in (first, *others):
        path.unlink()
    with pytest.raises(clinfer.CompileRequiredError) as caught:
        clinfer.Core().compile_model(DIGITS, "GPU", config)
    assert "is not in the cache" in str(caught.value)
    assert f"and {count - 1} more programs" in str(caught.value)
    for path, content in kept.items():
        path.write_bytes(content)
    with pytest.raises(clinfer.CompileRequiredError, match="differs in") as caught:
        clinfer.Core().compile_model(DIGITS, "GPU", config)
    assert "more programs" not in str(caught.value)

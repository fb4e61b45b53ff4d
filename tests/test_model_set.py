"""Every architecture of the model set, in tiny, against ONNX Runtime's results on both plugins."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import clinfer
from platforms import platform

MODELS = Path(__file__).parent / "models"
NAMES = sorted(path.stem for path in MODELS.glob("*.onnx"))
BOUND = 1e-3


def arrays(name: str) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Sample inputs and ONNX Runtime's outputs."""
    with np.load(MODELS / f"{name}.npz") as file:
        inputs = {key[3:]: file[key] for key in file.files if key.startswith("in:")}
        outputs = {key[4:]: file[key] for key in file.files if key.startswith("out:")}
    return inputs, outputs


def check(found, expected) -> None:
    """The largest error relative to the output's largest value."""
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert found[key].shape == value.shape
        error = np.abs(found[key] - value).max() / np.abs(value).max()
        assert error <= BOUND, f"{key}: {error}"


@pytest.fixture(scope="session")
def cache(tmp_path_factory) -> str:
    return str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(params=["CPU", "GPU"])
def device(request, monkeypatch) -> str:
    monkeypatch.setenv("CLINFER_CPU_PLATFORM", platform())
    if request.param == "GPU":
        monkeypatch.setenv("CLINFER_GPU_PLATFORM", platform())
    return request.param


@pytest.mark.parametrize("name", NAMES)
def test_model_agrees_with_onnx_runtime(name, device, cache):
    core = clinfer.Core()
    core.set_property({"CACHE_DIR": cache})
    model = core.compile_model(MODELS / f"{name}.onnx", device)
    inputs, expected = arrays(name)
    first = model(inputs).to_dict()
    check(first, expected)
    assert not model.host_steps
    again = clinfer.Core().compile_model(MODELS / f"{name}.onnx", device, {"CACHE_DIR": cache})
    assert again.programs_built == 0
    for key, value in again(inputs).to_dict().items():
        np.testing.assert_array_equal(value, first[key])


@pytest.mark.parametrize("name", ["bert_base", "gpt2"])
def test_another_size_builds_no_program(name, device, cache):
    core = clinfer.Core()
    core.set_property({"CACHE_DIR": cache})
    model = core.compile_model(MODELS / f"{name}.onnx", device)
    import onnxruntime

    path = str(MODELS / f"{name}.onnx")
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    inputs, _ = arrays(name)
    outputs = [output.name for output in session.get_outputs()]
    for batch, length in ((1, 4), (2, 9), (1, 1), (2, 12)):
        cut = {key: np.ascontiguousarray(v[:batch, :length]) for key, v in inputs.items()}
        expected = dict(zip(outputs, session.run(None, cut), strict=True))
        check(model(cut).to_dict(), expected)


def test_nothing_in_the_set_is_missing():
    assert len(NAMES) == 10
    assert all((MODELS / f"{name}.onnx").stat().st_size < 300_000 for name in NAMES)

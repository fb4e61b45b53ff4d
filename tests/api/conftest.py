"""The two kinds of device on one machine: a CPU, and the same presented as a GPU."""

from __future__ import annotations

import pytest

import clinfer
from platforms import platform


@pytest.fixture(params=["CPU", "GPU"])
def device(request, monkeypatch) -> str:
    """Each plugin in turn."""
    return prepare(request.param, monkeypatch)


@pytest.fixture
def cpu(monkeypatch) -> str:
    return prepare("CPU", monkeypatch)


@pytest.fixture
def gpu(monkeypatch) -> str:
    return prepare("GPU", monkeypatch)


@pytest.fixture
def core() -> clinfer.Core:
    return clinfer.Core()


def prepare(name: str, monkeypatch) -> str:
    for variable in ("CLINFER_CACHE_DIR", "CLINFER_CACHE_PATH", "CLINFER_CACHE_MODE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("CLINFER_CPU_PLATFORM", platform())
    if name == "GPU":
        monkeypatch.setenv("CLINFER_GPU_PLATFORM", platform())
    return name

"""A CPU, the same as a GPU whose compile waits until a test lets it go on, and a cache."""

from __future__ import annotations

from collections.abc import Iterator
from threading import Event
from threading import enumerate as all_threads
from typing import Any

import pytest

import clinfer
from clinfer.plugins.gpu import GpuPlugin
from clinfer.virtual import background
from platforms import platform

LIMIT = 60.0
"""Seconds after which what should have happened has not."""


class Gate:
    """Holds the GPU's compile: `arrived` is set when it begins, `open` lets it go on.

    With an `error` it then fails.
    """

    def __init__(self) -> None:
        self.arrived = Event()
        self.opened = Event()
        self.error: Exception | None = None

    def open(self) -> None:
        self.opened.set()

    def finish(self) -> None:
        """Lets the compile go on, and waits for its end."""
        self.open()
        for thread in all_threads():
            if thread.name == "clinfer-auto":
                thread.join(LIMIT)
                assert not thread.is_alive()


@pytest.fixture(autouse=True)
def two_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("CLINFER_CACHE_DIR", "CLINFER_CACHE_PATH", "CLINFER_CACHE_MODE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("CLINFER_CPU_PLATFORM", platform())
    monkeypatch.setenv("CLINFER_GPU_PLATFORM", platform())


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("cache"))


@pytest.fixture
def core(cache: str) -> clinfer.Core:
    core = clinfer.Core()
    core.set_property({"CACHE_DIR": cache})
    return core


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    made = Gate()
    really = GpuPlugin.compile

    def compile_later(self: GpuPlugin, source: Any, request: Any) -> Any:
        made.arrived.set()
        assert made.opened.wait(LIMIT)
        if made.error is not None:
            raise made.error
        return really(self, source, request)

    monkeypatch.setattr(GpuPlugin, "compile", compile_later)
    monkeypatch.setattr(background, "_SECONDS", 0.0)
    yield made
    made.finish()

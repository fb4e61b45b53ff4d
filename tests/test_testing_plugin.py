"""The plugin of pytest, in sessions of its own."""

from __future__ import annotations

import os
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from platforms import platform

pytest_plugins = ("pytester",)
EXAMPLE = Path(__file__).resolve().parent.parent / "examples"
TEST = f"""
import numpy as np

def test_scores(clinfer_core, clinfer_device):
    model = clinfer_core.compile_model({str(EXAMPLE / "digits.onnx")!r}, clinfer_device)
    data = np.load({str(EXAMPLE / "digits.npz")!r})
    scores = model({{"image": data["image"]}})["scores"]
    assert (scores.argmax(axis=1) == data["label"]).mean() > 0.9
    print("cached:", model.get_property("LOADED_FROM_CACHE"))

def test_nothing_of_clinfer():
    pass
"""


@pytest.fixture
def session(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch):
    """Runs pytest with those options on the test above."""
    monkeypatch.setenv("CLINFER_CPU_PLATFORM", platform())
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
    monkeypatch.delenv("CLINFER_CACHE_DIR", raising=False)
    is_installed = any(e.value == "clinfer.testing" for e in entry_points(group="pytest11"))
    plugin = () if is_installed else ("-p", "clinfer.testing")
    pytester.makepyfile(TEST)
    return lambda *options: pytester.runpytest_subprocess(*plugin, "-s", *options)


def test_the_next_session_finds_what_this_one_compiled(session) -> None:
    for cached in (False, True):
        result = session()
        result.assert_outcomes(passed=2)
        result.stdout.fnmatch_lines([f"*cached: {cached}*"])


def test_a_device_that_is_not_there_skips_or_fails(session, pytester: pytest.Pytester) -> None:
    session("--clinfer-device", "GPU.7").assert_outcomes(passed=1, skipped=1)
    pytester.makeini("[pytest]\nclinfer_device = GPU.7\n")
    result = session("--clinfer-require")
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*there is no device 'GPU.7'*"])


def test_each_test_runs_on_every_device_that_is_named(session) -> None:
    result = session("--clinfer-device", "CPU,GPU.7", "--collect-only", "-q")
    result.stdout.fnmatch_lines(["*test_scores?CPU?", "*test_scores?GPU.7?"])

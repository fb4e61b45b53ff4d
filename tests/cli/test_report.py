"""`clinfer report`, and what CLINFER_LOG tells of a command."""

from __future__ import annotations

import json
import platform

import numpy as np
import pytest

import clinfer as api
from clinfer.device import binding


def test_a_report_has_versions_devices_drivers_and_the_cache(clinfer, monkeypatch):
    monkeypatch.setenv("CLINFER_CACHE_SIZE", "5G")
    monkeypatch.setenv("CLINFER_CACHE_STORE", "https://me:word@host/dir?token=word")
    found = json.loads(clinfer("report", "--json").out)
    assert (found["clinfer"], found["python"]) == (api.__version__, platform.python_version())
    assert found["packages"]["numpy"] == np.__version__
    devices = json.loads(clinfer("devices", "--json").out)
    for here, there in zip(found["devices"], devices, strict=True):
        assert {n: here[n] for n in ("device", "name", "driver", "platform", "memory")} == {
            n: there[n] for n in ("device", "name", "driver", "platform", "memory")
        }
    assert found["cache"]["limit"] == 5 * 2**30
    assert found["environment"]["CLINFER_CACHE_SIZE"] == "5G"
    assert found["environment"]["CLINFER_CACHE_STORE"] == "https://...@host/dir?..."
    text = clinfer("report").out
    for words in (
        f"clinfer {api.__version__}",
        "numpy",
        "driver",
        "cache: ",
        "CLINFER_CACHE_SIZE=5G",
    ):
        assert words in text


def test_what_is_missing_is_a_part_of_the_report(clinfer, monkeypatch):
    monkeypatch.setattr(binding, "get_platforms", list)
    done = clinfer("report", "--json")
    assert done.code == 0
    assert "pip install clinfer[pocl]" in json.loads(done.out)["devices"]["error"]
    assert "devices: no OpenCL" in clinfer("report").out


@pytest.mark.parametrize("level", ["", "off", "error", "warning", "info"])
def test_without_debugging_a_command_says_nothing_more(clinfer, two_inputs, monkeypatch, level):
    monkeypatch.setenv("CLINFER_LOG", level)
    done = clinfer("run", two_inputs, "--device", "CPU")
    assert (done.code, "look-up" in done.err, "key of" in done.err) == (0, False, False)


def test_a_level_that_does_not_exist_is_named(clinfer, monkeypatch):
    monkeypatch.setenv("CLINFER_LOG", "loud")
    clinfer("devices").fails_with("CLINFER_LOG", "loud", "debug")

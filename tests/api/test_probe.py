"""`clinfer cache verify --probe`: what crashes a driver is found in a child process."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import clinfer
from api.made import dense_model, one_node, save
from clinfer.cache import Store
from clinfer.cli import main
from clinfer.plugins import probe as probing
from clocks import LIMIT, timer_over_at

# A child whose driver dies on the first entry, or never returns from it.
_BAD_DRIVER = """
import os, sys, time
from clinfer.plugins import probe
load_well = probe._load
def hang():
    open(sys.argv[3], "w").close()
    time.sleep(3600)
def load(store, digest, devices):
    if digest == sys.argv[2]:
        {fault}
    return load_well(store, digest, devices)
probe._load = load
probe.main()
"""

_NO_DEVICES = """
import os
from clinfer.errors import DeviceError
from clinfer.plugins import probe
def devices():
    {fault}
probe._devices = devices
probe.main()
"""


@pytest.fixture
def cache(device, tmp_path: Path) -> Path:
    """A cache of two models that share no program."""
    folder = tmp_path / "c"
    softmax = one_node("Softmax", {"x": (1, [3, 40])}, {"y": (1, [3, 40])}, axis=1)
    for number, model in enumerate((dense_model(), softmax)):
        path = save(model, tmp_path / f"{number}.onnx")
        clinfer.Core().compile_model(path, device, {"CACHE_DIR": str(folder)})
    return folder


def verify(capsys, *arguments: object) -> tuple[int, list[dict]]:
    capsys.readouterr()
    code = main(["cache", "verify", *map(str, arguments), "--probe", "--json"])
    return code, json.loads(capsys.readouterr().out)["problems"]


def test_good_binaries_pass(cache, capsys) -> None:
    assert verify(capsys, cache) == (0, [])


@pytest.mark.parametrize(
    ("fault", "said"),
    [("os.abort()", "died: -6"), ("hang()", "over 600 s")],
)
def test_a_binary_that_crashes_the_driver_is_found(
    cache, capsys, monkeypatch, tmp_path, fault, said
) -> None:
    """And only that one; with --remove it is gone."""
    mark = tmp_path / "hangs"
    digests = [info.digest for info in Store(cache).entries()]
    start = probing.subprocess.Popen

    def popen(command, **options):
        code = _BAD_DRIVER.format(fault=fault)
        return start([command[0], "-c", code, command[3], digests[1], str(mark)], **options)

    monkeypatch.setattr(probing.subprocess, "Popen", popen)
    monkeypatch.setattr(probing.probe, "__kwdefaults__", {"remove": False, "seconds": LIMIT})
    monkeypatch.setattr(probing, "Timer", timer_over_at(mark))
    code, problems = verify(capsys, cache, "--remove")
    assert code == 1
    assert [problem["entry"] for problem in problems] == [digests[1][:12]], problems
    assert said in problems[0]["detail"]
    assert problems[0]["removed"]
    assert {info.digest for info in Store(cache).entries()} == {*digests} - {digests[1]}


@pytest.mark.parametrize(
    ("fault", "said"),
    [("raise DeviceError('no platform')", "no platform"), ("os.abort()", "died: -6")],
)
def test_devices_that_cannot_be_opened_are_no_entrys_fault(
    cache, capsys, monkeypatch, fault, said
) -> None:
    start = probing.subprocess.Popen

    def popen(command, **options):
        return start([command[0], "-c", _NO_DEVICES.format(fault=fault), command[3]], **options)

    monkeypatch.setattr(probing.subprocess, "Popen", popen)
    before = {info.digest for info in Store(cache).entries()}
    assert main(["cache", "verify", str(cache), "--probe", "--remove"]) == 1
    assert said in capsys.readouterr().err
    assert {info.digest for info in Store(cache).entries()} == before

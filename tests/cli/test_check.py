"""`clinfer check`: what can be compiled, and what would run on the host."""

from __future__ import annotations

import json

from onnx import helper

from cli.conftest import DIGITS, F, save


def _unique(tmp_path):
    node = helper.make_node("Unique", ["x"], ["y"], name="only", axis=0)
    return save(tmp_path / "unique.onnx", [node], {"x": (F, [4, 2])}, {"y": (F, ["n", 2])})


def test_a_model_that_runs_on_the_device(clinfer):
    done = clinfer("check", DIGITS, "--device", "CPU")
    assert done.code == 0
    assert done.out.splitlines()[1].split() == [str(DIGITS), "device", "0"]


def test_host_steps_are_named_and_are_exit_code_3(clinfer, tmp_path):
    path = _unique(tmp_path)
    done = clinfer("check", DIGITS, path, "--device", "CPU", "--json")
    assert done.code == 3
    row = json.loads(done.out)[1]
    assert row["result"] == "host steps"
    assert "only" in row["host_steps"][0]["computes"]
    assert row["host_steps"][0]["reason"]
    done = clinfer("check", path, "--device", "CPU", "--allow-host-steps")
    assert done.code == 0
    assert row["host_steps"][0]["reason"] in done.out


def test_a_model_that_cannot_be_read(clinfer, tmp_path):
    (tmp_path / "m.onnx").write_bytes(b"nothing")
    done = clinfer("check", DIGITS, tmp_path / "m.onnx", "--device", "CPU")
    assert done.code == 1
    assert "m.onnx" in done.out

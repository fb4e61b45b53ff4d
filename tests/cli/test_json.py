"""`--json`: one document in every case, numbers as numbers; failures also in a line on stderr."""

from __future__ import annotations

import json
import signal

import pytest

from cli.conftest import DIGITS
from clinfer.device import discover

ABSENT = "absent.onnx"


def failure(done) -> dict:
    """The document of a command that failed, checked against its exit code and stderr."""
    document = json.loads(done.out)
    assert document["exit_code"] == done.code
    assert document["error"]["type"]
    (line,) = done.err.splitlines()[-1:]
    assert " ".join(document["error"]["message"].split()) in line
    return document["error"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("run", ABSENT),
        ("run", DIGITS, "--device", "TPU"),
        ("bench", ABSENT),
        ("compile", ABSENT, "--device", "CPU", "-o", "out.blob"),
        ("explain", ABSENT),
        ("explain", DIGITS, "--device", "CPU", "--source", "nope"),
        ("explain", DIGITS, "--phase", "nope"),
        ("explain", DIGITS, "--cache", "--no-cache"),
        ("devices", "--device", "TPU"),
        ("warm", ABSENT),
        ("tune", ABSENT, "--no-cache"),
        ("verify", ABSENT, "--pack", "absent.clpack"),
        ("pack", "-o", "x.clpack"),
        ("unpack", "absent.clpack", "--cache-dir", "c"),
        ("cache", "list", "absent"),
        ("run", DIGITS, "--device", "intel:nope"),
    ],
    ids=lambda words: " ".join(str(word).rpartition("/")[2] for word in words),
)
def test_a_failure_is_a_document_and_a_line(clinfer, arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = clinfer(*arguments, "--json")
    assert done.code == 1
    assert failure(done)["type"].endswith("Error")
    assert len(done.err.splitlines()) == 1
    assert clinfer(*arguments).out == ""


@pytest.mark.parametrize("arguments", [(), ("frobnicate",), ("run",), ("run", "m", "--shape", "1")])
def test_wrong_usage_is_a_document_too(clinfer, arguments):
    done = clinfer(*arguments, "--json")
    assert done.code == 2
    assert failure(done)["type"] == "UsageError"


@pytest.mark.parametrize("command", ["tune", "warm", "verify"])
def test_a_model_of_several_that_fails_is_told_in_both_places(clinfer, command, tmp_path):
    done = clinfer(command, tmp_path / ABSENT, "--cache-dir", tmp_path / "c", "--json")
    (model,) = json.loads(done.out)["models"]
    assert done.code == 1
    assert ABSENT in model["error"]
    (line,) = done.err.splitlines()
    assert ABSENT in line


def test_a_fault_of_clinfer_is_a_document(clinfer, monkeypatch):
    def broken():
        raise ZeroDivisionError("oh")

    monkeypatch.setattr(discover, "list_devices", broken)
    assert failure(clinfer("devices", "--json"))["type"] == "InternalError"


@pytest.mark.usefixtures("handled")
def test_what_a_signal_ends_is_a_document(clinfer, monkeypatch):
    for number, code, kind in (
        (signal.SIGTERM, 143, "Terminated"),
        (signal.SIGINT, 130, "Interrupted"),
    ):
        monkeypatch.setattr(discover, "list_devices", lambda n=number: signal.raise_signal(n))
        done = clinfer("devices", "--json")
        document = json.loads(done.out)
        assert (done.code, document["exit_code"], document["error"]["type"]) == (code, code, kind)


def test_numbers_are_numbers(clinfer):
    (device, *_) = json.loads(clinfer("devices", "--json").out)
    assert type(device["memory"]) is int
    assert "FP32" in device["capabilities"]
    explain = ("explain", DIGITS, "--device", "CPU", "--json")
    steps = json.loads(clinfer(*explain).out)["steps"]
    assert steps[0]["flops"] is None
    assert "batch" in steps[0]["flops_by_size"]
    steps = json.loads(clinfer(*explain, "--shape", "image=2x1x8x8").out)["steps"]
    # A 3 x 3 convolution of 1 channel into 16, on 8 x 8 pixels of 2 images; a step is two.
    assert any(step["flops"] >= 2 * 2 * 64 * 16 * 9 for step in steps)
    assert any("add" in step["fused"] for step in steps)
    run = json.loads(clinfer("run", DIGITS, "--device", "CPU", "--json").out)
    assert run["outputs"][0]["shape"] == [100, 10]

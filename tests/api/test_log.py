"""What clinfer says on standard error, and when."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import onnx
import pytest
from onnx import TensorProto, helper

from clocks import LIMIT

_PROGRAM = """
import clinfer
from clinfer.log import Log
core = clinfer.Core()
{before}
log = Log("clinfer.device")
log.debug("one %d", 1)
log.info("two")
log.warning("three %s", "words")
"""


def written(level: str | None, before: str = "") -> list[str]:
    environment = {k: v for k, v in os.environ.items() if k != "CLINFER_LOG"}
    if level is not None:
        environment["CLINFER_LOG"] = level
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM.format(before=before)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=True,
    )
    return done.stderr.splitlines()


@pytest.mark.parametrize(
    ("level", "texts"),
    [
        (None, ["three words"]),
        ("debug", ["one 1", "two", "three words"]),
        ("info", ["two", "three words"]),
        ("error", []),
        ("off", []),
    ],
)
def test_messages_follow_the_level(level, texts):
    lines = written(level)
    if level == "debug":
        assert lines.pop(0).startswith("clinfer: DEBUG: clinfer ")
    assert [line.rpartition(": ")[2] for line in lines] == texts


_COMPILES = """
core.set_property({{"CACHE_DIR": {folder!r}}})
model = core.read_model({model!r})
model.reshape({shape!r})
core.compile_model(model, "CPU")
"""


def test_debugging_tells_look_ups_keys_misses_and_build_times(tmp_path):
    """A hit, and a miss with the field in which the nearest key differs."""
    node = helper.make_node("Relu", ["x"], ["y"])
    ports = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n"]) for n in "xy"]
    model = tmp_path / "relu.onnx"
    graph = helper.make_graph([node], "relu", ports[:1], ports[1:])
    opsets = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), model)

    def compiled(size: int) -> str:
        given = {"folder": str(tmp_path / "cache"), "model": str(model), "shape": [size]}
        return "\n".join(written("debug", _COMPILES.format(**given)))

    first = compiled(3)
    assert re.search(r"key of model \w{12}: format=\d+, model='\w{64}', shapes=.*driver=", first)
    assert re.search(r"model \w{12}: miss, absent: no entry \w{12} in '.*cache'", first)
    assert "the nearest" not in first
    assert re.search(r"CPU: constants made in [\d.]+ s; 1 launches of \d programs", first)
    assert re.search(r"kernel '\w+': the compiler took [\d.]+ s", first)
    assert re.search(r"model \w{12}: stored in '.*cache', \d+ bytes, [\d.]+ s to build", first)
    again = compiled(3)
    assert re.search(r"model \w{12}: found, \d+ bytes", again)
    assert "the compiler took" not in again
    assert re.search(r"the nearest, \w{12}, differs in shapes: '.*4.*' here, '.*3", compiled(4))


def test_the_users_own_logging_is_left_as_it_is():
    lines = written(None, "import logging; logging.basicConfig(format='MINE %(message)s')")
    assert lines == ["MINE three words"]

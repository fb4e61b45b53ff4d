"""The command line in this process and in a child; small models, one cache for all tests."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from clinfer.cli import main
from clocks import LIMIT
from platforms import platform

ROOT = Path(__file__).resolve().parents[2]
DIGITS = ROOT / "examples" / "digits.onnx"
F = TensorProto.FLOAT


@dataclass(frozen=True)
class Done:
    """What a command left: its exit code and what it printed."""

    code: int
    out: str
    err: str

    def fails_with(self, *words: str) -> None:
        """Checks for exit code 1 and one line on stderr, 'clinfer: ...', that has the words."""
        assert self.code == 1, self
        lines = self.err.splitlines()
        assert len(lines) == 1, self.err
        assert lines[0].startswith("clinfer: "), self.err
        for word in words:
            assert word in lines[0], (word, lines[0])


Command = Callable[..., Done]


@pytest.fixture(scope="session")
def cache(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def environment(monkeypatch) -> None:
    for name in [name for name in os.environ if name.startswith("CLINFER_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("CLINFER_CPU_PLATFORM", platform())


@pytest.fixture
def clinfer(capsys) -> Command:
    """Runs a command in this process; argparse's exit counts as the code it has."""

    def run(*arguments: object) -> Done:
        capsys.readouterr()
        try:
            code = main([str(a) for a in arguments])
        except SystemExit as end:
            code = int(end.code or 0)
        said = capsys.readouterr()
        return Done(code, said.out, said.err)

    return run


def child(
    *arguments: object, python: Sequence[str] = (), **options
) -> subprocess.CompletedProcess[str]:
    """Runs `python -m clinfer ...`; `python` are options of the interpreter, or '-c' and code."""
    program = () if "-c" in python else ("-m", "clinfer")
    command = [sys.executable, *python, *program, *map(str, arguments)]
    options = {"capture_output": True, "text": True, "check": False, "timeout": LIMIT, **options}
    return subprocess.run(command, env=child_environment(), **options)


def child_environment(**more: str) -> dict[str, str]:
    """This process's environment, with the packages under test importable."""
    paths = [str(ROOT / "runtime"), str(ROOT / "kernels"), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in paths if p), **more}


def save(path: Path, nodes: list, inputs: dict, outputs: dict, opset: int = 18) -> Path:
    """Writes a model; inputs and outputs map names to (element type, shape) or to a type."""
    graph = helper.make_graph(nodes, "small", _infos(inputs), _infos(outputs))
    imports = [helper.make_opsetid("", opset)]
    onnx.save(helper.make_model(graph, opset_imports=imports, ir_version=9), path)
    return path


def _infos(ports: dict) -> list:
    return [
        helper.make_tensor_value_info(name, *kind)
        if isinstance(kind, tuple)
        else helper.make_value_info(name, kind)
        for name, kind in ports.items()
    ]


@pytest.fixture
def two_inputs(tmp_path) -> Path:
    """sum = a + b, both float32 [n, 3]."""
    node = helper.make_node("Add", ["a", "b"], ["sum"])
    ports = {"a": (F, ["n", 3]), "b": (F, ["n", 3])}
    return save(tmp_path / "two.onnx", [node], ports, {"sum": (F, ["n", 3])})


@pytest.fixture
def hosted(tmp_path) -> Path:
    """y = relu(x), then its distinct rows, for which there is no kernel."""
    nodes = [
        helper.make_node("Relu", ["x"], ["positive"], name="positive"),
        helper.make_node("Unique", ["positive"], ["y"], name="distinct", axis=0),
    ]
    return save(tmp_path / "hosted.onnx", nodes, {"x": (F, ["n", 2])}, {"y": (F, None)})


def rows(count: int = 2) -> np.ndarray:
    return np.arange(count * 3, dtype=np.float32).reshape(count, 3)


@pytest.fixture
def handled() -> Iterator[None]:
    """What Ctrl-C does before the test is what it does afterwards."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)

"""Making a plan takes little more memory than the plan: weights are there once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

_SIDE, _LAYERS = 1536, 8  # 72 MiB of weights

_CHILD = """
import sys
from clinfer.graph.reader import read
from clinfer.lowering.choose import KernelChoice
from clinfer.lowering.lower import lower
from clinfer.passes.pipeline import optimise
from clinfer_kernels.spec import Target

def peak():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM")) * 1024

def plan(path):
    graph = read(path).graph()
    optimise(graph)
    draft = lower(graph, Target(), KernelChoice())
    graph.forget_contents()
    return draft.finish()

plan(sys.argv[1])  # loads what is needed
before = peak()
made = plan(sys.argv[2])
print(peak() - before, sum(c.nbytes for c in made.constants))
"""


def _chain(path: Path, side: int, layers: int) -> Path:
    weights = [
        numpy_helper.from_array(np.full((side, side), i + 1, np.float32), f"w{i}")
        for i in range(layers)
    ]
    nodes = [helper.make_node("MatMul", [f"x{i}", f"w{i}"], [f"x{i + 1}"]) for i in range(layers)]
    ports = [helper.make_tensor_value_info(f"x{i}", 1, [4, side]) for i in (0, layers)]
    graph = helper.make_graph(nodes, "chain", ports[:1], ports[1:], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), path)
    return path


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="needs Linux's /proc")
def test_weights_are_in_memory_once(tmp_path: Path) -> None:
    small = _chain(tmp_path / "small.onnx", 8, 2)
    large = _chain(tmp_path / "large.onnx", _SIDE, _LAYERS)
    command = [sys.executable, "-c", _CHILD, str(small), str(large)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    grown, weights = map(int, done.stdout.split())
    assert weights == _LAYERS * _SIDE * _SIDE * 4
    assert grown < 1.6 * weights  # a copy in the parser and one in the graph would make it 3

"""The ten architectures in small: each phase keeps the results, and all patterns are recognised."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clinfer.graph.ir import Graph
from clinfer.graph.reader import read
from clinfer.passes.layout import remaining_transposes
from clinfer.passes.pipeline import PHASES, optimise
from passes.interpreter import run_graph
from passes.passes_helpers import kinds

FOLDER = Path(__file__).parent.parent / "models"
# Layers of attention, and transposes left that are no operands of attention: where the layout of
# the model's inputs or outputs changes.
EXPECTED = {
    "bert_base": (2, 0),
    "convnext_tiny": (0, 1),
    "efficientnet_b0": (0, 1),
    "gpt2": (2, 0),
    "mobilenetv2": (0, 1),
    "resnet50": (0, 1),
    "segformer_b0": (4, 2),
    "vit_base": (2, 1),
    "whisper_tiny_encoder": (2, 1),
    "yolos_tiny": (2, 1),
}
_PIECES = {"Erf", "Softmax", "LayerNormalization", "BatchNormalization", "Conv", "Gemm", "Tanh"}


@cache
def _model(name: str) -> Any:
    return read(FOLDER / f"{name}.onnx")


def _examples(name: str) -> tuple[dict[str, Any], list[Any]]:
    """The inputs and the expected outputs stored beside a model."""
    stored = np.load(FOLDER / f"{name}.npz")
    model = _model(name)
    feeds = {p.name: stored[f"in:{p.name}"] for p in model.inputs}
    return feeds, [stored[f"out:{p.name}"] for p in model.outputs]


def _optimised(name: str, phase: str | None = None) -> Graph:
    graph: Graph = _model(name).graph()
    optimise(graph, stop_after=phase, checked=True)
    return graph


@pytest.mark.parametrize("name", EXPECTED)
def test_results_stay_the_same(name):
    feeds, wanted = _examples(name)
    for phase in list(PHASES)[list(PHASES).index("canonicalise") :]:
        for found, want in zip(run_graph(_optimised(name, phase), feeds), wanted, strict=True):
            scale = float(np.abs(want).max())
            np.testing.assert_allclose(found, want, rtol=0, atol=1e-4 * scale, err_msg=phase)


@pytest.mark.parametrize("name", EXPECTED)
def test_everything_is_recognised(name):
    graph = _optimised(name)
    attention, transposes = EXPECTED[name]
    found = kinds(graph)
    assert found["clinfer.Attention"] == attention
    assert not _PIECES & set(found)
    apart = [n for n in remaining_transposes(graph) if not _serves_attention(n)]
    assert len(apart) == transposes, apart


def _serves_attention(node: Any) -> bool:
    """Whether a transpose shapes an operand or the result of attention, so that it is a view."""
    above = node.required(0).producer
    if above is not None and above.kind == "clinfer.Pointwise":
        above = above.required(0).producer  # a guard of rows that see no key
    if above is not None and above.kind == "clinfer.Attention":
        return True
    users = node.output.users
    return bool(users) and all(user.kind == "clinfer.Attention" for user in users)

"""Small models as text, and the comparison of their results before and after passes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from onnx import ModelProto, numpy_helper, parser
from onnxruntime import InferenceSession

from clinfer.graph.ir import Graph
from clinfer.graph.reader import read
from clinfer.passes.pipeline import PHASES, Report, optimise
from passes.interpreter import run_graph

Array = np.ndarray[Any, Any]


def model(
    signature: str, body: str, constants: Mapping[str, Array] | None = None, opset: int = 18
) -> ModelProto:
    """A model in ONNX's textual form: 'float[2, n] x => float[m] y' and the nodes.

    `constants` become initialisers of the names that the nodes read.
    """
    inputs, outputs = signature.split("=>")
    text = (
        f'<ir_version: 8, opset_import: ["": {opset}]> main ({inputs}) => ({outputs}) {{ {body} }}'
    )
    proto = parser.parse_model(text)
    for name, content in (constants or {}).items():
        proto.graph.initializer.append(numpy_helper.from_array(np.asarray(content), name))
    return proto


def random(shape: tuple[int, ...], seed: int = 0, dtype: str = "float32") -> Array:
    """Normally distributed numbers."""
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def optimised(
    proto: ModelProto,
    stop_after: str | None = None,
    cls: str = "gpu",
    features: Collection[str] = (),
) -> tuple[Graph, Report]:
    """The graph after the passes for a class of devices, verified after each."""
    graph = read(proto).graph()
    facts = {"cls": cls, "features": features}
    return graph, optimise(graph, **facts, stop_after=stop_after, checked=True)


def kinds(graph: Graph) -> Counter[str]:
    """How many nodes of each kind a graph has."""
    return Counter(node.kind for node in graph.nodes)


def check(
    proto: ModelProto,
    *feeds: Mapping[str, Array],
    rtol: float = 2e-5,
    atol: float = 1e-5,
    cls: str = "gpu",
) -> Graph:
    """Compares the results after each phase, from the canonical form on, with ONNX Runtime's.

    Returns the last graph.
    """
    session = InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    wanted = [session.run(None, dict(feed)) for feed in feeds]
    graph = read(proto).graph()
    phases = list(PHASES)
    for phase in phases[phases.index("canonicalise") :]:
        graph = optimised(proto, phase, cls)[0]
        for feed, expected in zip(feeds, wanted, strict=True):
            for found, want in zip(run_graph(graph, feed), expected, strict=True):
                np.testing.assert_allclose(found, want, rtol=rtol, atol=atol, err_msg=phase)
    return graph

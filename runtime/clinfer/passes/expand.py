"""Operators that run as their ONNX definition: a function of operators that have kernels."""

from __future__ import annotations

from clinfer.graph.functions import expand
from clinfer.graph.ir import Graph, Node
from clinfer.passes.fold import fold

# No kernel or canonical form of their own. Operators that are not listed here either have one, or
# have a definition that would only make more host steps.
BY_DEFINITION = frozenset(
    [
        "AffineGrid",
        "Attention",
        "BlackmanWindow",
        "CausalConvWithState",
        "CenterCropPad",
        "DynamicQuantizeLinear",
        "HammingWindow",
        "HannWindow",
        "NegativeLogLikelihoodLoss",
        "RotaryEmbedding",
        "SoftmaxCrossEntropyLoss",
        "SwiGLU",
        "ai.onnx.preview.FlexAttention",
    ]
)


def expand_definitions(graph: Graph) -> list[str]:
    """Writes out the operators listed; returns the nodes that were, as `Node.describe` has them."""
    done = expand(graph, _stays)
    if done:
        fold(graph)
    return done


def _stays(node: Node) -> bool:
    return node.kind not in BY_DEFINITION

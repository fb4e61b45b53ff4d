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
# Operators whose kernels give the first output only.
WITH_STATISTICS = frozenset({"LayerNormalization"})


def expand_definitions(graph: Graph) -> list[str]:
    """Writes out the operators listed; returns the nodes that were, as `Node.describe` has them."""
    done = expand(graph, lambda node: not _is_written_out(graph, node), _finish)
    if done:
        fold(graph, keeps_encoded=True)
    return done


def _finish(node: Node, made: list[Node]) -> None:
    """The definition as strict as ONNX Runtime's kernel: it takes positions as natural numbers."""
    if node.kind == "RotaryEmbedding":
        for gather in made:
            if gather.kind == "Gather":
                gather.attrs["positions"] = "natural"


def _is_written_out(graph: Graph, node: Node) -> bool:
    if node.kind in BY_DEFINITION:
        return True
    more = (v for v in node.outputs[1:] if v is not None)
    return node.kind in WITH_STATISTICS and any(v.users or graph.is_output(v) for v in more)

"""Patterns: what exporters write in pieces becomes one operator again."""

from __future__ import annotations

from clinfer.graph.ir import Graph
from clinfer.passes.dead import remove_dead
from clinfer.passes.patterns import activations, attention, concats, indices, norms
from clinfer.passes.rewrite import Log, Rule, run_rules

RULES: tuple[Rule, ...] = (
    *norms.RULES,
    *activations.RULES,
    *attention.RULES,
    *concats.RULES,
)


def recognise(graph: Graph, log: Log) -> None:
    """Recognises positions and masks, softmax, normalisations, activations and attention."""
    run_rules(graph, indices.RULES, log, "patterns")
    run_rules(graph, RULES, log, "patterns")
    remove_dead(graph)

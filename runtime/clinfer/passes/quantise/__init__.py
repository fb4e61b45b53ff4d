"""Pairs of QuantizeLinear and DequantizeLinear give way to operators on the integers between them.

D decodes integers of 8 bits, Q encodes them. Sums of products are exact in integers, where floats
round each (`products`); what moves elements moves integers (`moves`); functions of one tensor are
tables (`tables`); scales are multiplied when the model is compiled (`scales`). What remains encoded
of constants is decoded at the end (`decode`).
"""

from __future__ import annotations

from clinfer.graph.ir import Graph
from clinfer.passes.dead import detach_known, remove_dead
from clinfer.passes.fold import DECODERS, fold
from clinfer.passes.quantise import moves, products, scales, tables
from clinfer.passes.rewrite import Log, run_rules

RULES = (*products.RULES, *moves.RULES, *tables.RULES, *scales.RULES)


def quantise(graph: Graph, log: Log) -> None:
    """The rules here, for class "cpu"; other devices compute between pairs in floats."""
    if any(node.kind in DECODERS for node in graph.nodes):
        run_rules(graph, RULES, log, "quantise")
        remove_dead(graph)


def decode(graph: Graph, log: Log) -> None:
    """Constants that are still encoded become what they stand for."""
    if any(node.kind in DECODERS for node in graph.nodes):
        fold(graph)
        detach_known(graph)

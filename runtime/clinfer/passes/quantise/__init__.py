"""Pairs of QuantizeLinear and DequantizeLinear give way to operators on the integers between them.

D decodes integers of 8 bits, Q encodes them. Sums of products are exact in integers, where floats
round each (`products`); constants that floats are multiplied by stay encoded (`weights`); what
moves elements moves integers (`moves`); functions of one tensor are tables (`tables`); scales are
multiplied when the model is compiled (`scales`). What remains encoded of constants is decoded at
the end (`decode`).
"""

from __future__ import annotations

from collections.abc import Sequence

from clinfer.graph.ir import Graph
from clinfer.passes.dead import detach_known, remove_dead
from clinfer.passes.fold import DECODERS, fold
from clinfer.passes.quantise import moves, products, scales, tables, weights
from clinfer.passes.rewrite import Log, Rule, run_rules

_BYTES = (*moves.RULES, *tables.RULES, *scales.RULES)
RULES = (*products.RULES, *weights.ON_CPUS.rules, *_BYTES)
ON_GPUS = (*products.RULES, *weights.ON_GPUS.rules, *_BYTES)


def quantise(graph: Graph, log: Log) -> None:
    """Those of class "cpu"."""
    _run(graph, RULES, log)


def keep_weights(graph: Graph, log: Log) -> None:
    """Those of class "gpu", where it computes between pairs in floats."""
    _run(graph, weights.ON_GPUS.rules, log)


def quantise_gpus(graph: Graph, log: Log) -> None:
    """Those of GPUs with a unit for bytes."""
    _run(graph, ON_GPUS, log)


def _run(graph: Graph, rules: Sequence[Rule], log: Log) -> None:
    if any(node.kind in DECODERS for node in graph.nodes):
        run_rules(graph, rules, log, "quantise")
        remove_dead(graph)


def decode(graph: Graph, log: Log) -> None:
    """Constants that are still encoded become what they stand for."""
    if any(node.kind in DECODERS for node in graph.nodes):
        fold(graph)
        detach_known(graph)

"""Canonical form: the many ways of writing one thing in ONNX become one (docs/ir.md).

What a rule does not understand stays as it is and becomes a host step later.
"""

from __future__ import annotations

from dataclasses import replace

from clinfer.dtypes import DEVICE_DTYPES
from clinfer.graph.ir import Graph, Node
from clinfer.passes.canonicalise import linear, norms, scale, sizes, views
from clinfer.passes.dead import detach_known, remove_dead
from clinfer.passes.rewrite import Apply, Log, Outcome, Rewriter, Rule, run_rules


def canonicalise(graph: Graph, log: Log) -> None:
    """Brings `graph` into the canonical form."""
    detach_known(graph)
    run_rules(graph, RULES, log, "canonicalise")
    remove_dead(graph)


def _on_device(apply: Apply) -> Apply:
    """The rule, only for tensors that kernels compute with: host steps know ONNX's form alone."""

    def guarded(rw: Rewriter, node: Node) -> Outcome:
        values = [*node.inputs[:1], *node.outputs]
        if any(v is not None and v.dtype not in DEVICE_DTYPES for v in values):
            return None
        return apply(rw, node)

    return guarded


RULES: tuple[Rule, ...] = tuple(
    replace(rule, apply=_on_device(rule.apply))
    for module in (views, linear, scale, norms, sizes)
    for rule in module.RULES
)

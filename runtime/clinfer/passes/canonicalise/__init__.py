"""Canonical form: the many ways of writing one thing in ONNX become one (docs/ir.md).

What a rule does not understand stays as it is and becomes a host step later.
"""

from __future__ import annotations

from clinfer.graph.ir import Graph
from clinfer.passes.canonicalise import (
    col2im,
    einsum,
    forests,
    found,
    from_data,
    grid_sample,
    linear,
    linear_attention,
    norms,
    places,
    quantise,
    random_numbers,
    recurrent,
    resize_data,
    same,
    scale,
    signal,
    sizes,
    slots,
    training,
    variadic,
    views,
)
from clinfer.passes.dead import detach_known, remove_dead
from clinfer.passes.rewrite import Log, Rule, run_rules


def canonicalise(graph: Graph, log: Log) -> None:
    """Brings `graph` into the canonical form."""
    detach_known(graph)
    run_rules(graph, RULES, log, "canonicalise")
    remove_dead(graph)


RULES: tuple[Rule, ...] = tuple(
    rule
    for module in (
        quantise,
        from_data,
        found,
        signal,
        slots,
        training,
        random_numbers,
        resize_data,
        views,
        same,
        linear,
        linear_attention,
        einsum,
        grid_sample,
        recurrent,
        col2im,
        forests,
        places,
        scale,
        norms,
        sizes,
        variadic,
    )
    for rule in module.RULES
)

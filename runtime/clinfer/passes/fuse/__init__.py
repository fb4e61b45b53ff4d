"""Fusion: pointwise chains become one kernel, and join the operators before and after them."""

from __future__ import annotations

from clinfer.graph.ir import Graph
from clinfer.passes.dead import remove_dead
from clinfer.passes.fuse.anchors import EPILOGUE_RULES, KEEP_REDUCED, PROLOGUE_RULES
from clinfer.passes.fuse.ends import shorten_ends
from clinfer.passes.fuse.literals import share_programs
from clinfer.passes.fuse.pointwise import CHAIN_RULES, TO_POINTWISE
from clinfer.passes.fuse.views import RULES as BEFORE_VIEWS
from clinfer.passes.layout.sink import VIEW_CHAINS
from clinfer.passes.rewrite import Log, run_rules


def fuse(graph: Graph, log: Log) -> None:
    """Groups pointwise operators and attaches the groups to anchors where these take them."""
    run_rules(graph, (*TO_POINTWISE, *KEEP_REDUCED), log, "fuse")
    rules = (*VIEW_CHAINS, *CHAIN_RULES, *EPILOGUE_RULES, *PROLOGUE_RULES, *BEFORE_VIEWS)
    run_rules(graph, rules, log, "fuse")
    shorten_ends(graph)
    share_programs(graph, log)
    remove_dead(graph)

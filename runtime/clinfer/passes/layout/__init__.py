"""Layout: convolutional regions run channels-last, and as few transposes as possible remain."""

from __future__ import annotations

from collections.abc import Sequence

from clinfer.graph.ir import Graph, Node
from clinfer.passes.dead import remove_dead, share_common
from clinfer.passes.layout.blocks import RULES as BLOCKS
from clinfer.passes.layout.channels_last import RULES as CHANNELS_LAST
from clinfer.passes.layout.norms import APART, BELOW_NORM
from clinfer.passes.layout.projections import RULES as PROJECTIONS
from clinfer.passes.layout.sink import FINISH_RULES, SINK_RULES
from clinfer.passes.rewrite import Log, Rule, run_rules


def choose_layout(graph: Graph, log: Log) -> None:
    """Writes convolutions channels-last, moves transposes together until they cancel, and
    projections to where there are few pixels.
    """
    _choose(graph, log, (APART, *SINK_RULES))


def choose_layout_cpu(graph: Graph, log: Log) -> None:
    """As `choose_layout`; launches cost little here, so norms too go below transposes in pieces,
    and convolutions of a few filters fill vectors (`blocks.py`)."""
    _choose(graph, log, (APART, *SINK_RULES, BELOW_NORM), BLOCKS)


def _choose(graph: Graph, log: Log, rules: Sequence[Rule], last: Sequence[Rule] = ()) -> None:
    run_rules(graph, CHANNELS_LAST, log, "layout")
    run_rules(graph, rules, log, "layout")
    run_rules(graph, PROJECTIONS, log, "layout")
    run_rules(graph, last, log, "layout")
    run_rules(graph, FINISH_RULES, log, "layout")
    share_common(graph, log)
    remove_dead(graph)


def remaining_transposes(graph: Graph) -> list[Node]:
    """The transposes of computed values that are left, views for attention included."""
    return [n for n in graph.nodes if n.kind == "Transpose" and n.required(0).const is None]

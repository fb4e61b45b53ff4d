"""All passes in order, with a report of what each did.

    fold -> widen -> canonicalise -> patterns -> layout -> fuse -> dead

Each phase takes a graph to a graph and can be the last one (`stop_after`), so that
`clinfer explain` prints the graph after any of them.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from clinfer.graph.ir import Graph
from clinfer.passes.canonicalise import canonicalise
from clinfer.passes.dead import detach_known, remove_dead, share_common
from clinfer.passes.expand import expand_definitions
from clinfer.passes.fold import fold
from clinfer.passes.fuse import fuse
from clinfer.passes.layout import choose_layout, remaining_transposes
from clinfer.passes.patterns import recognise
from clinfer.passes.rewrite import Log
from clinfer.passes.verify import verify
from clinfer.passes.widen import widen

Phase = Callable[[Graph, Log], None]


def _fold(graph: Graph, log: Log) -> None:
    fold(graph)
    expand_definitions(graph)
    detach_known(graph)
    share_common(graph, log)


def _dead(graph: Graph, log: Log) -> None:
    share_common(graph, log)
    remove_dead(graph)


PHASES: dict[str, Phase] = {
    "fold": _fold,
    "widen": widen,
    "canonicalise": canonicalise,
    "patterns": recognise,
    "layout": choose_layout,
    "fuse": fuse,
    "dead": _dead,
}
# The phases after which docs/ir.md's canonical form holds.
_CANONICAL = frozenset(PHASES) - {"fold", "widen"}
# The phases only for devices of class "cpu".
_FOR_CPUS = frozenset({"widen"})


@dataclass
class Report:
    """What the passes did: milliseconds by phase, rules fired and refused, what is left."""

    milliseconds: dict[str, float] = field(default_factory=dict)
    log: Log = field(default_factory=Log)
    histogram: Counter[str] = field(default_factory=Counter)
    transposes: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """For people: one line a phase, a rule, a refusal."""
        times = [f"{phase}: {ms:.1f} ms" for phase, ms in self.milliseconds.items()]
        left = [f"transpose left: {label}" for label in self.transposes]
        return times + self.log.lines() + left


def optimise(
    graph: Graph, *, cls: str = "gpu", stop_after: str | None = None, checked: bool = False
) -> Report:
    """Brings `graph` from the reader's form into the one that lowering reads, in place.

    The graph's shapes must be inferred. `cls` is the device's class, `stop_after` names the last
    phase to run, `checked` verifies the graph after each. `ClinferError` where a pass does not end
    or, checked, leaves an invalid graph: both are bugs of ours.
    """
    report = Report()
    for name, phase in PHASES.items():
        if cls == "cpu" or name not in _FOR_CPUS:
            started = time.perf_counter()
            phase(graph, report.log)
            report.milliseconds[name] = (time.perf_counter() - started) * 1e3
            if checked:
                verify(graph, canonical=name in _CANONICAL)
        if name == stop_after:
            break
    report.histogram = Counter(node.kind for node in graph.nodes)
    report.transposes = [node.describe() for node in remaining_transposes(graph)]
    return report

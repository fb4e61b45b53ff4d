"""All passes in order, with a report of what each did.

    fold -> widen -> quantise -> decode -> canonicalise -> patterns -> layout -> join -> fuse
    -> rows -> dead

Each phase takes a graph to a graph and can be the last one (`stop_after`), so that
`clinfer explain` prints the graph after any of them.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

import numpy as np

from clinfer.boundary import during
from clinfer.errors import ShapeError
from clinfer.graph.bodies import LOOPS
from clinfer.graph.ir import Graph, Node, Value
from clinfer.graph.subgraphs import bodies_of
from clinfer.passes.canonicalise import canonicalise
from clinfer.passes.dead import detach_known, remove_dead, share_common
from clinfer.passes.expand import expand_definitions
from clinfer.passes.fold import fold
from clinfer.passes.fuse import fuse
from clinfer.passes.fuse.rows import join_few_norms, join_norms
from clinfer.passes.layout import choose_layout, choose_layout_cpu, remaining_transposes
from clinfer.passes.layout.siblings import join_siblings
from clinfer.passes.patterns import recognise
from clinfer.passes.quantise import decode, keep_weights, quantise, quantise_gpus
from clinfer.passes.rewrite import Log
from clinfer.passes.verify import verify
from clinfer.passes.widen import widen
from clinfer_kernels.dims import Dim

Phase = Callable[[Graph, Log], None]


def _fold(graph: Graph, log: Log) -> None:
    fold(graph, keeps_encoded=True)
    expand_definitions(graph)
    detach_known(graph)
    share_common(graph, log)


def _dead(graph: Graph, log: Log) -> None:
    share_common(graph, log)
    remove_dead(graph)


PHASES: dict[str, Phase] = {
    "fold": _fold,
    "widen": widen,
    "quantise": quantise,
    "decode": decode,
    "canonicalise": canonicalise,
    "patterns": recognise,
    "layout": choose_layout,
    "join": join_siblings,
    "fuse": fuse,
    "rows": join_norms,
    "dead": _dead,
}
# The phases after which docs/ir.md's canonical form holds.
_CANONICAL = frozenset(PHASES) - {"fold", "widen", "quantise", "decode"}
# The phases only for devices of one class.
_FOR_CLASS = {"widen": "cpu", "join": "gpu", "rows": "gpu"}
# The phases that are others for devices with a feature, or else of a class.
_INSTEAD: dict[tuple[str, str], Phase] = {
    ("quantise", "bytes"): quantise_gpus,
    ("quantise", "gpu"): keep_weights,
    ("layout", "cpu"): choose_layout_cpu,
    ("rows", "norms apart"): join_few_norms,
}


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
    graph: Graph,
    *,
    cls: str = "gpu",
    features: Collection[str] = (),
    stop_after: str | None = None,
    checked: bool = False,
) -> Report:
    """Brings `graph` from the reader's form into the one that lowering reads, in place.

    The graph's shapes must be inferred. `cls` is the device's class, `features` are its
    `Target.features`; `stop_after` names the last phase to run, `checked` verifies the graph after
    each. `ClinferError` where a pass does not end or, checked, leaves an invalid graph: both are
    bugs of ours.
    """
    report = Report()
    for name, phase in PHASES.items():
        if _FOR_CLASS.get(name, cls) == cls:
            others = (_INSTEAD.get((name, feature)) for feature in (*features, cls))
            phase = next(filter(None, others), phase)
            started = time.perf_counter()
            with during(f"phase '{name}' of the passes", lambda: f"the graph '{graph.name}'"):
                phase(graph, report.log)
            report.milliseconds[name] = (time.perf_counter() - started) * 1e3
            if checked:
                verify(graph, canonical=name in _CANONICAL)
        if name == stop_after:
            break
    else:
        _optimise_bodies(graph, cls, features, checked)
    report.histogram = Counter(node.kind for node in graph.nodes)
    report.transposes = [node.describe() for node in remaining_transposes(graph)]
    return report


def _optimise_bodies(graph: Graph, cls: str, features: Collection[str], checked: bool) -> None:
    """The same for the bodies of every If, Loop and Scan that is left."""
    branching = [node for node in graph.nodes if node.kind == "If" or node.kind in LOOPS]
    for node in branching:
        holds = node.attrs.pop("holds", None)
        if holds is not None:
            _decide_by_sizes(graph, node, holds)
        for body in bodies_of(graph, node).all:
            if body.graph is None:
                continue
            try:
                optimise(body.graph, cls=cls, features=features, checked=checked)
            except ShapeError as error:  # for these shapes it is a body that does not run
                body.graph, body.error = None, str(error)
    if branching:
        remove_dead(graph)


def _decide_by_sizes(graph: Graph, node: Node, holds: Dim) -> None:
    """Lets an If read its condition among the sizes, instead of what computes it from them."""
    shape = node.required(0).known_shape
    content = np.full([1] * len(shape), holds, object)
    value = Value(graph.fresh("holds"), "bool", content.shape, symbolic=content)
    graph.set_input(node, 0, value)

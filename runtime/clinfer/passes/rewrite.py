"""The rewrite driver: tables of named rules, applied to a graph until none applies.

A rule looks at one node (its root) and what lies above it. It answers

- `None`: does not apply;
- a `Refusal`: nearly applied, with the reason it did not; kept for `clinfer explain`;
- a value, or one value (or None) per output: what takes the place of the root's outputs.

New nodes are made through the `Rewriter`; they land before the root, so a rule may use every value
that the root could use. Nodes that nothing reads any more go at once.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from clinfer.boundary import during
from clinfer.dtypes import DEVICE_DTYPES
from clinfer.errors import InternalError
from clinfer.graph.ir import Array, Graph, Node, Shape, Value
from clinfer.graph.late import bound_by_inputs, may_give_sizes
from clinfer.passes.forms import Forms
from clinfer_kernels.dims import Dim

# A phase that rewrites more than this many times per node goes in circles.
FUEL_PER_NODE = 64
# Transposed constants up to this many elements are laid out anew; larger ones stay views.
SMALL_CONSTANT = 4096


@dataclass(frozen=True)
class Refusal:
    """Why a rule that nearly applied did not: 'the scale is not a constant'."""

    reason: str


Outcome = Value | Sequence[Value | None] | Refusal | None
Apply = Callable[["Rewriter", Node], Outcome]


@dataclass(frozen=True)
class Rule:
    """A named rewrite of nodes whose `Node.kind` is among `kinds`.

    A `typed` rule sees only nodes all of whose values have known ranks and dtypes that kernels
    compute with; the others run on the host in the form ONNX gives them.
    """

    name: str
    kinds: tuple[str, ...]
    apply: Apply
    typed: bool = True


@dataclass
class Log:
    """What happened: how often each rule fired, and why rules refused, by (phase, rule)."""

    fired: Counter[tuple[str, str]] = field(default_factory=Counter)
    refused: dict[tuple[str, str, str], dict[str, None]] = field(default_factory=dict)

    def refuse(self, phase: str, rule: str, reason: str, node: Node) -> None:
        """Notes a refusal, once for a node."""
        self.refused.setdefault((phase, rule, reason), {})[node.describe()] = None

    def lines(self) -> list[str]:
        """One line a rule that fired, then one line a refusal."""
        fired = [f"{phase}: {rule} x{count}" for (phase, rule), count in self.fired.items()]
        refused = [
            f"{phase}: {rule} not applied to {next(iter(nodes))}"
            + (f" and {len(nodes) - 1} more" if len(nodes) > 1 else "")
            + f": {reason}"
            for (phase, rule, reason), nodes in self.refused.items()
        ]
        return fired + refused


class Rewriter:
    """Edits a graph during one sweep from its first node to its last.

    While a sweep runs, `graph.nodes` is stale; rules go from node to node through values.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.made: list[Node] = []
        self._root: Node | None = None
        self.forms = Forms()
        self._known_sizes = bound_by_inputs(graph)
        self._ranks: dict[int, int] = {}

    # -- making nodes ----------------------------------------------------------------------------

    def emit(
        self,
        op: str,
        inputs: Sequence[Value | None],
        dtype: str | None,
        shape: Shape | None,
        *,
        attrs: Mapping[str, Any] | None = None,
        domain: str = "",
        version: int = 0,
    ) -> Value:
        """A new node before the root; returns its output."""
        root = self._root
        out = Value(self.graph.fresh(op if root is None else _stem(root)), dtype, shape)
        name = "" if root is None else root.name
        node = Node(op, list(inputs), [out], dict(attrs or {}), name, domain, version)
        self.insert(node)
        return out

    def insert(self, node: Node) -> None:
        """Puts a finished node before the root."""
        for value in node.inputs:
            if value is not None:
                value.users.append(node)
        for value in node.outputs:
            if value is not None:
                value.producer = node
        self.made.append(node)

    def constant(self, array: Array) -> Value:
        """A constant value."""
        return self.graph.constant(array, "const")

    def reshape(self, x: Value, shape: Sequence[Dim]) -> Value:
        """`x` with another shape: itself where it has it already, a constant where it is one."""
        wanted = tuple(shape)
        if x.shape == wanted:
            return x
        if x.const is not None and all(isinstance(d, int) for d in wanted):
            return self.constant(x.const.reshape([int(d) for d in wanted if isinstance(d, int)]))
        return self.emit("Reshape", [x], x.dtype, wanted)

    def transpose(self, x: Value, perm: Sequence[int]) -> Value:
        """`x` with dimension i taken from perm[i]; what is transposed already is not twice.

        Small constants are laid out anew.
        """
        before = x.producer
        if before is not None and before.kind == "Transpose" and "perm" in before.attrs:
            x, perm = before.required(0), [before.attrs["perm"][p] for p in perm]
        if list(perm) == list(range(len(perm))):
            return x
        if x.const is not None and x.const.size <= SMALL_CONSTANT:
            return self.constant(np.ascontiguousarray(x.const.transpose(perm)))
        shape = tuple(x.known_shape[p] for p in perm)
        return self.emit("Transpose", [x], x.dtype, shape, attrs={"perm": list(perm)})

    def is_passed(self, node: Node) -> bool:
        """Whether this sweep has passed the node and kept it."""
        return id(node) in self._ranks

    def rank(self, node: Node) -> int:
        """A number that grows in the graph's order; of nodes this sweep has passed."""
        return self._ranks[id(node)]

    # -- taking nodes out ------------------------------------------------------------------------

    def erase_unused(self, node: Node) -> None:
        """Takes out a node nothing reads, and then what only it read.

        What it read stays where it may give a size; `remove_dead` sees the whole graph.
        """
        pending = [node]
        while pending:
            dead = pending.pop()
            if not is_alive(dead) or not self._unused(dead):
                continue
            if dead is not node and may_give_sizes(dead, self._known_sizes):
                continue
            for value in dead.outputs:
                if value is not None:
                    value.producer = None
            for value in dead.inputs:
                if value is None:
                    continue
                value.users.remove(dead)
                if value.producer is not None:
                    pending.append(value.producer)

    def _unused(self, node: Node) -> bool:
        return not any(v.users or self.graph.is_output(v) for v in node.outputs if v is not None)

    # -- the sweep -------------------------------------------------------------------------------

    def sweep(self, phase: str, table: Mapping[str, Sequence[Rule]], log: Log) -> int:
        """Visits every node once, new ones included; returns how many rules fired."""
        fuel = FUEL_PER_NODE * (len(self.graph.nodes) + 8)
        fired = 0
        kept: list[Node] = []
        pending = deque(self.graph.nodes)
        while pending:
            node = pending.popleft()
            if not is_alive(node):
                continue
            rules = table.get(node.kind)
            rule = None if rules is None else self._first(phase, rules, node, log)
            if rule is None:
                self._ranks[id(node)] = len(kept)
                kept.append(node)
                continue
            fired += 1
            log.fired[phase, rule.name] += 1
            if fired > fuel:
                raise InternalError(
                    f"the rewriting phase '{phase}' does not end: rule '{rule.name}' still fires "
                    f"at {node.describe()}; please report this model"
                )
            if is_alive(node):
                pending.appendleft(node)
            pending.extendleft(reversed(self.made))
        self.graph.nodes = [n for n in kept if is_alive(n)]
        return fired

    def _first(self, phase: str, rules: Iterable[Rule], node: Node, log: Log) -> Rule | None:
        """Applies the first rule that fits."""
        typed: bool | None = None
        for rule in rules:
            if rule.typed:
                typed = is_typed(node) if typed is None else typed
                if not typed:
                    continue
            self.made = []
            self._root = node
            with during(f"rule '{rule.name}' of phase '{phase}'", node.describe):
                outcome = rule.apply(self, node)
            if outcome is None or isinstance(outcome, Refusal):
                for made in reversed(self.made):
                    self.erase_unused(made)
                if outcome is not None:
                    log.refuse(phase, rule.name, outcome.reason, node)
                continue
            self._substitute(node, [outcome] if isinstance(outcome, Value) else outcome)
            for made in reversed(self.made):
                if not may_give_sizes(made, self._known_sizes):
                    self.erase_unused(made)
            return rule
        return None

    def _substitute(self, node: Node, values: Sequence[Value | None]) -> None:
        for old, new in zip(node.outputs, values, strict=False):
            if old is None or new is None or old is new:
                continue
            if new.symbolic is None and new.const is None:
                new.symbolic = old.symbolic
            self.graph.replace(old, new)
        self.erase_unused(node)


def is_alive(node: Node) -> bool:
    """Whether the node is still part of its graph."""
    return any(v is not None and v.producer is node for v in node.outputs)


def is_typed(node: Node) -> bool:
    """Whether every value of the node has a known rank and a dtype that kernels compute with."""
    for values in (node.inputs, node.outputs):
        for value in values:
            if value is not None and (value.shape is None or value.dtype not in DEVICE_DTYPES):
                return False
    return True


def by_kind(rules: Iterable[Rule]) -> dict[str, list[Rule]]:
    """The rules that look at each kind of node, in the table's order."""
    table: dict[str, list[Rule]] = {}
    for rule in rules:
        for kind in rule.kinds:
            table.setdefault(kind, []).append(rule)
    return table


def run_rules(graph: Graph, rules: Iterable[Rule], log: Log, phase: str) -> int:
    """Sweeps until no rule fires; returns how many times rules fired."""
    table = by_kind(rules)
    total = 0
    while True:
        fired = Rewriter(graph).sweep(phase, table, log)
        total += fired
        if not fired:
            return total


def _stem(node: Node) -> str:
    """The name new values are derived from: the first output's, without its number."""
    first = next((v for v in node.outputs if v is not None), None)
    return (first.name if first is not None else node.op).split("~")[0]

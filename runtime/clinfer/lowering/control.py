"""If: both branches become steps of the plan, of which a run goes through those of one.

A branch reads what it captures where it lies, and writes its results where the If's are; so
nothing is copied into or out of it. What its sizes must be is kept with its steps: it does not hold
where the other branch is taken.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from clinfer.dtypes import DEVICE_DTYPES
from clinfer.errors import ShapeError
from clinfer.graph.bodies import Bodies, Body
from clinfer.graph.ir import Graph, Node, Value
from clinfer.graph.late import late_sizes
from clinfer.graph.subgraphs import bodies_of
from clinfer.lowering.bounds import Proofs
from clinfer.lowering.context import Lowering
from clinfer.lowering.pending import PendingBlock, PendingBranch, PendingHost
from clinfer.lowering.plan import Constraint
from clinfer.lowering.storage import Storage, Unlowerable, View


@dataclass
class _If:
    """An If on its way into the plan; `lower_nodes` lowers a graph's nodes in order.

    `targets` are where its results go: tensors, or host objects where the branches' shapes differ.
    """

    ctx: Lowering
    node: Node
    lower_nodes: Callable[[Lowering], None]
    targets: list[View | Storage | None] = field(default_factory=list)

    def lower(self) -> None:
        bodies = bodies_of(self.ctx.graph, self.node)
        reason = bodies.reason or _why_not(self.node, bodies)
        if reason:
            raise Unlowerable(reason)
        pending = PendingBranch(self.ctx.required(self.node, 0), [], self.node.describe())
        graphs = [body.graph for body in bodies.all if body.graph is not None]
        for index, value in enumerate(self.node.outputs):
            results = [graph.outputs[index] for graph in graphs]
            self.targets.append(None if value is None else self._target(value, results))
        self.ctx.steps.append(pending)
        for body in bodies.all:
            pending.blocks.append(self._block(body))
        for value, target in zip(self.node.outputs, self.targets, strict=True):
            if value is not None and isinstance(target, View):
                self.ctx.bind(value, target)

    def _target(self, value: Value, results: list[Value]) -> View | Storage:
        reason = next((reason for r in results if (reason := _difference(value, r))), "")
        if not reason:
            return self.ctx.output(value)
        if value.users:
            raise Unlowerable(reason)
        self.ctx.host_values[value] = Storage("host", value.dtype or "object", 0)
        return self.ctx.host_values[value]

    def _block(self, body: Body) -> PendingBlock:
        label = f"{body.name} of {self.node.describe()}"
        first = len(self.ctx.steps)
        proofs = Proofs()
        error = body.error
        if body.graph is not None:
            try:
                self._lower_body(body, body.graph, proofs)
            except ShapeError as refusal:  # for these shapes it is the branch that is not taken
                del self.ctx.steps[first:]
                error = str(refusal)
        constraints = () if body.graph is None else body.graph.constraints
        return PendingBlock(
            first,
            len(self.ctx.steps),
            label,
            (*(Constraint(*c) for c in constraints), *proofs.constraints),
            proofs.reaches,
            error,
        )

    def _lower_body(self, body: Body, graph: Graph, proofs: Proofs) -> None:
        inner = self.ctx.inside(graph, proofs)
        for value, index in zip(graph.inputs, body.captured, strict=True):
            inner.stands_for(value, self.ctx, self.node.required(index))
        for result, target in zip(graph.outputs, self.targets, strict=True):
            if isinstance(target, View) and result.producer is not None:
                inner.places.setdefault(result, target)
        self.lower_nodes(inner)
        triples = zip(graph.outputs, self.targets, self.node.outputs, strict=True)
        for result, target, given in triples:
            if isinstance(target, Storage) and given is not None:
                self._fetch(inner, result, target, given)
            elif isinstance(target, View) and inner.view(result) != target:
                inner.copy(inner.view(result), target, f"result {result.name}")

    def _fetch(self, inner: Lowering, result: Value, target: Storage, value: Value) -> None:
        """Adds the step that reads a result of a branch back, as an object of any shape."""
        place = inner.host_values.get(result) or inner.view(result)
        node = Node("Identity", [result], [Value(value.name, result.dtype)], name=value.name)
        reason = f"the shape of '{value.name}' is that of the branch taken"
        if value.dtype not in DEVICE_DTYPES:
            reason = f"'{value.name}' is no tensor of numbers"
        self.ctx.steps.append(PendingHost(node, (place,), (target,), reason))


def lower_if(ctx: Lowering, node: Node, lower_nodes: Callable[[Lowering], None]) -> None:
    """Adds an If's steps. Raises `Unlowerable` with the reason where it has to run on the host."""
    _If(ctx, node, lower_nodes).lower()


def _why_not(node: Node, bodies: Bodies) -> str:
    """Why the branches cannot be steps of the plan; '' where they can."""
    graphs = {body.name: body.graph for body in bodies.all if body.graph is not None}
    if not graphs:
        return f"neither branch can run: {bodies.all[0].error}"
    for name, graph in graphs.items():
        late = late_sizes(graph)
        giver = next((n for n in graph.nodes if id(n) in late), None)
        if giver is not None and node.proto is not None:
            return f"its {name} has sizes known only when {giver.describe()} has run"
    return ""


def _difference(value: Value, result: Value) -> str:
    """Why a branch's result cannot be written where the other one's is; '' where it can."""
    if value.dtype not in DEVICE_DTYPES:
        return f"'{value.name}' is no tensor of numbers"
    if (result.dtype, result.shape) == (value.dtype, value.shape) and value.shape is not None:
        return ""
    return (
        f"a branch gives '{value.name}' as {_text(result)}, where {_text(value)} is needed "
        "whichever is taken"
    )


def _text(value: Value) -> str:
    sizes = "of unknown rank" if value.shape is None else list(map(str, value.shape))
    return f"{value.dtype} {sizes}"

"""Loop and Scan: the body becomes steps of the plan that a run goes through again and again.

All steps of a run read and write the same buffers: a state has a place, where its first value is
copied and to which what a step gives is moved; of what is scanned the step's row is copied into a
buffer of its own, and rows that are stacked are copied out of one. So no argument of a kernel
depends on the number of the step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from clinfer.dtypes import DEVICE_DTYPES
from clinfer.errors import ShapeError
from clinfer.graph.bodies import Body
from clinfer.graph.ir import Graph, Node, Value
from clinfer.graph.loops import LoopForm, form_of_body, stays_true
from clinfer.graph.subgraphs import bodies_of
from clinfer.lowering.binding import symbol_name
from clinfer.lowering.bounds import Proofs
from clinfer.lowering.context import Lowering
from clinfer.lowering.pending import (
    PendingAgain,
    PendingBlock,
    PendingHost,
    PendingLaunch,
    PendingLoop,
)
from clinfer.lowering.plan import Constraint
from clinfer.lowering.storage import Storage, Unlowerable, View
from clinfer_kernels.dims import Dim, product, symbols
from clinfer_kernels.spec import dense


def lower_loop(
    ctx: Lowering,
    node: Node,
    known: set[str],
    lower_nodes: Callable[[Lowering, set[str]], None],
) -> None:
    """Adds a loop's steps. Raises `Unlowerable` with the reason where it has to run on the host.

    `known` are the symbols bound before it. `lower_nodes` lowers a graph's nodes in order, where
    symbols of these names are known too.
    """
    bodies = bodies_of(ctx.graph, node)
    if bodies.reason:
        raise Unlowerable(bodies.reason)
    body = bodies.all[0]
    if body.graph is None:
        raise Unlowerable(f"its body cannot run: {body.error}")
    _Loop(ctx, node, body, body.graph, form_of_body(node, body), known).lower(lower_nodes)


class _Stack(NamedTuple):
    """A result that rows are stacked in: its value, the body's result, the axis, the direction."""

    value: Value
    row: Value
    axis: int
    is_reversed: bool
    view: View


@dataclass
class _Loop:
    ctx: Lowering
    node: Node
    body: Body
    graph: Graph
    form: LoopForm
    known: set[str]
    places: list[View | Storage] = field(default_factory=list)
    kept: set[int] = field(default_factory=set)
    stacks: list[_Stack] = field(default_factory=list)

    def lower(self, lower_nodes: Callable[[Lowering, set[str]], None]) -> None:
        ctx = self.ctx
        proofs = Proofs()
        inner = ctx.inside(self.graph, proofs)
        loop = self._begin(inner)
        ctx.steps.append(loop)
        loop.block.first = len(ctx.steps)
        loop.block.label = f"{self.body.name} of {self.node.describe()}"
        try:
            lower_nodes(inner, {name for name, _, _ in self.body.sizes})
            again = self._again(inner, loop)
        except ShapeError as error:  # an error of a run that comes here
            del ctx.steps[loop.block.first :]
            loop.block.error = str(error)
            again = PendingAgain(loop, None, [], [], (), (), loop.block.label)
        ctx.steps.append(again)
        loop.block.end = len(ctx.steps)
        constraints = (Constraint(*c) for c in self.graph.constraints)
        loop.block.constraints = (*constraints, *proofs.constraints)
        loop.block.reaches = proofs.reaches
        self._bind_results()

    # -- before the first step ---------------------------------------------------------------------

    def _begin(self, inner: Lowering) -> PendingLoop:
        ctx, node, form = self.ctx, self.node, self.form
        states: list[tuple[Storage, Storage]] = []
        for number, index in enumerate(form.states):
            value = self.graph.inputs[form.first + number]
            place = self._place(inner, number, value, node.required(index))
            if place is not None:
                states.append(place)
        parts = [self._part(inner, *where) for where in enumerate(form.scanned)]
        counter = None
        if node.kind == "Loop" and _is_read(self.graph, self.graph.inputs[0]):
            step = self.graph.inputs[0]
            inner.views[step] = self.ctx.temp("int64", step.known_shape)
            counter = inner.views[step].storage
        for value, index in zip(
            self.graph.inputs[self.body.own :], self.body.captured, strict=True
        ):
            inner.stands_for(value, ctx, node.required(index))
        firsts: dict[str, Dim] = {
            name: 0 if s in self.body.reranked else node.required(form.states[s]).known_shape[a]
            for name, s, a in self.body.sizes
        }
        is_loop = node.kind == "Loop"
        return PendingLoop(
            self._scalar(node.input(0), "int64") if is_loop else self._count(),
            self._scalar(node.input(1), "bool") if is_loop else None,
            counter,
            states,
            parts,
            self._make_stacks(),
            tuple(firsts.items()),
            self._gives(),
            PendingBlock(0, 0, "", (), (), ""),
            self._why_a_step(),
            node.describe(),
        )

    def _why_a_step(self) -> str:
        """What is wrong with a run without a step; '' where nothing is."""
        read = [n for n in self.body.reranked if _is_needed(self.ctx.graph, self.node.outputs[n])]
        if not read:
            return ""
        number = read[0]
        first = self.node.required(self.form.states[number])
        rank = len(self.graph.outputs[self.form.given + number].known_shape)
        return (
            f"{self.node.describe()}: no step of it runs, and state '{first.name}' is then of rank "
            f"{len(first.known_shape)}, where what comes after needs rank {rank}; expected a "
            "step at least"
        )

    def _place(
        self, inner: Lowering, number: int, value: Value, first: Value
    ) -> tuple[Storage, Storage] | None:
        """Where a state is, and its first value; None if that is there, or is not read."""
        moving = {state for _, state, _ in self.body.sizes}
        if self.graph.outputs[self.form.given + number] is value and number not in moving:
            if value.const is None:
                inner.stands_for(value, self.ctx, first)
            self.kept.add(number)
            self.places.append(self.ctx.operand(first))
            return None
        if value.dtype not in DEVICE_DTYPES or value.shape is None:
            place = Storage("host", value.dtype or "object", 0)
            inner.host_values[value] = place
            self.places.append(place)
            return self._object_of(self.ctx, first), place
        made = View(
            Storage("temp", value.dtype, product(value.shape)), dense(value.dtype, value.shape)
        )
        inner.views[value] = made
        self.places.append(made)
        if number in self.body.unread:
            return None
        start = self.ctx.whole(self.ctx.view(first))
        return start.storage, made.storage

    def _part(
        self, inner: Lowering, number: int, scanned: tuple[int, int, bool]
    ) -> tuple[Storage, Storage, bool]:
        index, axis, is_reversed = scanned
        value = self.graph.inputs[self.form.first + len(self.form.states) + number]
        view = self.ctx.required(self.node, index)
        order = [axis % view.tensor.rank]
        order += [other for other in range(view.tensor.rank) if other != order[0]]
        whole = self.ctx.whole(view.permute(order))
        inner.views[value] = row = self.ctx.temp(view.dtype, value.known_shape)
        return whole.storage, row.storage, is_reversed

    def _count(self) -> View:
        """The number of a Scan's steps."""
        index, axis, _ = self.form.scanned[0]
        return _known(self.node.required(index).known_shape[axis], "int64")

    def _scalar(self, value: Value | None, dtype: str) -> View | None:
        """An operand of one element: among the sizes where it is known."""
        if value is None:
            return None
        if value.const is not None:
            return _known(int(value.const.item()), dtype)
        if value.symbolic is not None:
            return _known(value.symbolic.item(), dtype)
        return self.ctx.view(value)

    def _make_stacks(self) -> list[Storage]:
        count = len(self.form.states)
        results = self.graph.outputs[self.form.given + count :]
        stacked = zip(self.node.outputs[count:], results, self.form.stacked, strict=True)
        for value, row, (axis, is_reversed) in stacked:
            if value is None:
                continue
            if row.dtype not in DEVICE_DTYPES or row.shape is None or value.shape is None:
                raise Unlowerable(f"'{row.name}', which is stacked, is no tensor of numbers")
            sizes = list(value.shape)
            steps = sizes.pop(axis)
            view = self.ctx.temp(row.dtype, (steps, *sizes))
            self.stacks.append(_Stack(value, row, axis, is_reversed, view))
        return [stack.view.storage for stack in self.stacks]

    def _gives(self) -> tuple[tuple[str, int], ...]:
        """The symbols that the results have and nothing before the loop gives."""
        found: dict[str, int] = {}
        known = self.known | {name for name, _, _ in self.body.sizes}
        for stack in self.stacks:
            steps, *sizes = stack.view.shape
            rows = (own if isinstance(own, int) else 0 for own in stack.row.known_shape)
            for size, none in zip((steps, *sizes), (-1, *rows), strict=True):
                name = symbol_name(size)
                if name is not None and name not in known:
                    found[name] = none
                elif not symbols(size) <= known:
                    raise Unlowerable(f"a size of '{stack.value.name}' is {size}, not known before")
        return tuple(found.items())

    # -- after each step ---------------------------------------------------------------------------

    def _again(self, inner: Lowering, loop: PendingLoop) -> PendingAgain:
        form = self.form
        results = self.graph.outputs[form.given :]
        taken = {storage for pair in loop.states for storage in pair}
        written = _written(self.ctx.steps[loop.block.first :])
        moves: list[tuple[Storage, Storage]] = []
        for number, place in enumerate(self.places):
            if number in self.kept:
                continue
            if isinstance(place, Storage):
                of = self._object(inner, results[number], taken)
                moves.append((of, place))
                continue
            view = inner.whole(inner.view(results[number]))
            is_own = view.storage in written and view.storage.kind == "temp"
            if not is_own or view.storage in taken:
                copied = inner.temp(view.dtype, view.shape)
                inner.copy(view, copied, f"state {results[number].name}")
                view = copied
            taken.add(view.storage)
            moves.append((view.storage, place.storage))
        rows = [
            (s.view.storage, inner.whole(inner.view(s.row)).storage, s.is_reversed)
            for s in self.stacks
        ]
        nexts = ((name, results[s].known_shape[a]) for name, s, a in self.body.sizes)
        goes_on = self._goes_on(inner)
        return PendingAgain(
            loop, goes_on, moves, rows, tuple(nexts), self._row_sizes(), loop.block.label
        )

    def _object(self, inner: Lowering, result: Value, taken: set[Storage]) -> Storage:
        """A host object that a step gives on; one that something else has too is given twice."""
        found = self._object_of(inner, result)
        if result.producer is not None and found not in taken:
            taken.add(found)
            return found
        made = Storage("host", result.dtype or "object", 0)
        node = Node("Identity", [result], [Value(result.name, result.dtype)], name=result.name)
        reason = f"'{result.name}', a state of a loop, is no tensor of numbers"
        self.ctx.steps.append(PendingHost(node, (found,), (made,), reason))
        return made

    def _object_of(self, ctx: Lowering, value: Value) -> Storage:
        found = ctx.operand(value)
        if isinstance(found, View):
            raise Unlowerable(f"'{value.name}' is a tensor, where a state is none")
        return found

    def _goes_on(self, inner: Lowering) -> View | None:
        if self.node.kind != "Loop" or stays_true(self.graph):
            return None
        result = self.graph.outputs[0]
        if result.const is not None:
            return _known(int(result.const.item()), "bool")
        return inner.view(result)

    def _row_sizes(self) -> tuple[tuple[str, Dim], ...]:
        found: dict[str, Dim] = {}
        for stack in self.stacks:
            for size, own in zip(stack.view.shape[1:], stack.row.known_shape, strict=True):
                name = symbol_name(size)
                if size != own and name is not None:
                    found[name] = own
        return tuple(found.items())

    # -- after the last step -----------------------------------------------------------------------

    def _bind_results(self) -> None:
        for value, place in zip(self.node.outputs, self.places, strict=False):
            if value is None:
                continue
            if isinstance(place, Storage):
                self.ctx.host_values[value] = place
            else:
                self.ctx.bind(value, place)
        for stack in self.stacks:
            rank = stack.view.tensor.rank
            axis = stack.axis % rank
            order = [*range(1, axis + 1), 0, *range(axis + 1, rank)]
            self.ctx.bind(stack.value, stack.view.permute(order))


def _known(content: Dim, dtype: str) -> View:
    return View(Storage("sizes", dtype, 1, content=(content,)), dense(dtype, ()))


def _is_needed(graph: Graph, value: Value | None) -> bool:
    return value is not None and _is_read(graph, value)


def _is_read(graph: Graph, value: Value) -> bool:
    return bool(value.users) or any(value is result for result in graph.outputs)


def _written(steps: Iterable[object]) -> set[Storage]:
    """The storages that launches and host steps among the steps write."""
    found: set[Storage] = set()
    for step in steps:
        if isinstance(step, PendingLaunch):
            found.update(step.outs)
        elif isinstance(step, PendingHost):
            places = (v.storage if isinstance(v, View) else v for v in step.outputs if v)
            found.update(places)
    return found

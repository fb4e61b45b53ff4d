"""Lowering a whole graph: every node through the table, then the steps become a plan."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from clinfer.boundary import during
from clinfer.dtypes import DEVICE_DTYPES
from clinfer.errors import UnsupportedError
from clinfer.graph.bodies import LOOPS
from clinfer.graph.ir import Graph, Node, Value
from clinfer.graph.late import in_shapes
from clinfer.lowering.assemble import Assembler
from clinfer.lowering.content import Content, Draft
from clinfer.lowering.context import Chooser, Lowering
from clinfer.lowering.control import lower_if
from clinfer.lowering.loops import lower_loop
from clinfer.lowering.sizes import lower_sizes
from clinfer.lowering.storage import Storage, Unlowerable
from clinfer.lowering.table import rules
from clinfer_kernels.spec import Target

_MOST_NESTED = 64  # concatenations written into one another; windows are found by recursion
_VIEW_OPERATORS = frozenset({"Reshape", "Transpose", "Slice", "Expand", "Identity"})


def lower(graph: Graph, target: Target, choose: Chooser) -> Draft:
    """The draft of a plan for a canonical graph (docs/ir.md) on a target.

    `choose` maps a kernel spec to the kernel to use, None where no family takes it. Nodes without
    a rule or a fitting kernel become host steps that state the reason.
    """
    ctx = Lowering(graph, target, choose)
    inputs = [_input(ctx, value) for value in graph.inputs]
    _lower_nodes(ctx, in_shapes(graph.inputs))
    outputs = [_output(ctx, value) for value in graph.outputs]
    with during("the making of its plan", lambda: f"the graph '{graph.name}'"):
        return Assembler(ctx).draft(inputs, outputs)


def _lower_nodes(ctx: Lowering, known: set[str]) -> None:
    """Lowers a graph's nodes in order; `known` holds the symbols bound before they run."""
    known = set(known)
    ctx.joins.update(_joins(ctx.graph, known))

    def loop(ctx: Lowering, node: Node) -> None:
        lower_loop(ctx, node, known, lambda inner, more: _lower_nodes(inner, known | more))

    table = {
        **rules(),
        "If": lambda ctx, node: lower_if(ctx, node, lambda inner: _lower_nodes(inner, known)),
        **dict.fromkeys(LOOPS, loop),
    }
    for node in ctx.graph.nodes:
        with during("its lowering", node.describe):
            _lower_node(ctx, node, table.get(node.kind), known)
        known |= in_shapes(node.outputs)


def _lower_node(
    ctx: Lowering, node: Node, rule: Callable[[Lowering, Node], None] | None, known: set[str]
) -> None:
    """`known` holds the symbols bound before the node runs."""
    custom = ctx.graph.custom.get(node.kind)
    if custom is not None:
        from clinfer.lowering.operators.custom import lower_custom

        lower_custom(ctx, node, custom)
        return
    if node.kind == "clinfer.Sizes":
        lower_sizes(ctx, node)
        return
    if rule is None:
        ctx.host(node, f"{node.kind} has no kernel")
        return
    sized = all(v is None or v.shape is not None for v in node.outputs)
    if node.kind not in ("If", *LOOPS) and (not sized or not in_shapes(node.outputs) <= known):
        ctx.host(node, "the size of its result is known only when it has run")
        return
    before = len(ctx.steps)
    try:
        rule(ctx, node)
    except Unlowerable as reason:
        is_own = node.domain == "clinfer" or (node.kind == "If" and node.proto is None)
        if is_own:
            raise UnsupportedError(
                f"{node.describe()} cannot run on this device: {reason}; use another device"
            ) from reason
        del ctx.steps[before:]
        ctx.host(node, str(reason))


def _joins(graph: Graph, known: set[str]) -> dict[Value, Node]:
    """Values that may be written straight into a concatenation: computed, and read only there.

    The concatenation's size must be among those `known` before anything runs.
    """
    found: dict[Value, Node] = {}
    deep: dict[Node, int] = {}  # how many concatenations the one that takes a result is inside of
    for node in reversed(graph.nodes):
        if node.kind != "Concat" or node.output.dtype not in DEVICE_DTYPES:
            continue
        if not in_shapes(node.outputs) <= known:
            continue
        outer = found.get(node.output)
        deep[node] = 0 if outer is None else deep[outer] + 1
        if deep[node] == _MOST_NESTED:
            del found[node.output]
            deep[node] = 0
        times = Counter(node.inputs)
        for value in node.inputs:
            if value is None or value.producer is None or value.producer.kind in _VIEW_OPERATORS:
                continue
            if graph.sole_user(value) is node and times[value] == 1:
                found[value] = node
    return found


def _input(ctx: Lowering, value: Value) -> Storage:
    if value.dtype not in DEVICE_DTYPES or value.shape is None:
        storage = Storage("host", value.dtype or "object", 0)
        ctx.host_values[value] = storage
        return storage
    view = ctx.temp(value.dtype, value.shape)
    view.storage.kind = "input"
    ctx.views[value] = view
    return view.storage


def _output(ctx: Lowering, value: Value) -> Storage:
    """The output's own buffer; a value that lives elsewhere, or in part of a buffer, is copied."""
    if value in ctx.host_values:
        return ctx.host_values[value]
    if value.const is not None and value.dtype not in DEVICE_DTYPES:
        return Storage("host", value.dtype or "object", 0, data=Content(value.const))
    with during("the copy of it", lambda: f"output '{value.name}'"):
        return _copied_output(ctx, value)


def _copied_output(ctx: Lowering, value: Value) -> Storage:
    view = ctx.view(value)
    whole = view.tensor.is_contiguous and view.tensor.offset == 0
    if view.storage.kind == "output" and whole and view.storage.size == view.tensor.size:
        return view.storage
    made = ctx.temp(view.dtype, view.shape)
    made.storage.kind = "output"
    try:
        ctx.copy(view, made, f"output {value.name}")
    except Unlowerable as reason:
        raise UnsupportedError(
            f"output '{value.name}' ({view.dtype}) cannot be copied on this device: {reason}; use "
            "another device"
        ) from reason
    return made.storage

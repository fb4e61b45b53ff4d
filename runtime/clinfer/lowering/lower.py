"""Lowering a whole graph: every node through the table, then the steps become a plan."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from clinfer.dtypes import DEVICE_DTYPES
from clinfer.errors import UnsupportedError
from clinfer.graph.ir import Graph, Node, Value
from clinfer.graph.reference import HostOp
from clinfer.lowering.content import Content, Draft
from clinfer.lowering.context import (
    Chooser,
    Lowering,
    PendingHost,
    PendingLaunch,
    Storage,
    Unlowerable,
    View,
)
from clinfer.lowering.in_place import taken_over
from clinfer.lowering.plan import (
    Buffer,
    Constraint,
    HostStep,
    HostValue,
    LaunchStep,
    Plan,
    PlanArg,
    PlanPort,
    Program,
    Step,
    touched,
)
from clinfer.lowering.table import rules
from clinfer_kernels.dims import symbols
from clinfer_kernels.spec import Arg, Target

_VIEW_OPERATORS = frozenset({"Reshape", "Transpose", "Slice", "Expand", "Identity"})


def lower(graph: Graph, target: Target, choose: Chooser) -> Draft:
    """The draft of a plan for a canonical graph (docs/ir.md) on a target.

    `choose` maps a kernel spec to the kernel to use, None where no family takes it. Nodes without
    a rule or a fitting kernel become host steps that state the reason.
    """
    ctx = Lowering(graph, target, choose)
    ctx.joins.update(_joins(graph))
    inputs = [_input(ctx, value) for value in graph.inputs]
    table = rules()
    known = _symbols(graph.inputs)
    for node in graph.nodes:
        _lower_node(ctx, node, table.get(node.kind), known)
        known |= _symbols(node.outputs)
    outputs = [_output(ctx, value) for value in graph.outputs]
    return _Assembler(ctx).draft(inputs, outputs)


def _lower_node(
    ctx: Lowering, node: Node, rule: Callable[[Lowering, Node], None] | None, known: set[str]
) -> None:
    """`known` holds the symbols bound before the node runs."""
    if rule is None:
        ctx.host(node, f"{node.kind} has no kernel")
        return
    sized = all(v is None or v.shape is not None for v in node.outputs)
    if not sized or not _symbols(node.outputs) <= known:
        ctx.host(node, "the size of its result is known only when it has run")
        return
    before = len(ctx.steps)
    try:
        rule(ctx, node)
    except Unlowerable as reason:
        if node.domain == "clinfer":
            raise UnsupportedError(
                f"{node.describe()} cannot run on this device: {reason}; use another device"
            ) from reason
        del ctx.steps[before:]
        ctx.host(node, str(reason))


def _symbols(values: Iterable[Value | None]) -> set[str]:
    """The symbols in the values' shapes."""
    shapes = (v.shape for v in values if v is not None and v.shape is not None)
    return {name for shape in shapes for dim in shape for name in symbols(dim)}


def _joins(graph: Graph) -> dict[Value, Node]:
    """Values that may be written straight into a concatenation: computed, and read only there.

    The concatenation's size must be known before anything runs.
    """
    found: dict[Value, Node] = {}
    known = _symbols(graph.inputs)
    for node in graph.nodes:
        if node.kind != "Concat" or node.output.dtype not in DEVICE_DTYPES:
            continue
        if not _symbols(node.outputs) <= known:
            continue
        for value in node.inputs:
            if value is None or value.producer is None or value.producer.kind in _VIEW_OPERATORS:
                continue
            if graph.sole_user(value) is node and node.inputs.count(value) == 1:
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
    view = ctx.view(value)
    whole = view.tensor.is_contiguous and view.tensor.offset == 0
    if view.storage.kind == "output" and whole and view.storage.size == view.tensor.size:
        return view.storage
    made = ctx.temp(view.dtype, view.shape)
    made.storage.kind = "output"
    ctx.copy(view, made, f"output {value.name}")
    return made.storage


@dataclass
class _Assembler:
    """Numbers storages and programs and writes the steps down."""

    ctx: Lowering
    buffers: list[Buffer] = field(default_factory=list)
    contents: list[Content] = field(default_factory=list)
    programs: dict[tuple[str, str], int] = field(default_factory=dict)
    program_list: list[Program] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    _numbers: dict[Storage, int] = field(default_factory=dict)
    _taken_over: Mapping[Storage, Storage] = field(default_factory=dict)

    def draft(self, inputs: Sequence[Storage], outputs: Sequence[Storage]) -> Draft:
        graph = self.ctx.graph
        self._taken_over = taken_over(self.ctx.steps)
        in_numbers = [self._number(s) for s in inputs]
        for pending in self.ctx.steps:
            if isinstance(pending, PendingLaunch):
                self._launches(pending)
            else:
                self.steps.append(self._host(pending))
        out_numbers = [self._number(s) for s in outputs]
        self._lifetimes()
        names = graph.output_names or [v.name for v in graph.outputs]
        constraints = getattr(graph, "constraints", ())
        plan = Plan(
            tuple(_port(v.name, v, n) for v, n in zip(graph.inputs, in_numbers, strict=True)),
            tuple(
                _port(name, v, n)
                for name, v, n in zip(names, graph.outputs, out_numbers, strict=True)
            ),
            tuple(self.buffers),
            tuple(self.program_list),
            tuple(self.steps),
            (),
            tuple(Constraint(*c) for c in constraints),
            dict(graph.metadata),
        )
        return Draft(plan, self.contents)

    def _number(self, storage: Storage) -> int:
        while storage in self._taken_over:
            storage = self._taken_over[storage]
        if storage not in self._numbers:
            self._numbers[storage] = len(self.buffers)
            constant = -1
            if storage.data is not None:
                constant = len(self.contents)
                self.contents.append(storage.data)
            self.buffers.append(
                Buffer(storage.kind, storage.dtype, storage.size, constant, storage.content)
            )
        return self._numbers[storage]

    def _launches(self, pending: PendingLaunch) -> None:
        kernel = pending.kernel
        scratch = [Storage("temp", "uint8", size) for size in kernel.scratch]
        groups = {"in": pending.ins, "out": pending.outs, "scratch": tuple(scratch)}
        for launch in kernel.launches:
            args = tuple(self._arg(arg, groups) for arg in launch.args)
            program = self._program(
                Program(launch.entry, launch.source, launch.options, launch.local_size)
            )
            self.steps.append(
                LaunchStep(
                    program,
                    args,
                    launch.global_size,
                    launch.local_size,
                    pending.label,
                    kernel.flops if launch is kernel.launches[-1] else 0,
                    problem=kernel.problem,
                )
            )

    def _arg(self, arg: Arg, groups: dict[str, tuple[Storage, ...]]) -> PlanArg:
        if arg.kind in groups:
            return PlanArg("buffer", self._number(groups[arg.kind][arg.index]))
        return PlanArg(arg.kind, value=arg.value, ctype=arg.ctype)

    def _program(self, program: Program) -> int:
        key = (program.source, program.options)
        if key not in self.programs:
            self.programs[key] = len(self.program_list)
            self.program_list.append(program)
        return self.programs[key]

    def _host(self, pending: PendingHost) -> HostStep:
        op = HostOp.from_node(pending.node, self.ctx.graph.opsets)
        return HostStep(
            op.to_json(),
            tuple(self._host_value(v) for v in pending.inputs),
            tuple(self._host_value(v) for v in pending.outputs),
            pending.node.describe(),
            pending.reason,
        )

    def _host_value(self, value: View | Storage | None) -> HostValue | None:
        if value is None:
            return None
        if isinstance(value, View):
            return HostValue(self._number(value.storage), value.tensor)
        return HostValue(self._number(value), None)

    def _lifetimes(self) -> None:
        """A buffer lives from the first step that touches it to the last."""
        first: dict[int, int] = {}
        last: dict[int, int] = {}
        for index, step in enumerate(self.steps):
            for buffer in touched(step):
                first.setdefault(buffer, index)
                last[buffer] = index
        for number in first:
            lived = self.buffers[number]
            self.buffers[number] = lived._replace(first=first[number], last=last[number])


def _port(name: str, value: Value, buffer: int) -> PlanPort:
    return PlanPort(name, value.dtype or "object", value.shape, buffer)

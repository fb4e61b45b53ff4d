"""The last part of lowering: pending steps, storages and programs become a plan, by numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from clinfer.errors import UnsupportedError
from clinfer.graph.custom_step import FunctionOp
from clinfer.graph.ir import Node, Value
from clinfer.graph.late import in_shapes
from clinfer.graph.node_protos import kinds_inside
from clinfer.graph.reference import HostOp
from clinfer.lowering.content import Content, Draft
from clinfer.lowering.context import Lowering
from clinfer.lowering.in_place import keep_through_loops, taken_over
from clinfer.lowering.pending import (
    PendingAgain,
    PendingBlock,
    PendingBranch,
    PendingHost,
    PendingLaunch,
    PendingLoop,
    PendingSizes,
)
from clinfer.lowering.plan import (
    AgainStep,
    Block,
    BranchStep,
    Buffer,
    Check,
    Constraint,
    HostStep,
    HostValue,
    LaunchStep,
    LoopStep,
    Part,
    Plan,
    PlanArg,
    PlanPort,
    Program,
    SizesStep,
    Step,
    touched,
)
from clinfer.lowering.storage import Storage, View
from clinfer_kernels.dims import symbols
from clinfer_kernels.spec import Arg


@dataclass
class Assembler:
    """Numbers storages and programs and writes the steps down."""

    ctx: Lowering
    buffers: list[Buffer] = field(default_factory=list)
    contents: list[Content] = field(default_factory=list)
    programs: dict[tuple[str, str], int] = field(default_factory=dict)
    program_list: list[Program] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)
    _status: Storage = field(default_factory=lambda: Storage("status", "int64", 0))
    _numbers: dict[Storage, int] = field(default_factory=dict)
    _loops: dict[int, int] = field(default_factory=dict)  # the step of a pending loop
    _taken_over: Mapping[Storage, Storage] = field(default_factory=dict)

    def draft(self, inputs: Sequence[Storage], outputs: Sequence[Storage]) -> Draft:
        graph = self.ctx.graph
        self._taken_over = taken_over(self.ctx.steps)
        in_numbers = [self._number(s) for s in inputs]
        starts: list[int] = []
        for pending in self.ctx.steps:
            starts.append(len(self.steps))
            if isinstance(pending, PendingLaunch):
                self._launches(pending)
            else:
                self.steps.append(self._STEPS[type(pending)](self, pending))
        self._place_blocks([*starts, len(self.steps)])
        self._name_inner()
        out_numbers = [self._number(s) for s in outputs]
        if self._status in self._numbers:
            number = self._numbers[self._status]
            self.buffers[number] = self.buffers[number]._replace(size=1 + len(self.checks))
        self._lifetimes()
        names = graph.output_names or [v.name for v in graph.outputs]
        proofs = self.ctx.proofs
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
            (*(Constraint(*c) for c in graph.constraints), *proofs.constraints),
            dict(graph.metadata),
            proofs.reaches,
            tuple(self.checks),
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
        groups["status"] = (self._status,)
        slot = 1 + len(self.checks)
        self.checks += pending.checks
        has_flops = any(launch.flops != 0 for launch in kernel.launches)
        for launch in kernel.launches:
            args = tuple(self._arg(arg, groups, slot) for arg in launch.args)
            program = self._program(
                Program(launch.entry, launch.source, launch.options, launch.local_size)
            )
            is_last = launch is kernel.launches[-1]
            self.steps.append(
                LaunchStep(
                    program,
                    args,
                    launch.global_size,
                    launch.local_size,
                    pending.label,
                    launch.flops if has_flops or not is_last else kernel.flops,
                    problem=kernel.problem,
                    when=launch.when,
                )
            )

    def _arg(self, arg: Arg, groups: dict[str, tuple[Storage, ...]], slot: int) -> PlanArg:
        if arg.kind in groups:
            return PlanArg("buffer", self._number(groups[arg.kind][arg.index]))
        if arg.kind == "slot":
            return PlanArg("scalar", value=slot)
        return PlanArg(arg.kind, value=arg.value, ctype=arg.ctype)

    def _program(self, program: Program) -> int:
        key = (program.source, program.options)
        if key not in self.programs:
            self.programs[key] = len(self.program_list)
            self.program_list.append(program)
        return self.programs[key]

    def _host(self, pending: PendingHost) -> HostStep:
        return HostStep(
            self._host_op(pending.node),
            self._host_values(pending.inputs, pending.node.inputs),
            self._host_values(pending.outputs, pending.node.outputs),
            pending.node.describe(),
            pending.reason,
        )

    def _host_op(self, node: Node) -> Any:
        custom = self.ctx.graph.custom
        if node.kind in custom:
            return FunctionOp.from_node(node, custom[node.kind]).to_json()
        if custom and node.proto is not None:
            used = sorted(custom[kind].name for kind in kinds_inside(node) & custom.keys())
            if used:
                raise UnsupportedError(
                    f"{node.describe()}: its subgraph has {used[0]}, an operator of add_extension, "
                    "and runs on the host, where only ONNX's operators run; take it out of the "
                    "subgraph, or make it an OnnxFunction"
                )
        return HostOp.from_node(node, self.ctx.graph.opsets).to_json()

    def _branch(self, pending: PendingBranch) -> BranchStep:
        condition = self._host_value(pending.condition, None)
        assert condition is not None
        return BranchStep(condition, tuple(map(_block, pending.blocks)), pending.label)

    def _loop(self, pending: PendingLoop) -> LoopStep:
        self._loops[id(pending)] = len(self.steps)
        number = self._number
        return LoopStep(
            self._scalar(pending.limit),
            self._scalar(pending.going),
            -1 if pending.counter is None else number(pending.counter),
            tuple((number(of), number(to)) for of, to in pending.states),
            tuple(Part(number(whole), number(row), back) for whole, row, back in pending.parts),
            tuple(map(number, pending.stacks)),
            pending.sizes,
            pending.gives,
            (),
            _block(pending.block),
            pending.needs,
            pending.label,
        )

    def _again(self, pending: PendingAgain) -> AgainStep:
        number = self._number
        return AgainStep(
            self._loops[id(pending.loop)],
            self._scalar(pending.goes_on),
            tuple((number(of), number(to)) for of, to in pending.moves),
            tuple(Part(number(whole), number(row), back) for whole, row, back in pending.rows),
            pending.sizes,
            pending.row_sizes,
            pending.label,
        )

    def _scalar(self, view: View | None) -> HostValue | None:
        return None if view is None else HostValue(self._number(view.storage), view.tensor)

    def _name_inner(self) -> None:
        """The symbols that only the steps of a loop's block give."""
        given = [_given(step) for step in self.steps]
        for number, step in enumerate(self.steps):
            if isinstance(step, LoopStep):
                inside = range(step.block.first, step.block.end)
                names = set().union(*(given[n] for n in inside))
                for other in range(number + 1):
                    names -= given[other]
                names -= in_shapes(self.ctx.graph.inputs)
                self.steps[number] = step._replace(inner=tuple(sorted(names)))

    def _sizes(self, pending: PendingSizes) -> SizesStep:
        values = tuple(HostValue(self._number(v.storage), v.tensor) for v in pending.values)
        return SizesStep(
            values,
            pending.names,
            pending.definitions,
            pending.gives,
            pending.checks,
            pending.constraints,
            pending.label,
        )

    _STEPS: ClassVar[Mapping[type, Callable[[Assembler, Any], Step]]] = {
        PendingHost: _host,
        PendingBranch: _branch,
        PendingLoop: _loop,
        PendingAgain: _again,
        PendingSizes: _sizes,
    }

    def _place_blocks(self, starts: Sequence[int]) -> None:
        """Blocks count steps from here on; `starts` maps pending steps to theirs."""
        for number, step in enumerate(self.steps):
            if isinstance(step, BranchStep):
                blocks = (b._replace(first=starts[b.first], end=starts[b.end]) for b in step.blocks)
                self.steps[number] = step._replace(blocks=tuple(blocks))
            elif isinstance(step, LoopStep):
                block = step.block
                placed = block._replace(first=starts[block.first], end=starts[block.end])
                self.steps[number] = step._replace(block=placed)

    def _host_values(
        self, places: Sequence[View | Storage | None], values: Sequence[Value | None]
    ) -> tuple[HostValue | None, ...]:
        return tuple(self._host_value(p, v) for p, v in zip(places, values, strict=True))

    def _host_value(self, place: View | Storage | None, value: Value | None) -> HostValue | None:
        if place is None:
            return None
        if isinstance(place, View):
            return HostValue(self._number(place.storage), place.tensor)
        return HostValue(self._number(place), None, None if value is None else value.shape)

    def _lifetimes(self) -> None:
        """A buffer lives from the first step that touches it to the last."""
        first: dict[int, int] = {}
        last: dict[int, int] = {}
        for index, step in enumerate(self.steps):
            for buffer in touched(step):
                first.setdefault(buffer, index)
                last[buffer] = index
        loops = ((n, s.block.end - 1) for n, s in enumerate(self.steps) if isinstance(s, LoopStep))
        keep_through_loops(loops, first, last)
        for number in first:
            lived = self.buffers[number]
            self.buffers[number] = lived._replace(first=first[number], last=last[number])


def _block(pending: PendingBlock) -> Block:
    return Block(
        pending.first,
        pending.end,
        pending.label,
        pending.constraints,
        pending.reaches,
        pending.error,
    )


def _given(step: Step) -> set[str]:
    """The symbols that a step may bind, with those of the inputs that its results have."""
    if isinstance(step, SizesStep):
        return set(step.gives)
    if isinstance(step, LoopStep):
        return {name for name, _ in (*step.sizes, *step.gives)}
    if isinstance(step, HostStep):
        shapes = (v.shape for v in step.outputs if v is not None and v.shape is not None)
        return {name for shape in shapes for dim in shape for name in symbols(dim)}
    return set()


def _port(name: str, value: Value, buffer: int) -> PlanPort:
    return PlanPort(name, value.dtype or "object", value.shape, buffer)

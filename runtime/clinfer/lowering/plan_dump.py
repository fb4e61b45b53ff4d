"""Writes the plan as JSON and one block of constants: what a blob stores.

`clinfer.lowering.plan_io` reads it back. A size is a number; a computed one is `[n]`, the n-th of
the document's `sizes`, where each is written once however often the plan has it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from clinfer.lowering.plan import (
    AgainStep,
    Array,
    Block,
    BranchStep,
    Buffer,
    Check,
    Constraint,
    HostValue,
    LaunchStep,
    LoopStep,
    Part,
    Plan,
    PlanArg,
    PlanPort,
    Reach,
    SizesStep,
    Step,
)
from clinfer.lowering.plan_io import PLAN_FORMAT, Json
from clinfer_kernels.dim_json import to_json
from clinfer_kernels.dims import Dim, Expr

ALIGNMENT = 512
"""Bytes: every constant begins at a multiple of it, as Intel's CPU runtime wants it in place."""


Place = tuple[int, int]
"""A file of the model, by its number, and an offset in it, in bytes."""


class Kept:
    """Constants as a document names them, and the bytes of those that are kept with it.

    Each is padded to a multiple of `ALIGNMENT` bytes; string constants go into the document, and
    where `place` says that one lies in a file of the model, only its place does.
    """

    def __init__(self, place: Callable[[Array], Place | None] = lambda _: None) -> None:
        self.chunks: list[Array] = []
        self.nbytes = 0
        self._place = place

    def add(self, array: Array) -> Json:
        """One more constant."""
        if array.dtype.kind in "OUS":
            return ["text", [_text(x) for x in array.reshape(-1)], list(array.shape)]
        found = self._place(array)
        if found is not None and array.flags.c_contiguous:
            return ["file", array.dtype.name, list(array.shape), *found, array.nbytes]
        if found is not None:
            return ["window", array.dtype.name, list(array.shape), list(array.strides), *found]
        raw = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        padded = -(-raw.size // ALIGNMENT) * ALIGNMENT
        self.chunks.append(raw)
        if padded != raw.size:
            self.chunks.append(np.zeros(padded - raw.size, np.uint8))
        self.nbytes += padded
        return [array.dtype.name, list(array.shape), self.nbytes - padded, raw.size]


def dump(
    plan: Plan, place: Callable[[Array], Place | None] = lambda _: None
) -> tuple[bytes, list[Array]]:
    """The plan's JSON and its constants as byte arrays to be written one after another."""
    kept = Kept(place)
    constants = [kept.add(array) for array in plan.constants]
    return document(plan, constants), kept.chunks


def document(plan: Plan, constants: Sequence[Json]) -> bytes:
    """The plan's JSON, with its constants as given."""
    writer = _Writer()
    parts = {
        "format": PLAN_FORMAT,
        "inputs": [writer.port(p) for p in plan.inputs],
        "outputs": [writer.port(p) for p in plan.outputs],
        "buffers": [writer.buffer(b) for b in plan.buffers],
        "programs": [[p.entry, p.source, p.options, list(p.local_size)] for p in plan.programs],
        "steps": [writer.step(s) for s in plan.steps],
        "constants": constants,
        "constraints": [writer.constraint(c) for c in plan.constraints],
        "reaches": [writer.reach(r) for r in plan.reaches],
        "checks": [writer.check(c) for c in plan.checks],
        "metadata": dict(plan.metadata),
        "sizes": [to_json(size) for size in writer.sizes],
    }
    return json.dumps(parts, separators=(",", ":")).encode()


class _Writer:
    """The parts of a plan as JSON; `sizes` are the computed ones met so far, numbered in order."""

    def __init__(self) -> None:
        self.sizes: dict[Expr, int] = {}

    def size(self, dim: Dim) -> Json:
        if isinstance(dim, int):
            return dim
        return [self.sizes.setdefault(dim, len(self.sizes))]

    def shape(self, dims: Iterable[Dim]) -> list[Json]:
        return [self.size(d) for d in dims]

    def port(self, port: PlanPort) -> Json:
        shape = None if port.shape is None else self.shape(port.shape)
        return [port.name, port.dtype, shape, port.buffer]

    def buffer(self, buffer: Buffer) -> Json:
        return [
            buffer.kind,
            buffer.dtype,
            self.size(buffer.size),
            buffer.constant,
            self.shape(buffer.content),
            buffer.first,
            buffer.last,
        ]

    def step(self, step: Step) -> Json:
        if isinstance(step, LaunchStep):
            return [
                "launch",
                step.program,
                [self.arg(a) for a in step.args],
                self.shape(step.global_size),
                list(step.local_size),
                step.label,
                self.size(step.flops),
                self.size(step.when),
            ]
        if isinstance(step, BranchStep):
            blocks = [self.block(b) for b in step.blocks]
            return ["branch", self.host_value(step.condition), blocks, step.label]
        if isinstance(step, LoopStep):
            return [
                "loop",
                self.host_value(step.limit),
                self.host_value(step.going),
                step.counter,
                [list(pair) for pair in step.states],
                [self.part(part) for part in step.parts],
                list(step.stacks),
                self.named(step.sizes),
                [list(pair) for pair in step.gives],
                list(step.inner),
                self.block(step.block),
                step.needs,
                step.label,
            ]
        if isinstance(step, AgainStep):
            return [
                "again",
                step.loop,
                self.host_value(step.goes_on),
                [list(pair) for pair in step.moves],
                [self.part(part) for part in step.rows],
                self.named(step.sizes),
                self.named(step.row_sizes),
                step.label,
            ]
        if isinstance(step, SizesStep):
            return [
                "sizes",
                [self.host_value(v) for v in step.values],
                list(step.names),
                self.named(step.definitions),
                list(step.gives),
                [[name, *self.check(check)] for name, check in step.checks],
                [self.constraint(c) for c in step.constraints],
                step.label,
            ]
        return [
            "host",
            dict(step.op),
            [self.host_value(v) for v in step.inputs],
            [self.host_value(v) for v in step.outputs],
            step.label,
            step.reason,
        ]

    def named(self, pairs: Iterable[tuple[str, Dim]]) -> Json:
        return [[name, self.size(dim)] for name, dim in pairs]

    def part(self, part: Part) -> Json:
        return [part.whole, part.row, int(part.is_reversed)]

    def block(self, block: Block) -> Json:
        constraints = [self.constraint(c) for c in block.constraints]
        reaches = [self.reach(r) for r in block.reaches]
        return [block.first, block.end, block.label, constraints, reaches, block.error]

    def constraint(self, constraint: Constraint) -> Json:
        left, right = self.size(constraint.left), self.size(constraint.right)
        return [left, right, constraint.message, constraint.relation]

    def check(self, check: Check) -> Json:
        return [check.what, self.size(check.low), self.size(check.high)]

    def reach(self, reach: Reach) -> Json:
        shape, strides = self.shape(reach.shape), self.shape(reach.strides)
        offset = self.size(reach.offset)
        return [self.size(reach.size), shape, strides, offset, reach.label, int(reach.is_counted)]

    def arg(self, arg: PlanArg) -> Json:
        if arg.kind == "buffer":
            return arg.buffer
        return [arg.kind, self.size(arg.value), arg.ctype]

    def host_value(self, value: HostValue | None) -> Json:
        if value is None:
            return None
        if value.tensor is None:
            sizes = None if value.object_shape is None else self.shape(value.object_shape)
            return [value.buffer, None, sizes]
        tensor = value.tensor
        shape, strides = self.shape(tensor.shape), self.shape(tensor.strides)
        return [value.buffer, [tensor.dtype, shape, strides, self.size(tensor.offset)], None]


def _text(value: Any) -> str:
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else str(value)

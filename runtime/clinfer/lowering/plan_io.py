"""Reads back the plan that a blob stores (`clinfer.lowering.plan_dump`), without executing any.

Nothing in it is code: sizes are numbers or expressions as nested lists; sources are OpenCL C text
that only an OpenCL compiler ever sees. A reader raises `BlobError` for anything of another form.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from math import prod
from typing import Any, TypeVar

import numpy as np

from clinfer import dtypes
from clinfer.errors import BlobError
from clinfer.lowering.plan import (
    AgainStep,
    Array,
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
    Reach,
    SizesStep,
    Step,
    absent,
    touched,
)
from clinfer_kernels.dim_json import from_json
from clinfer_kernels.dims import RELATIONS, Dim
from clinfer_kernels.spec import Tensor

PLAN_FORMAT = 9
_MOST_NESTED = 64  # blocks in one another; a model's are far fewer
# What JSON of another form than `dump` makes can raise; OverflowError is an infinity for a number.
_UNREADABLE = (
    KeyError,
    ValueError,
    TypeError,
    IndexError,
    AttributeError,
    OverflowError,
    RecursionError,
)

Json = Any
T = TypeVar("T")


Files = Callable[[int], "Array | None"]
"""Gives the bytes of a file of the model by its number; None where they are not wanted now."""


def no_files(number: int) -> Array | None:
    """The `Files` of what has to hold all of its constants itself."""
    raise BlobError(f"a constant lies in file {number} of a model, which is not at hand")


def load(text: bytes | memoryview, weights: memoryview, files: Files = no_files) -> Plan:
    """The plan back from `dump`; constants are windows on `weights` or `files`, not copies.

    Raises `BlobError` naming the part that is not as it should be, and what `files` raises.
    """
    plan = read(text, lambda value: constant(value, weights, files))
    check(plan)
    return plan


def read(text: bytes | memoryview, constant: Callable[[Json], Any]) -> Plan:
    """The plan of a document, `constant` reading its constants; what it names is not checked."""
    try:
        document = json.loads(bytes(text))
        if document["format"] != PLAN_FORMAT:
            raise BlobError(
                f"the plan has format {document['format']}, this version reads {PLAN_FORMAT}"
            )
        return _Reader(document["sizes"]).plan(document, constant)
    except BlobError:
        raise
    except _UNREADABLE as error:
        raise BlobError(f"the plan is not readable: {error!r}") from error


class _Reader:
    """The parts of a plan from JSON, where `[n]` is the n-th of the computed sizes.

    A size or argument that recurs is one object, so that binding finds its value at once.
    """

    def __init__(self, sizes: Json) -> None:
        self._sizes = [from_json(size) for size in sizes]
        self._args: dict[tuple[Any, ...], PlanArg] = {}

    def plan(self, document: Json, constant: Callable[[Json], Any]) -> Plan:
        return Plan(
            tuple(self.port(p) for p in document["inputs"]),
            tuple(self.port(p) for p in document["outputs"]),
            tuple(self.buffer(b) for b in document["buffers"]),
            tuple(
                Program(str(e), str(s), str(o), tuple(int(n) for n in size))
                for e, s, o, size in document["programs"]
            ),
            tuple(self.step(s) for s in document["steps"]),
            tuple(constant(c) for c in document["constants"]),
            tuple(self.constraint(c) for c in document["constraints"]),
            {str(k): str(v) for k, v in document["metadata"].items()},
            tuple([self.reach(r) for r in document["reaches"]]),
            tuple(self.check(c) for c in document["checks"]),
        )

    def size(self, value: Json) -> Dim:
        if type(value) is int:
            return value
        (number,) = value
        if type(number) is not int or number < 0:
            raise BlobError(f"not the number of a size: {number!r}")
        return self._sizes[number]

    def shape(self, value: Json) -> tuple[Dim, ...]:
        return tuple([d if type(d) is int else self.size(d) for d in value])

    def constraint(self, value: Json) -> Constraint:
        left, right, message, relation = value
        if relation not in RELATIONS:
            raise BlobError(f"unknown relation of sizes: {relation!r}")
        return Constraint(self.size(left), self.size(right), str(message), relation)

    def check(self, value: Json) -> Check:
        what, low, high = value
        return Check(str(what), self.size(low), self.size(high))

    def reach(self, value: Json) -> Reach:
        size, shape, strides, offset, label, is_counted = value
        if len(shape) != len(strides):
            raise BlobError(f"a view of {len(shape)} sizes and {len(strides)} strides")
        return Reach(
            self.size(size),
            self.shape(shape),
            self.shape(strides),
            self.size(offset),
            str(label),
            bool(is_counted),
        )

    def port(self, value: Json) -> PlanPort:
        name, dtype, shape, buffer = value
        return PlanPort(str(name), str(dtype), _optional(shape, self.shape), int(buffer))

    def buffer(self, value: Json) -> Buffer:
        kind, dtype, size, constant, content, first, last = value
        if kind not in ("input", "output", "temp", "const", "sizes", "host", "status"):
            raise BlobError(f"unknown kind of buffer: {kind!r}")
        if kind != "host" and dtype not in dtypes.DEVICE_DTYPES:
            raise BlobError(f"unknown element type: {dtype!r}")
        return Buffer(
            kind,
            dtype,
            self.size(size),
            int(constant),
            self.shape(content),
            int(first),
            int(last),
        )

    def step(self, value: Json) -> Step:
        if value[0] == "launch":
            _, program, args, shape, group, label, flops, when = value
            return LaunchStep(
                int(program),
                tuple([self.arg(a) for a in args]),
                self.shape(shape),
                tuple([int(n) for n in group]),
                str(label),
                self.size(flops),
                when=self.size(when),
            )
        if value[0] == "host":
            _, op, inputs, outputs, label, reason = value
            return HostStep(
                dict(op),
                tuple(_optional(v, self.host_value) for v in inputs),
                tuple(_optional(v, self.host_value) for v in outputs),
                str(label),
                str(reason),
            )
        if value[0] == "branch":
            _, condition, blocks, label = value
            return BranchStep(
                self.host_value(condition), tuple(self.block(b) for b in blocks), str(label)
            )
        if value[0] == "loop":
            return self.loop(value)
        if value[0] == "again":
            _, loop, goes_on, moves, rows, sizes, row_sizes, label = value
            return AgainStep(
                int(loop),
                _optional(goes_on, self.host_value),
                _pairs(moves),
                tuple(map(_part, rows)),
                self.named(sizes),
                self.named(row_sizes),
                str(label),
            )
        if value[0] == "sizes":
            _, values, names, definitions, gives, checks, constraints, label = value
            return SizesStep(
                tuple(self.host_value(v) for v in values),
                tuple(map(str, names)),
                self.named(definitions),
                tuple(map(str, gives)),
                tuple((str(name), self.check(check)) for name, *check in checks),
                tuple(self.constraint(c) for c in constraints),
                str(label),
            )
        raise BlobError(f"unknown kind of step: {value[0]!r}")

    def loop(self, value: Json) -> LoopStep:
        _, limit, going, counter, states, parts, stacks, sizes, gives, inner, block, *texts = value
        needs, label = texts
        return LoopStep(
            _optional(limit, self.host_value),
            _optional(going, self.host_value),
            int(counter),
            _pairs(states),
            tuple(map(_part, parts)),
            tuple(map(int, stacks)),
            self.named(sizes),
            tuple((str(name), int(none)) for name, none in gives),
            tuple(map(str, inner)),
            self.block(block),
            str(needs),
            str(label),
        )

    def named(self, value: Json) -> tuple[tuple[str, Dim], ...]:
        return tuple((str(name), self.size(dim)) for name, dim in value)

    def block(self, value: Json) -> Block:
        first, end, label, constraints, reaches, error = value
        return Block(
            int(first),
            int(end),
            str(label),
            tuple(self.constraint(c) for c in constraints),
            tuple(self.reach(r) for r in reaches),
            str(error),
        )

    def arg(self, value: Json) -> PlanArg:
        if type(value) is int:
            key: tuple[Any, ...] = (value,)
        else:
            kind, size, ctype = value
            key = (kind, size, ctype) if type(size) is int else (kind, *size, None, ctype)
        found = self._args.get(key)
        if found is None:
            found = self._args[key] = self._new_arg(value)
        return found

    def _new_arg(self, value: Json) -> PlanArg:
        if type(value) is int:
            return PlanArg("buffer", value)
        kind, size, ctype = value
        if kind not in ("scalar", "local") or ctype not in ("int", "long", "float", "uint"):
            raise BlobError(f"unknown argument: {[kind, size, ctype]!r}")
        return PlanArg(kind, value=self.size(size), ctype=ctype)

    def host_value(self, value: Json) -> HostValue:
        buffer, view, sizes = value
        if view is None:
            return HostValue(int(buffer), None, _optional(sizes, self.shape))
        dtype, shape, strides, offset = view
        tensor = Tensor(str(dtype), self.shape(shape), self.shape(strides), self.size(offset))
        return HostValue(int(buffer), tensor)


def check(plan: Plan) -> None:
    """Every index is in range, so that a damaged plan cannot reach a driver."""
    for number, buffer in enumerate(plan.buffers):
        if not -1 <= buffer.constant < len(plan.constants):
            raise BlobError(f"buffer {number} names constant {buffer.constant}, which is not there")
        if buffer.kind == "const" and buffer.constant < 0:
            raise BlobError(f"buffer {number} is a constant without content")
        if buffer.kind == "const" and plan.constants[buffer.constant].size != buffer.size:
            raise BlobError(f"buffer {number} has another size than its constant")
    if plan.status is not None and plan.buffers[plan.status].size != len(plan.checks) + 1:
        raise BlobError("the buffer of reports does not have a word for each check")
    count = len(plan.buffers)
    named: list[int] = [p.buffer for p in (*plan.inputs, *plan.outputs)]
    for step in plan.steps:
        named += touched(step)
        if isinstance(step, LaunchStep) and not 0 <= step.program < len(plan.programs):
            raise BlobError(f"step '{step.label}' names program {step.program}")
    if any(not 0 <= n < count for n in named):
        raise BlobError("a step names a buffer that is not there")
    _check_blocks(plan, 0, len(plan.steps))


def _check_blocks(plan: Plan, first: int, end: int, depth: int = 0) -> None:
    """The two blocks of a branch lie behind it, one after the other, among the steps given."""
    number = first
    while number < end:
        step = plan.steps[number]
        number += 1
        if isinstance(step, BranchStep):
            if depth > _MOST_NESTED or len(step.blocks) != 2 or step.condition.tensor is None:
                raise BlobError(f"step '{step.label}' is no choice of two blocks")
            for block in step.blocks:
                if block.first != number or not number <= block.end <= end:
                    raise BlobError(f"the steps of {block.label} are not those behind it")
                _check_blocks(plan, block.first, block.end, depth + 1)
                number = block.end
        elif isinstance(step, LoopStep):
            _check_loop(plan, step, number - 1, end, depth)
            number = step.block.end


def _check_loop(plan: Plan, step: LoopStep, number: int, end: int, depth: int) -> None:
    """A loop's block lies behind it and ends with the step that says whether it goes on."""
    first, last = step.block.first, step.block.end - 1
    again = plan.steps[last] if number < last < end else None
    scalars = (step.limit, step.going)
    if (
        depth > _MOST_NESTED
        or first != number + 1
        or not isinstance(again, AgainStep)
        or again.loop != number
        or any(v is not None and v.tensor is None for v in (*scalars, again.goes_on))
        or (step.limit is None and any(p.is_reversed for p in (*step.parts, *again.rows)))
    ):
        raise BlobError(f"step '{step.label}' is no loop over the steps behind it")
    _check_blocks(plan, first, last, depth + 1)


def constant(value: Json, weights: memoryview, files: Files) -> Array:
    """A constant that `plan_dump.Kept` named. Raises `BlobError`, and what `files` raises."""
    if value[0] == "text":
        return np.array(value[1], dtype=object).reshape([int(n) for n in value[2]])
    if value[0] == "file":
        return _constant_in_file(value, files)
    if value[0] == "window":
        return _window(value, files)
    name, shape, offset, size = value
    if not 0 <= offset <= offset + size <= len(weights):
        raise BlobError(f"a constant lies outside the weights: {offset} + {size}")
    flat = np.frombuffer(weights, np.uint8, count=size, offset=offset)
    return flat.view(dtypes.to_numpy(name)).reshape([int(n) for n in shape])


def _constant_in_file(value: Json, files: Files) -> Array:
    _, name, shape, number, offset, size = value
    sizes = [int(n) for n in shape]
    dtype = np.dtype(dtypes.to_numpy(name))
    if (
        any(type(n) is not int or n < 0 for n in (number, offset, size))
        or min(sizes, default=0) < 0
    ):
        raise BlobError(f"no place in a file: {[number, offset, size]!r} of shape {sizes}")
    if prod(sizes) * dtype.itemsize != size:
        raise BlobError(f"{size} bytes of a file for {sizes} elements of {name}")
    content = files(number)
    if content is None:
        return absent(dtype, sizes)
    if offset + size > len(content):
        raise BlobError(f"a constant lies outside file {number}: {offset} + {size}")
    return content[offset : offset + size].view(dtype).reshape(sizes)


def _window(value: Json, files: Files) -> Array:
    """What lies in a file with gaps or in another order; numpy checks that it is inside."""
    _, name, shape, strides, number, offset = value
    dtype = np.dtype(dtypes.to_numpy(name))
    if any(type(n) is not int or n < 0 for n in (*shape, *strides, number, offset)):
        raise BlobError(f"no place in a file: {[number, offset]!r} of {shape!r}, {strides!r}")
    content = files(number)
    if content is None:
        return absent(dtype, shape)
    found: Array = np.ndarray(shape, dtype, content, offset, strides)
    return found


def _pairs(value: Json) -> tuple[tuple[int, int], ...]:
    return tuple((int(of), int(to)) for of, to in value)


def _part(value: Json) -> Part:
    whole, row, is_reversed = value
    return Part(int(whole), int(row), bool(is_reversed))


def _optional(value: Json, read: Callable[[Json], T]) -> T | None:
    return None if value is None else read(value)

"""Reads back the plan that a blob stores (`clinfer.lowering.plan_dump`), without executing any.

Nothing in it is code: sizes are numbers or expressions as nested lists; sources are OpenCL C text
that only an OpenCL compiler ever sees. A reader raises `BlobError` for anything of another form.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from clinfer import dtypes
from clinfer.errors import BlobError
from clinfer.lowering.plan import (
    Array,
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
)
from clinfer_kernels.dims import Dim, from_json
from clinfer_kernels.spec import Tensor

PLAN_FORMAT = 2
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


def load(text: bytes | memoryview, weights: memoryview) -> Plan:
    """The plan back from `dump`; constants are windows on `weights`, not copies.

    Raises `BlobError` naming the part that is not as it should be.
    """
    try:
        document = json.loads(bytes(text))
        if document["format"] != PLAN_FORMAT:
            raise BlobError(
                f"the plan has format {document['format']}, this version reads {PLAN_FORMAT}"
            )
        plan = _Reader(document["sizes"]).plan(document, weights)
    except BlobError:
        raise
    except _UNREADABLE as error:
        raise BlobError(f"the plan is not readable: {error!r}") from error
    _check(plan)
    return plan


class _Reader:
    """The parts of a plan from JSON, where `[n]` is the n-th of the computed sizes.

    A size or argument that recurs is one object, so that binding finds its value at once.
    """

    def __init__(self, sizes: Json) -> None:
        self._sizes = [from_json(size) for size in sizes]
        self._args: dict[tuple[Any, ...], PlanArg] = {}

    def plan(self, document: Json, weights: memoryview) -> Plan:
        return Plan(
            tuple(self.port(p) for p in document["inputs"]),
            tuple(self.port(p) for p in document["outputs"]),
            tuple(self.buffer(b) for b in document["buffers"]),
            tuple(
                Program(str(e), str(s), str(o), tuple(int(n) for n in size))
                for e, s, o, size in document["programs"]
            ),
            tuple(self.step(s) for s in document["steps"]),
            tuple(_constant(c, weights) for c in document["constants"]),
            tuple(
                Constraint(self.size(a), self.size(b), str(m))
                for a, b, m in document["constraints"]
            ),
            {str(k): str(v) for k, v in document["metadata"].items()},
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

    def port(self, value: Json) -> PlanPort:
        name, dtype, shape, buffer = value
        return PlanPort(str(name), str(dtype), _optional(shape, self.shape), int(buffer))

    def buffer(self, value: Json) -> Buffer:
        kind, dtype, size, constant, content, first, last = value
        if kind not in ("input", "output", "temp", "const", "sizes", "host"):
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
            _, program, args, shape, group, label, flops = value
            return LaunchStep(
                int(program),
                tuple([self.arg(a) for a in args]),
                self.shape(shape),
                tuple([int(n) for n in group]),
                str(label),
                self.size(flops),
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
        raise BlobError(f"unknown kind of step: {value[0]!r}")

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
        buffer, view = value
        if view is None:
            return HostValue(int(buffer), None)
        dtype, shape, strides, offset = view
        tensor = Tensor(str(dtype), self.shape(shape), self.shape(strides), self.size(offset))
        return HostValue(int(buffer), tensor)


def _check(plan: Plan) -> None:
    """Every index is in range, so that a damaged plan cannot reach a driver."""
    for number, buffer in enumerate(plan.buffers):
        if not -1 <= buffer.constant < len(plan.constants):
            raise BlobError(f"buffer {number} names constant {buffer.constant}, which is not there")
        if buffer.kind == "const" and buffer.constant < 0:
            raise BlobError(f"buffer {number} is a constant without content")
    count = len(plan.buffers)
    named: list[int] = [p.buffer for p in (*plan.inputs, *plan.outputs)]
    for step in plan.steps:
        if isinstance(step, LaunchStep):
            if not 0 <= step.program < len(plan.programs):
                raise BlobError(f"step '{step.label}' names program {step.program}")
            named += [a.buffer for a in step.args if a.kind == "buffer"]
        else:
            named += [v.buffer for v in (*step.inputs, *step.outputs) if v is not None]
    if any(not 0 <= n < count for n in named):
        raise BlobError("a step names a buffer that is not there")


def _constant(value: Json, weights: memoryview) -> Array:
    if value[0] == "text":
        return np.array(value[1], dtype=object).reshape([int(n) for n in value[2]])
    name, shape, offset, size = value
    if not 0 <= offset <= offset + size <= len(weights):
        raise BlobError(f"a constant lies outside the weights: {offset} + {size}")
    flat = np.frombuffer(weights, np.uint8, count=size, offset=offset)
    return flat.view(dtypes.to_numpy(name)).reshape([int(n) for n in shape])


def _optional(value: Json, read: Callable[[Json], T]) -> T | None:
    return None if value is None else read(value)

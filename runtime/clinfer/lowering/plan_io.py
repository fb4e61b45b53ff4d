"""The plan as JSON and one block of constants: what a blob stores, and reads back unexecuted.

Nothing in it is code: sizes are numbers, names and nested lists; sources are OpenCL C text that
only an OpenCL compiler ever sees. A reader raises `BlobError` for anything of another form.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
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
from clinfer_kernels.dims import from_json, to_json
from clinfer_kernels.spec import Tensor

PLAN_FORMAT = 1
ALIGNMENT = 512
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


def dump(plan: Plan) -> tuple[bytes, list[Array]]:
    """The plan's JSON and its constants as byte arrays to be written one after another.

    Each constant is padded to a multiple of `ALIGNMENT` bytes; string constants go into the JSON.
    """
    chunks: list[Array] = []
    constants: list[Json] = []
    offset = 0
    for array in plan.constants:
        if array.dtype.kind in "OUS":
            constants.append(["text", [_text(x) for x in array.reshape(-1)], list(array.shape)])
            continue
        raw = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        padded = -(-raw.size // ALIGNMENT) * ALIGNMENT
        constants.append([array.dtype.name, list(array.shape), offset, raw.size])
        chunks.append(raw)
        if padded != raw.size:
            chunks.append(np.zeros(padded - raw.size, np.uint8))
        offset += padded
    document = {
        "format": PLAN_FORMAT,
        "inputs": [_port(p) for p in plan.inputs],
        "outputs": [_port(p) for p in plan.outputs],
        "buffers": [_buffer(b) for b in plan.buffers],
        "programs": [[p.entry, p.source, p.options, list(p.local_size)] for p in plan.programs],
        "steps": [_step(s) for s in plan.steps],
        "constants": constants,
        "constraints": [[to_json(c.left), to_json(c.right), c.message] for c in plan.constraints],
        "metadata": dict(plan.metadata),
    }
    return json.dumps(document, separators=(",", ":")).encode(), chunks


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
        plan = _plan(document, weights)
    except BlobError:
        raise
    except _UNREADABLE as error:
        raise BlobError(f"the plan is not readable: {error!r}") from error
    _check(plan)
    return plan


def _plan(document: Json, weights: memoryview) -> Plan:
    return Plan(
        tuple(_read_port(p) for p in document["inputs"]),
        tuple(_read_port(p) for p in document["outputs"]),
        tuple(_read_buffer(b) for b in document["buffers"]),
        tuple(
            Program(str(e), str(s), str(o), tuple(int(n) for n in size))
            for e, s, o, size in document["programs"]
        ),
        tuple(_read_step(s) for s in document["steps"]),
        tuple(_read_constant(c, weights) for c in document["constants"]),
        tuple(
            Constraint(from_json(a), from_json(b), str(m)) for a, b, m in document["constraints"]
        ),
        {str(k): str(v) for k, v in document["metadata"].items()},
    )


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


def _text(value: Any) -> str:
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else str(value)


def _dims(dims: Iterable[Any]) -> list[Json]:
    return [to_json(d) for d in dims]


def _read_dims(value: Json) -> tuple[Any, ...]:
    return tuple(d if type(d) is int else from_json(d) for d in value)


def _port(port: PlanPort) -> Json:
    shape = None if port.shape is None else _dims(port.shape)
    return [port.name, port.dtype, shape, port.buffer]


def _read_port(value: Json) -> PlanPort:
    name, dtype, shape, buffer = value
    return PlanPort(str(name), str(dtype), _optional(shape, _read_dims), int(buffer))


def _buffer(buffer: Buffer) -> Json:
    return [
        buffer.kind,
        buffer.dtype,
        to_json(buffer.size),
        buffer.constant,
        _dims(buffer.content),
        buffer.first,
        buffer.last,
    ]


def _read_buffer(value: Json) -> Buffer:
    kind, dtype, size, constant, content, first, last = value
    if kind not in ("input", "output", "temp", "const", "sizes", "host"):
        raise BlobError(f"unknown kind of buffer: {kind!r}")
    if kind != "host" and dtype not in dtypes.DEVICE_DTYPES:
        raise BlobError(f"unknown element type: {dtype!r}")
    return Buffer(
        kind, dtype, from_json(size), int(constant), _read_dims(content), int(first), int(last)
    )


def _step(step: Step) -> Json:
    if isinstance(step, LaunchStep):
        return [
            "launch",
            step.program,
            [_arg(a) for a in step.args],
            _dims(step.global_size),
            list(step.local_size),
            step.label,
            to_json(step.flops),
        ]
    return [
        "host",
        dict(step.op),
        [_host_value(v) for v in step.inputs],
        [_host_value(v) for v in step.outputs],
        step.label,
        step.reason,
    ]


def _arg(arg: PlanArg) -> Json:
    if arg.kind == "buffer":
        return arg.buffer
    return [arg.kind, to_json(arg.value), arg.ctype]


def _read_arg(value: Json) -> PlanArg:
    if isinstance(value, int):
        return _buffer_arg(value)
    kind, size, ctype = value
    return _number_arg(kind, size, ctype) if type(size) is int else _new_arg(kind, size, ctype)


@lru_cache(maxsize=4096)
def _buffer_arg(number: int) -> PlanArg:
    return PlanArg("buffer", number)


@lru_cache(maxsize=4096)
def _number_arg(kind: str, size: int, ctype: str) -> PlanArg:
    """Sizes recur: the same argument is the same object."""
    return _new_arg(kind, size, ctype)


def _new_arg(kind: str, size: Json, ctype: str) -> PlanArg:
    if kind not in ("scalar", "local") or ctype not in ("int", "long", "float", "uint"):
        raise BlobError(f"unknown argument: {[kind, size, ctype]!r}")
    return PlanArg(kind, value=from_json(size), ctype=ctype)


def _read_step(value: Json) -> Step:
    if value[0] == "launch":
        _, program, args, shape, group, label, flops = value
        return LaunchStep(
            int(program),
            tuple(_read_arg(a) for a in args),
            _read_dims(shape),
            tuple(int(n) for n in group),
            str(label),
            from_json(flops),
        )
    if value[0] == "host":
        _, op, inputs, outputs, label, reason = value
        return HostStep(
            dict(op),
            tuple(_optional(v, _read_host_value) for v in inputs),
            tuple(_optional(v, _read_host_value) for v in outputs),
            str(label),
            str(reason),
        )
    raise BlobError(f"unknown kind of step: {value[0]!r}")


def _host_value(value: HostValue | None) -> Json:
    if value is None:
        return None
    if value.tensor is None:
        return [value.buffer, None]
    tensor = value.tensor
    view = [tensor.dtype, _dims(tensor.shape), _dims(tensor.strides), to_json(tensor.offset)]
    return [value.buffer, view]


def _read_host_value(value: Json) -> HostValue:
    buffer, view = value
    if view is None:
        return HostValue(int(buffer), None)
    dtype, shape, strides, offset = view
    tensor = Tensor(str(dtype), _read_dims(shape), _read_dims(strides), from_json(offset))
    return HostValue(int(buffer), tensor)


def _read_constant(value: Json, weights: memoryview) -> Array:
    if value[0] == "text":
        return np.array(value[1], dtype=object).reshape([int(n) for n in value[2]])
    name, shape, offset, size = value
    if not 0 <= offset <= offset + size <= len(weights):
        raise BlobError(f"a constant lies outside the weights: {offset} + {size}")
    flat = np.frombuffer(weights, np.uint8, count=size, offset=offset)
    return flat.view(dtypes.to_numpy(name)).reshape([int(n) for n in shape])


def _optional(value: Json, read: Callable[[Json], T]) -> T | None:
    return None if value is None else read(value)


def total_bytes(chunks: Sequence[Array]) -> int:
    """Bytes of the weights section."""
    return sum(int(c.size) for c in chunks)

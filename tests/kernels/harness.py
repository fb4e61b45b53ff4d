"""Runs what a kernel family emits on a real OpenCL device, and compares it with a reference.

`run_kernel(kernel, ins, outs, symbols)` launches a `Kernel` on NumPy buffers:

    ins      the buffers behind `spec.ins`, one array each; views are described by the spec
    outs     (shape, dtype name) of the buffers behind `spec.outs`, or arrays with initial content
    symbols  the values of the symbols in dims

What a launcher has to do, and this one does:

- a launch whose `when`, or whose global size in any dimension, is 0 (empty tensors), is skipped; a
  kernel that must write something for an empty input (the identity of a reduction) has a size
  above 0;
- "scratch" buffers keep their content between the launches of one kernel, and hold garbage before;
- a `Pack` replaces the input it names, once; the scalar arguments of the kernel fit the packed one;
- an output may be written over an input that the kernel's `in_place` allows: the kernel is run once
  more for each, and has to give the same bits.

Outputs and scratch start out poisoned (NaN for floats), inputs are followed by poison, and bytes
behind each buffer are checked afterwards, so that reading or writing out of bounds shows.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

os.environ.setdefault("PYOPENCL_NO_CACHE", "1")

import ml_dtypes
import numpy as np
import pyopencl as cl

from clinfer.device import pocl_header
from clinfer.device.pocl_cpu import name_a_known_processor
from clinfer.device.processor import float_lanes
from clinfer.device.quirks import quirks_of
from clinfer.device.sources import STANDARD
from clinfer_kernels.dims import evaluate
from clinfer_kernels.spec import Arg, Kernel, Launch, Target, Tensor
from platforms import POCL, dialect, options, platform

Array = np.ndarray[Any, Any]
GUARD = 256  # bytes of poison behind every buffer
POISON = 0xFF  # NaN in every float type, -1 in signed integers

DIALECT = dialect()
# What the processor has, as on the devices themselves.
LANES = max(8, float_lanes())
TARGETS = {
    "cpu": Target(cls="cpu", compute_units=4, vector_width=LANES, dialect=DIALECT),
    "gpu": Target(cls="gpu", compute_units=4, vector_width=1, dialect=DIALECT),
}

_CTYPES = {
    "int": np.int32,
    "uint": np.uint32,
    "long": np.int64,
    "ulong": np.uint64,
    "float": np.float32,
    "double": np.float64,
}


def numpy_dtype(name: str) -> np.dtype[Any]:
    """The NumPy dtype of an element type's name."""
    return np.dtype(ml_dtypes.bfloat16 if name == "bfloat16" else name)


def dtype_name(array: Array) -> str:
    """The element type's name of an array."""
    return array.dtype.name


@dataclass(frozen=True)
class Session:
    """An open device with its queue."""

    context: cl.Context
    queue: cl.CommandQueue
    device: cl.Device


@lru_cache(maxsize=1)
def session() -> Session:
    """The device tests run on: PoCL's, or that of `pytest --opencl`."""
    wanted = platform()
    found = [p for p in cl.get_platforms() if wanted.lower() in p.name.lower()]
    assert found, f"no OpenCL platform named like '{wanted}'; install pocl-binary-distribution"
    device = found[0].get_devices()[0]
    if wanted == POCL:
        name_a_known_processor(device.int_ptr)
    context = cl.Context([device])
    return Session(context, cl.CommandQueue(context), device)


@lru_cache(maxsize=4096)
def program(source: str, options: tuple[str, ...] = ()) -> cl.Program:
    """The built program of a source; built once, as devices build it (`compiling.py`)."""
    flags = [STANDARD, *options]
    if _knows_short_header():
        text = f"{pocl_header.declarations(source)}\n{source}"
        try:
            return _build(text, [*flags, pocl_header.WITHOUT_HEADER])
        except cl.RuntimeError:
            pass  # it uses what is not declared, or is wrong
    try:
        return _build(source, flags)
    except cl.RuntimeError as error:
        numbered = "\n".join(f"{i + 1:4} {x}" for i, x in enumerate(source.splitlines()))
        raise AssertionError(f"{error}\n{numbered}") from error


def _build(text: str, flags: list[str]) -> cl.Program:
    made = cl.Program(session().context, text)
    made.build(options=flags)
    return made


@lru_cache(maxsize=1)
def _knows_short_header() -> bool:
    found = session().device.platform
    return quirks_of(found.name, found.version).short_header


def view_of(array: Array, base: Array) -> Tensor:
    """The `Tensor` of a NumPy view (transposed, sliced, broadcast) of the contiguous `base`."""
    size = base.itemsize
    address = array.__array_interface__["data"][0] - base.__array_interface__["data"][0]
    strides = tuple(s // size for s in array.strides)
    return Tensor(dtype_name(array), tuple(array.shape), strides, address // size)


def run_kernel(
    kernel: Kernel,
    ins: Sequence[Array],
    outs: Sequence[tuple[Sequence[int], str] | Array],
    symbols: Mapping[str, int] | None = None,
    reports: Array | None = None,
) -> list[Array]:
    """Launches `kernel` and returns the output buffers; see the module's text.

    `reports` are the words of its checks, int64, written as the kernel does; its first slot is 1.
    """
    values = dict(symbols or {})
    arrays = list(ins)
    for pack in kernel.packs:
        arrays[pack.index] = np.ascontiguousarray(pack.apply(np.asarray(arrays[pack.index])))
    words = np.zeros(9, np.int64) if reports is None else reports
    results = _run(kernel, arrays, outs, values, reports=words)
    assert reports is not None or not words[0], f"an index outside its axis: {words.tolist()}"
    for output, index in kernel.in_place:
        is_whole = arrays[index].nbytes == results[output].nbytes
        if is_whole and not isinstance(outs[output], np.ndarray):
            again = _run(kernel, arrays, outs, values, (output, index))
            for one, other in zip(results, again, strict=True):
                assert one.tobytes() == other.tobytes(), f"in place of input {index}: other bits"
    return results


def _run(
    kernel: Kernel,
    arrays: Sequence[Array],
    outs: Sequence[tuple[Sequence[int], str] | Array],
    values: Mapping[str, int],
    shared: tuple[int, int] | None = None,
    reports: Array | None = None,
) -> list[Array]:
    """The outputs; `shared` names an output and the input whose buffer it is written to."""
    results = [_initial(out) for out in outs]
    words = np.zeros(1, np.int64) if reports is None else reports
    buffers = {
        "status": [_upload(words)],
        "in": [_upload(array) for array in arrays],
        "out": [_upload(array) for array in results],
        "scratch": [_poisoned(evaluate(size, values)) for size in kernel.scratch],
    }
    if shared is not None:
        buffers["out"][shared[0]] = buffers["in"][shared[1]]
    for launch in kernel.launches:
        enqueue(launch, buffers, values)
    for index, array in enumerate(results):
        _download(buffers["out"][index], array, f"output {index}")
    _download(buffers["status"][0], words, "reports")
    for index, size in enumerate(kernel.scratch):
        spare = np.empty(evaluate(size, values), np.uint8)
        _download(buffers["scratch"][index], spare, f"scratch {index}")
    return results


def enqueue(
    launch: Launch, buffers: Mapping[str, Sequence[cl.Buffer]], values: Mapping[str, int]
) -> cl.Event | None:
    """Queues one launch; None where its global size is 0."""
    bound = bind(launch, buffers, values)
    return cl.enqueue_nd_range_kernel(session().queue, *bound) if bound else None


Bound = tuple[cl.Kernel, tuple[int, ...], tuple[int, ...]]


def bind(
    launch: Launch, buffers: Mapping[str, Sequence[cl.Buffer]], values: Mapping[str, int]
) -> Bound | None:
    """A kernel with its arguments set and its sizes; None where its global size is 0."""
    if not evaluate(launch.when, values):
        return None
    global_size = tuple(evaluate(d, values) for d in launch.global_size)
    for total, local in zip(global_size, launch.local_size, strict=True):
        assert total % local == 0, f"{launch.entry}: {global_size} over {launch.local_size}"
    if 0 in global_size:
        return None
    built = program(
        launch.source, (*launch.options.split(), *options(launch.local_size, launch.source))
    )
    entry = cl.Kernel(built, launch.entry)
    assert entry.num_args == len(launch.args), f"{launch.entry}: {len(launch.args)} arguments"
    for index, arg in enumerate(launch.args):
        entry.set_arg(index, _bound(arg, buffers, values))
    return entry, global_size, launch.local_size


def time_kernel(
    kernel: Kernel,
    ins: Sequence[Array],
    outs: Sequence[tuple[Sequence[int], str]],
    symbols: Mapping[str, int] | None = None,
    repeats: int = 20,
    batch: int = 10,
) -> float:
    """The least seconds one run of `kernel` takes, launches only, inputs packed beforehand.

    `batch` runs are queued in a row and waited for once, as an executor does.
    """
    from time import perf_counter

    values = dict(symbols or {})
    arrays = list(ins)
    for pack in kernel.packs:
        arrays[pack.index] = np.ascontiguousarray(pack.apply(np.asarray(arrays[pack.index])))
    buffers = {
        "status": [_upload(np.zeros(9, np.int64))],
        "in": [_upload(array) for array in arrays],
        "out": [_upload(_initial(out)) for out in outs],
        "scratch": [_poisoned(evaluate(size, values)) for size in kernel.scratch],
    }
    bound = [b for b in (bind(x, buffers, values) for x in kernel.launches) if b]
    queue = session().queue
    best = float("inf")
    for _ in range(repeats + 1):
        begin = perf_counter()
        for _ in range(batch):
            for call in bound:
                cl.enqueue_nd_range_kernel(queue, *call)
        queue.finish()
        best = min(best, (perf_counter() - begin) / batch)
    return best


def _bound(arg: Arg, buffers: Mapping[str, Sequence[cl.Buffer]], values: Mapping[str, int]) -> Any:
    if arg.kind == "scalar":
        return _CTYPES[arg.ctype](evaluate(arg.value, values))
    if arg.kind == "slot":
        return np.int32(1)
    if arg.kind == "local":
        return cl.LocalMemory(evaluate(arg.value, values))
    return buffers[arg.kind][arg.index]


def _initial(out: tuple[Sequence[int], str] | Array) -> Array:
    if isinstance(out, np.ndarray):
        return np.ascontiguousarray(out).copy()
    shape, dtype = out
    made = np.empty(tuple(shape), numpy_dtype(dtype))
    if made.size:
        made.reshape(-1).view(np.uint8)[:] = POISON
    return made


def _upload(array: Array) -> cl.Buffer:
    content = np.full(array.nbytes + GUARD, POISON, np.uint8)
    content[: array.nbytes] = np.frombuffer(array.tobytes(), np.uint8)
    flags = cl.mem_flags.READ_WRITE | cl.mem_flags.COPY_HOST_PTR
    return cl.Buffer(session().context, flags, hostbuf=content)


def _poisoned(size: int) -> cl.Buffer:
    return _upload(np.full(size, POISON, np.uint8))


def _download(buffer: cl.Buffer, array: Array, label: str) -> None:
    content = np.empty(array.nbytes + GUARD, np.uint8)
    cl.enqueue_copy(session().queue, content, buffer)
    assert (content[array.nbytes :] == POISON).all(), f"{label}: written behind its end"
    array.reshape(-1).view(np.uint8)[:] = content[: array.nbytes]

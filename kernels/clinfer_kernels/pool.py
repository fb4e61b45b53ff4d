"""Pooling, channels last: maxima (with their indices), averages and p-norms over windows.

One text serves both classes: on class "cpu" a task is a pixel with all its channels, in vectors; on
class "gpu" neighbouring work-items take neighbouring channels of a pixel.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

from clinfer_kernels import memory, nest
from clinfer_kernels.common import kernel_head
from clinfer_kernels.dims import Dim, ceildiv, minimum
from clinfer_kernels.nest import decode
from clinfer_kernels.pixels import Pixels, declare_pixels, finish, locate, pixels_of, store
from clinfer_kernels.signature import Signature
from clinfer_kernels.spec import Kernel, Launch, Target
from clinfer_kernels.specs import PoolSpec
from clinfer_kernels.tasks import neighbours, shares
from clinfer_kernels.template import block, fill, inside
from clinfer_kernels.types import compute, lanes, literal, lowest, register
from clinfer_kernels.window import (
    WindowAxis,
    declare_axes,
    decode_position,
    decode_taps,
    index,
    input_at,
    positions,
    tap_indices,
    window_axes,
    windowed,
)

Axes = tuple[WindowAxis, ...]
Words = Mapping[str, str]


@dataclass(frozen=True)
class PoolTile:
    """`local` work-items of a work-group; `lanes` channels of a vector.

    `whole_pixels`: a task has all channels of a pixel, not one. `waves`: work-groups per compute
    unit at most.
    """

    local: int
    lanes: int
    whole_pixels: bool
    waves: int = 16


def candidates(spec: PoolSpec, target: Target) -> tuple[PoolTile, ...]:
    """The tiles for `spec`, the best guess first, a plain one last."""
    if spec.kind not in _KINDS:
        return ()
    if target.cls == "gpu":
        local = min(256, target.max_work_group)
        return (PoolTile(local, 1, False), PoolTile(min(64, local), 1, False))
    scalar = PoolTile(1, 1, True)
    dtypes = (spec.ins[0].dtype, *(t.dtype for t in spec.outs), *spec.epilogue.inputs)
    width = lanes(target, dtypes)
    return (scalar,) if len(spec.outs) > 1 or width == 1 else (PoolTile(1, width, True), scalar)


def emit(spec: PoolSpec, tile: PoolTile, target: Target) -> Kernel:
    """The one launch."""
    x, out = spec.ins[0], spec.outs[0]
    axes = window_axes(x, out, spec.kernel, spec.strides, spec.pads, spec.dilations)
    rank = len(axes)
    channels = out.shape[-1]
    channel_block: Dim = channels if tile.whole_pixels else tile.lanes
    channel_tasks = 1 if tile.whole_pixels else ceildiv(channels, tile.lanes)
    tasks = positions(axes) * channel_tasks * minimum(channels, 1)
    groups = minimum(ceildiv(tasks, tile.local), tile.waves * target.compute_units)
    pixels = pixels_of(spec.outs, spec.ins[1:], first=1)
    signature = Signature()
    signature.read("in", 0, x.dtype, "x")
    declare_pixels(signature, pixels)
    signature.scalar("x_o", x.offset)
    declare_axes(signature, axes)
    if nest.stride_kind(x.strides[-1]) == "s":
        signature.scalar("x_c", x.strides[-1])
    is_far = _is_far(axes, spec)
    if spec.kind == "average":
        for number, axis in enumerate(axes[1:], start=1):
            pad = _counted(spec, number - 1)
            if is_far:
                signature.scalar(f"behind{number}", pad)
            else:
                signature.scalar(f"limit{number}", axis.size + pad)
    for name, value in (
        *([] if is_far else [("rows", _outer_taps(axes))]),
        ("C", channels),
        ("channel_block", channel_block),
        ("channel_tasks", channel_tasks),
        ("tasks", tasks),
    ):
        signature.scalar(name, value)
    words = (
        "_indices" if len(spec.outs) > 1 else "",
        "_far" if is_far else "",
        "" if spec.order == "any" else f"_{spec.order}",
    )
    entry = f"pool_{spec.kind}_r{rank}{''.join(words)}"
    walk = _walk(rank, is_far)
    operation = _operation(spec, axes, pixels, tile.lanes, is_far)
    text = fill(
        "pool",
        target,
        head=kernel_head(entry, (tile.local,)),
        parameters=signature.text,
        lanes=tile.lanes,
        last=rank - 1,
        **(shares() if tile.whole_pixels else neighbours()),
        **operation,
        range=walk["range"],
        far=walk["far"],
        taps=block(_taps(spec, rank, walk, operation, _load(spec, tile.lanes)), 3),
        walked="by columns" if spec.order == "columns" else "by rows",
        position=block(decode_position(rank, "position"), 2),
        locate=block(locate(pixels, "flat"), 2),
        contract="" if spec.order == "any" else "#pragma OPENCL FP_CONTRACT OFF",
    )
    flops = positions(axes) * channels
    for axis in axes:
        flops = flops * axis.taps
    launch = Launch(entry, text, signature.args, (groups * tile.local,), (tile.local,))
    return Kernel((launch,), flops=flops)


_FAR = 1 << 16


def _is_far(axes: Axes, spec: PoolSpec) -> bool:
    """Whether windows reach so far that indices may overflow, or that most taps are padding."""
    reaches = [
        axis.taps * axis.tap_step + axis.step + spec.pads[n] + spec.pads[n + len(spec.kernel)]
        for n, axis in enumerate(axes[1:])
    ]
    return max(reaches) > _FAR or _outer_taps(axes) > _FAR


def _outer_taps(axes: Axes) -> int:
    return prod(axis.taps for axis in axes[:-1])


def _taps(spec: PoolSpec, rank: int, walk: Words, operation: Words, load: str) -> list[str]:
    """The loops over the taps of a window; by columns each column's sum is added at once."""
    vec, line_at = operation["x_vec"], input_at(windowed(rank - 1))
    column, row = (
        "for (int t = begin; t < end; ++t) {",
        "for (int row = 0; row < rows; ++row) {",
    )
    inside = [f"const int at = line_at + {walk['tap_at']} * x_s{rank - 1};"]
    inside.append(f"const {vec} value = {load};")
    line = ["int outer = row;", *walk["taps"].splitlines(), f"const int line_at = {line_at};"]
    if spec.order != "columns":
        step = [*inside, *operation["step"].splitlines()]
        return _loop(row, [*line, *_loop(column, step)])
    part = _loop(row, [*line, *inside, "part += value;"])
    return _loop(column, [f"{vec} part = 0;", *part, "acc += part;"])


def _loop(head: str, body: list[str]) -> list[str]:
    return [head, *inside(body), "}"]


def _walk(rank: int, is_far: bool) -> dict[str, str]:
    """The parts of the text that say which taps are walked, and what each reads."""
    last, outer = rank - 1, windowed(rank - 1)
    if not is_far:
        lines = [
            f"const int first = {index(last)};",
            f"const int begin = first < 0 ? (tap_step{last} - 1 - first) / tap_step{last} : 0;",
            f"const int reach = (size{last} - first + tap_step{last} - 1) / tap_step{last};",
            f"const int end = reach < taps{last} ? reach : taps{last};",
        ]
        return {
            "range": block(lines, 2),
            "taps": block([*decode_taps(outer, "outer"), *tap_indices(outer)], 0),
            "tap_at": f"(first + t * tap_step{last})",
            "far": "",
        }
    lines = [line for a in windowed(rank) for line in _range(a)]
    counts = " * ".join(f"count{a}" for a in outer) or "1"
    lines += [
        f"const int rows = {counts};",
        f"const long first = first{last};",
        f"const int begin = begin{last};",
        f"const int end = begin{last} + count{last};",
    ]
    names = ", ".join(f"t{a}" for a in outer)
    taps = [f"int {names};", *decode(outer, "outer", "t", "count")] if outer else []
    taps += [f"const int j{a} = first{a} + (long)(begin{a} + t{a}) * tap_step{a};" for a in outer]
    return {
        "range": block(lines, 2),
        "taps": block(taps, 0),
        "tap_at": f"(int)(first + (long)t * tap_step{last})",
        "far": ";\n// here, where windows reach far, they are ranges along all axes",
    }


def _range(a: int) -> list[str]:
    """Statements that declare `beginA` and `countA`, the taps of an axis that lie in the input."""
    return [
        f"const long first{a} = (long)o{a} * step{a} + origin{a};",
        f"const long before{a} = first{a} < 0 ? (tap_step{a} - 1 - first{a}) / tap_step{a} : 0;",
        f"const int begin{a} = before{a} < taps{a} ? before{a} : taps{a};",
        f"const long reach{a} = (size{a} - first{a} + tap_step{a} - 1) / tap_step{a};",
        f"const int end{a} = reach{a} < taps{a} ? reach{a} : taps{a};",
        f"const int count{a} = end{a} > begin{a} ? end{a} - begin{a} : 0;",
    ]


def _acc(spec: PoolSpec) -> str:
    """The dtype of the pooled value: the epilogue's operand 0."""
    dtype = spec.epilogue.inputs[0]
    return "float32" if dtype in ("float16", "bfloat16") else dtype


def _load(spec: PoolSpec, width: int) -> str:
    x = spec.ins[0]
    kind = nest.stride_kind(x.strides[-1])
    stride = "x_c" if kind == "s" else kind
    place = {"0": "at", "1": "at + channel", "s": "at + channel * x_c"}[kind]
    types = (compute(_acc(spec)), compute(x.dtype), width)
    value = memory.convert(memory.load(x.dtype, "x", place, width, stride), *types)
    if width == 1:
        return value
    part = memory.load_part(x.dtype, "x", place, width, "left", stride)
    return f"left >= LANES ? {value} : {memory.convert(part, *types)}"


@dataclass(frozen=True)
class _Kind:
    """A pooling: its neutral value, what each tap does to `acc`, and the result."""

    identity: str
    step: str
    result: str


_KINDS = {
    "max": _Kind("{lowest}", "acc = value > acc ? value : acc;", "acc"),
    "average": _Kind("0", "acc += value;", "acc / ({acc_vec})({acc_type})count"),
    "lp": _Kind("0", "acc += {power};", "{root}"),
}


def _operation(
    spec: PoolSpec, axes: Axes, pixels: Pixels, width: int, is_far: bool
) -> dict[str, str]:
    """The parts of the text that depend on the kind of pooling."""
    acc = _acc(spec)
    vec = register(acc, width)
    kind = _KINDS[spec.kind]
    words = {
        "lowest": literal(lowest(acc), acc),
        "acc_vec": vec,
        "acc_type": compute(acc),
        **_norm(spec.p, acc, vec),
    }
    step = [kind.step.format(**words)]
    before: list[str] = []
    after = [f"const {vec} pooled = {kind.result.format(**words)};"]
    count: list[str] = []
    if spec.kind == "average":
        count = (_far_count if is_far else _count)(len(axes), spec.count_include_pad > 0)
    if len(spec.outs) > 1:
        before = ["long found = -1;"]
        flat = _flat(axes, spec.column_major, is_far)
        step = [f"if (value > acc || found < 0) found = {flat};", *step]
        after += [
            f"const long plane = {' * '.join(f'(long)size{a}' for a in windowed(len(axes)))};",
            "found += ((long)o0 * C + channel) * plane;",
            *store(pixels.outs[1], "found", "channel", 1),
        ]
    return {
        "kind": spec.kind,
        "acc_vec": vec,
        "x_vec": vec,
        "identity": f"({vec})({kind.identity.format(**words)})",
        "count": block(count, 2),
        "before": block(before, 3),
        "step": block(step, 0),
        "after": block(after, 3),
        "finish": block(finish(pixels, spec.epilogue, "pooled", "channel", width, "left"), 3),
    }


def _norm(p: int, acc: str, vec: str) -> dict[str, str]:
    """|x|^p and the p-th root."""
    size = f"abs_{vec}(value)" if acc == "float32" else "fabs(value)"
    if p == 1:
        return {"power": size, "root": "acc"}
    if p == 2:
        return {"power": "value * value", "root": "sqrt(acc)"}
    exact, inverse = literal(float(p), acc), literal(1.0 / p, acc)
    return {"power": f"pow({size}, ({vec})({exact}))", "root": f"pow(acc, ({vec})({inverse}))"}


def _counted(spec: PoolSpec, axis: int) -> int:
    """How many places behind the data count; windows begin in the data or before it."""
    pads = (0, spec.pads[len(spec.kernel) + axis], spec.kernel[axis] * spec.dilations[axis])
    return pads[spec.count_include_pad]


def _count(rank: int, include_pad: bool) -> list[str]:
    """Statements giving `count`: the taps within the limits, those in leading padding or not."""
    lines = ["int count = 1;"]
    for a in windowed(rank):
        lines += [
            f"const int start{a} = {index(a)};",
            f"const int stop{a} = (limit{a} - start{a} + tap_step{a} - 1) / tap_step{a};",
        ]
        skipped = ""
        if not include_pad:
            skipped = f" - (start{a} < 0 ? (tap_step{a} - 1 - start{a}) / tap_step{a} : 0)"
        lines.append(f"count *= (stop{a} < taps{a} ? stop{a} : taps{a}){skipped};")
    return [*lines, "count = count > 0 ? count : 1;"]


def _far_count(rank: int, include_pad: bool) -> list[str]:
    """As `_count`, of windows that reach far."""
    lines = ["long count = 1;"]
    for a in windowed(rank):
        if not include_pad:
            lines.append(f"count *= count{a};")
            continue
        lines += [
            f"const long room{a} = size{a} - first{a} + behind{a};",
            f"const long stop{a} = (room{a} + tap_step{a} - 1) / tap_step{a};",
            f"count *= stop{a} < taps{a} ? stop{a} : taps{a};",
        ]
    return [*lines, "count = count > 0 ? count : 1;"]


def _flat(axes: Axes, column_major: bool, is_far: bool) -> str:
    """The index of tap (tA..., t) among the elements of one channel, as ONNX counts them."""
    last = len(axes) - 1
    names = {a: f"j{a}" for a in windowed(last)} | {last: _walk(last + 1, is_far)["tap_at"]}
    order = list(windowed(len(axes)))
    if column_major:
        order.reverse()
    text = f"(long){names[order[0]]}"
    for a in order[1:]:
        text = f"({text}) * size{a} + {names[a]}"
    return text

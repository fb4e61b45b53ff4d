"""Interpolation along any axes of any layout: nearest, linear and cubic, without antialiasing.

One text serves both classes: on class "cpu" a task is a line along the innermost dimension, in
vectors where that is not resized; on class "gpu" a task is one element. Coordinates are computed in
float32 (float64 for float64), in the order of operations of the ONNX specification; for the nearest
element exactly, in integers. Integers are interpolated in float32 and cut toward zero. What becomes
integers is ONNX Runtime's to the last bit, as halves are frequent: the sum of elements times the
products of their weights.
"""

from __future__ import annotations

from dataclasses import dataclass

from clinfer_kernels import memory
from clinfer_kernels.common import kernel_head
from clinfer_kernels.dims import Dim, ceildiv, floordiv, maximum, minimum, product
from clinfer_kernels.nest import stride_kind
from clinfer_kernels.pixels import declare_pixels, finish, locate
from clinfer_kernels.requantise import rounds
from clinfer_kernels.resize_problem import Problem, as_fraction, problem_of
from clinfer_kernels.signature import Signature
from clinfer_kernels.spec import Kernel, Launch, Target
from clinfer_kernels.specs import ResizeSpec
from clinfer_kernels.tasks import neighbours, shares
from clinfer_kernels.template import block, fill
from clinfer_kernels.types import compute, is_float, lanes, literal, register

_SOURCES = {
    "half_pixel": "(o + (real)0.5) / scale - (real)0.5",
    "half_pixel_symmetric": (
        "size * (real)0.5 * (1 - out / (scale * size)) + (o + (real)0.5) / scale - (real)0.5"
    ),
    "pytorch_half_pixel": "out > 1 ? (o + (real)0.5) / scale - (real)0.5 : 0",
    "align_corners": "out > 1 ? o * (real)(size - 1) / (out - 1) : 0",
    "asymmetric": "o / scale",
    "tf_half_pixel_for_nn": "(o + (real)0.5) / scale",
}
# The same places as over / under in integers, the factor being up / down.
_QUOTIENTS = {
    "half_pixel": ("(2 * o + 1) * down - up", "2 * up"),
    "half_pixel_symmetric": (
        "(2 * o + 1) * down - up + (long)size * up - (long)out * down",
        "2 * up",
    ),
    "pytorch_half_pixel": ("out > 1 ? (2 * o + 1) * down - up : 0", "2 * up"),
    "align_corners": ("out > 1 ? (long)o * (size - 1) : 0", "out > 1 ? out - 1 : 1"),
    "asymmetric": ("o * down", "up"),
    "tf_half_pixel_for_nn": ("(2 * o + 1) * down", "2 * up"),
}
_ROUNDING = {
    "round_prefer_floor": "-quotient(under - 2 * over, 2 * under)",
    "round_prefer_ceil": "quotient(2 * over + under, 2 * under)",
    "floor": "quotient(over, under)",
    "ceil": "-quotient(-over, under)",
    "simple": "up < down ? -quotient(-over, under) : quotient(over, under)",
}
_TASKS = 16  # of whole lines, per compute unit at least
_TAPS = {"nearest": 1, "linear": 2, "cubic": 4}


@dataclass(frozen=True)
class ResizeTile:
    """`local` work-items of a work-group; `lanes` elements of a vector.

    A task has `piece` elements of each of `line_block` lines; 0: whole lines, fewer of them where
    there would be less than 16 tasks per compute unit. `waves`: work-groups
    per compute unit at most.
    """

    local: int
    lanes: int
    piece: int
    line_block: int
    waves: int = 16


def candidates(spec: ResizeSpec, target: Target) -> tuple[ResizeTile, ...]:
    """The tiles for `spec`, the best first; none for an interpolation that has no kernel.

    Coordinates of regions of interest are not supported.
    """
    known = spec.mode in _TAPS and spec.coordinates in _SOURCES and spec.rounding in _ROUNDING
    if not known or not (spec.mode == "nearest" or is_float(_acc(spec))):
        return ()
    if target.cls == "gpu":
        return (ResizeTile(min(256, target.max_work_group), 1, 1, 1),)
    if problem_of(spec, by_lines=True).is_inner_resized:
        return (ResizeTile(1, 1, 256, 16), ResizeTile(1, 1, 64, 1))
    dtypes = (spec.ins[0].dtype, spec.outs[0].dtype, *spec.epilogue.inputs)
    width = lanes(target, dtypes)
    return (ResizeTile(1, width, 0, 16), ResizeTile(1, 1, 0, 1))


def emit(spec: ResizeSpec, tile: ResizeTile, target: Target) -> Kernel:
    """The one launch."""
    problem = problem_of(spec, target.cls == "cpu")
    taps = _TAPS[spec.mode]
    acc = _acc(spec)
    inner = problem.axes[-1].size
    lines = product(axis.size for axis in problem.axes[:-1])
    piece: Dim = tile.piece or inner
    pieces: Dim = ceildiv(inner, tile.piece) if tile.piece else 1
    line_block: Dim = tile.line_block
    if not tile.piece:
        fair = floordiv(lines, _TASKS * target.compute_units)
        line_block = maximum(minimum(fair, line_block), 1)
    tasks = ceildiv(lines, line_block) * pieces * minimum(inner, 1)
    groups = minimum(ceildiv(tasks, tile.local), tile.waves * target.compute_units)
    signature = _signature(problem, spec.mode == "nearest")
    shared = problem.pixels.in_place if target.cls == "cpu" else ()
    signature.share((o.name, v.name) for o, v in shared)
    for name, value in (
        ("inner", inner),
        ("piece", piece),
        ("pieces", pieces),
        ("lines", lines),
        ("line_block", line_block),
        ("tasks", tasks),
    ):
        signature.scalar(name, value)
    resized = sum(1 for size in problem.sizes if size is not None)
    entry = f"resize_{spec.mode}_{resized}of{len(problem.axes)}"
    last = len(problem.axes) - 1
    fixed = [k for k in range(last) if problem.sizes[k] is None]
    text = fill(
        "resize",
        target,
        head=kernel_head(entry, (tile.local,)),
        parameters=signature.text,
        taps=taps,
        outer=taps ** len(problem.outer),
        lanes=tile.lanes,
        piece=tile.piece or 1,
        real="double" if acc == "float64" else "float",
        coordinates=spec.coordinates,
        contract="#pragma OPENCL FP_CONTRACT OFF" if _is_rounded(spec) else "",
        places=block(_places(spec), 0),
        **(neighbours() if tile.piece == 1 else shares()),
        inner_taps=block(_inner_taps(problem, spec.mode == "nearest"), 2),
        kept_taps=block(_kept_taps(problem), 2),
        locate=block(locate(problem.pixels, "line"), 3),
        x_at=" + ".join(["x_o", *(f"i{k} * x_s{k}" for k in fixed)]),
        outer_taps=block(_outer_taps(problem, spec.mode == "nearest"), 3),
        combine=block(_combine(spec, problem, tile.lanes), 4),
        finish=block(finish(problem.pixels, spec.epilogue, "sum", "j", tile.lanes, "left"), 4),
    )
    flops = 2 * product(axis.size for axis in problem.axes) * taps**resized
    launch = Launch(entry, text, signature.args, (groups * tile.local,), (tile.local,))
    return Kernel((launch,), flops=flops, in_place=tuple((o.index, v.index) for o, v in shared))


def _signature(problem: Problem, exact: bool) -> Signature:
    """`exact`: factors are arguments, as fractions up / down."""
    signature = Signature()
    signature.read("in", 0, problem.x.dtype, "x")
    declare_pixels(signature, problem.pixels)
    signature.scalar("x_o", problem.x.offset)
    last = len(problem.axes) - 1
    for k, (axis, size) in enumerate(zip(problem.axes, problem.sizes, strict=True)):
        if k < last or problem.is_inner_resized or stride_kind(problem.x_strides[k]) == "s":
            signature.scalar(f"x_s{k}", problem.x_strides[k])
        if size is not None:
            signature.scalar(f"size{k}", size)
            signature.scalar(f"out{k}", axis.size)
            if exact:
                scale = problem.scales[k]
                ratio = None if scale is None else as_fraction(scale)
                signature.scalar(f"up{k}", axis.size if ratio is None else ratio.numerator)
                signature.scalar(f"down{k}", size if ratio is None else ratio.denominator)
    return signature


def _acc(spec: ResizeSpec) -> str:
    """The dtype of the interpolated value: the epilogue's operand 0."""
    dtype = spec.epilogue.inputs[0]
    return "float32" if dtype in ("float16", "bfloat16") else dtype


def _is_rounded(spec: ResizeSpec) -> bool:
    """Whether whole numbers are made of what is interpolated, so that its last bit may count."""
    is_whole = not is_float(spec.ins[0].dtype) or rounds(spec.epilogue)
    return spec.mode != "nearest" and is_whole


def _places(spec: ResizeSpec) -> list[str]:
    """The function taps_of: the indices and weights of position o along an axis."""
    if spec.mode == "nearest":
        over, under = _QUOTIENTS[spec.coordinates]
        return [
            "static void taps_of(long o, int size, int out, long up, long down, int* index,",
            "                    real* weight)",
            "{",
            f"    const long over = {over};",
            f"    const long under = {under};",
            f"    index[0] = clamp_to({_ROUNDING[spec.rounding]}, size);",
            "    weight[0] = 1;",
            "}",
        ]
    return [
        "static void taps_of(int o, int size, int out, real scale, int* index, real* weight)",
        "{",
        f"    const real x = {_SOURCES[spec.coordinates]};",
        *(f"    {line}" for line in _mode(spec)),
        "}",
    ]


def _mode(spec: ResizeSpec) -> list[str]:
    """Index and weight of each tap from x, the position in the input."""
    if spec.mode == "linear" and _is_rounded(spec):
        return _LINEAR_OF_INTEGERS
    lines = ["const int low = floor_of(x);", "const real r = x - low;"]
    if spec.mode == "linear":
        return [
            *lines,
            "index[0] = clamp_to(low, size);",
            "index[1] = clamp_to(low + 1, size);",
            "weight[0] = 1 - r;",
            "weight[1] = r;",
        ]
    return [*lines, *_cubic(literal(spec.cubic_a, _acc(spec)), spec.exclude_outside)]


# As ONNX Runtime computes them: what is cut or rounded afterwards must be the same to the last bit.
_LINEAR_OF_INTEGERS = [
    "const real at = clamp(x, (real)0, (real)(size - 1));",
    "index[0] = (int)at;",
    "index[1] = min(index[0] + 1, size - 1);",
    "weight[0] = index[0] == index[1] ? (real)0.5 : fabs(at - index[1]);",
    "weight[1] = index[0] == index[1] ? (real)0.5 : fabs(at - index[0]);",
]


def _cubic(a: str, exclude_outside: bool) -> list[str]:
    """Keys, "Cubic convolution interpolation for digital image processing", 1981, with his a."""
    lines = [
        f"const real a = {a};",
        "const real q = 1 - r;",
        "weight[0] = ((a * (r + 1) - 5 * a) * (r + 1) + 8 * a) * (r + 1) - 4 * a;",
        "weight[1] = ((a + 2) * r - (a + 3)) * r * r + 1;",
        "weight[2] = ((a + 2) * q - (a + 3)) * q * q + 1;",
        "weight[3] = ((a * (q + 1) - 5 * a) * (q + 1) + 8 * a) * (q + 1) - 4 * a;",
        "for (int t = 0; t < TAPS; ++t) index[t] = clamp_to(low - 1 + t, size);",
    ]
    if not exclude_outside:
        return lines
    return [
        *lines,
        "real total = 0;",
        "for (int t = 0; t < TAPS; ++t) {",
        "    if (index[t] != low - 1 + t) weight[t] = 0;",
        "    total += weight[t];",
        "}",
        "for (int t = 0; t < TAPS; ++t) weight[t] /= total;",
    ]


def _scale(problem: Problem, axis: int) -> str:
    """The factor along an axis as C."""
    scale = problem.scales[axis]
    if scale is None:
        return f"(real)out{axis} / size{axis}"
    return f"(real){literal(scale, 'float32')}"


def _taps_call(
    problem: Problem, exact: bool, axis: int, position: str, index: str, weight: str
) -> str:
    scale = f"up{axis}, down{axis}" if exact else _scale(problem, axis)
    return f"taps_of({position}, size{axis}, out{axis}, {scale}, {index}, {weight});"


def _inner_taps(problem: Problem, exact: bool) -> list[str]:
    """Statements that keep the innermost axis's taps for all elements of the task's piece."""
    if not problem.is_inner_resized:
        return []
    last = len(problem.axes) - 1
    call = _taps_call(
        problem, exact, last, "j", "near + (j - j0) * TAPS", "share + (j - j0) * TAPS"
    )
    return [
        "int near[PIECE * TAPS];",
        "real share[PIECE * TAPS];",
        f"for (int j = j0; j < j1; ++j) {call}",
    ]


def _kept_taps(problem: Problem) -> list[str]:
    """Declares the taps of each outer axis, and the position whose they are."""
    return [
        line
        for k in problem.outer
        for line in (f"int kept{k} = -1;", f"int index{k}[TAPS];", f"real weight{k}[TAPS];")
    ]


def _outer_taps(problem: Problem, exact: bool) -> list[str]:
    """Statements that multiply the combinations by the taps of each outer axis."""
    lines: list[str] = []
    for k in problem.outer:
        lines += [
            f"if (i{k} != kept{k}) "
            + _taps_call(problem, exact, k, f"i{k}", f"index{k}", f"weight{k}"),
            f"kept{k} = i{k};",
            "for (int t = count * TAPS - 1; t >= 0; --t) {",
            f"    at[t] = at[t / TAPS] + index{k}[t % TAPS] * x_s{k};",
            f"    weight[t] = weight[t / TAPS] * weight{k}[t % TAPS];",
            "}",
            "count *= TAPS;",
        ]
    return lines


def _combine(spec: ResizeSpec, problem: Problem, width: int) -> list[str]:
    """Statements that set `sum` from the taps at j."""
    acc = _acc(spec)
    vec = register(acc, width)
    if problem.is_inner_resized:
        return _combine_inner(spec, problem, vec)
    if spec.mode == "nearest":
        return [f"const {vec} sum = {_load(spec, problem, 'at[0]', width)};"]
    return [
        f"{vec} sum = 0;",
        "#pragma unroll",
        "for (int t = 0; t < OUTER; ++t) {",
        f"    const {vec} value = {_load(spec, problem, 'at[t]', width)};",
        "    sum += value * weight[t];",
        "}",
    ]


def _combine_inner(spec: ResizeSpec, problem: Problem, vec: str) -> list[str]:
    last = len(problem.axes) - 1
    if spec.mode == "nearest":
        return [f"const {vec} sum = {_element(spec, 'at[0]', 'near[j - j0]', last)};"]
    if _is_rounded(spec):
        return [
            f"{vec} sum = 0;",
            "for (int t = 0; t < OUTER * TAPS; ++t) {",
            "    const int s = (j - j0) * TAPS + t % TAPS;",
            f"    const {vec} value = {_element(spec, 'at[t / TAPS]', 'near[s]', last)};",
            "    sum += share[s] * weight[t / TAPS] * value;",
            "}",
        ]
    return [
        f"{vec} sum = 0;",
        "for (int s = 0; s < TAPS; ++s) {",
        "    const int next = near[(j - j0) * TAPS + s];",
        f"    {vec} part = 0;",
        "    #pragma unroll",
        f"    for (int t = 0; t < OUTER; ++t) part += {_element(spec, 'at[t]', 'next', last)}"
        " * weight[t];",
        "    sum += part * share[(j - j0) * TAPS + s];",
        "}",
    ]


def _element(spec: ResizeSpec, line: str, index: str, last: int) -> str:
    dtype = spec.ins[0].dtype
    value = memory.load(dtype, "x", f"{line} + {index} * x_s{last}")
    return memory.convert(value, compute(_acc(spec)), compute(dtype), 1)


def _load(spec: ResizeSpec, problem: Problem, line: str, width: int) -> str:
    """`width` elements of a line from j, or the `left` ones there are."""
    dtype = spec.ins[0].dtype
    last = len(problem.axes) - 1
    kind = stride_kind(problem.x_strides[-1])
    step = f"x_s{last}" if kind == "s" else kind
    at = {"0": line, "1": f"{line} + j", "s": f"{line} + j * {step}"}[kind]
    types = (compute(_acc(spec)), compute(dtype), width)
    value = memory.convert(memory.load(dtype, "x", at, width, step), *types)
    if width == 1:
        return value
    part = memory.convert(memory.load_part(dtype, "x", at, width, "left", step), *types)
    return f"left >= LANES ? {value} : {part}"

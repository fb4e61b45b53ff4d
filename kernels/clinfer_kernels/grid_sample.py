"""GridSample: an image read at the places of a grid, nearest, linear or cubic, over any axes.

One text serves both classes. On class "cpu" a task is a piece of pixels with all channels, which
are vectors where they lie side by side; on class "gpu" it is one element, and the next work-item
has the next channel where channels lie side by side, else the next pixel. Places and shares are
computed in float32 (float64 for grids of float64).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from clinfer_kernels import memory
from clinfer_kernels.common import kernel_head
from clinfer_kernels.dims import Dim, ceildiv, minimum, product
from clinfer_kernels.nest import View
from clinfer_kernels.pixels import (
    Pixels,
    declare_pixels,
    declare_rows,
    finish,
    keep_rows,
    load_rows,
    pixels_of,
)
from clinfer_kernels.signature import Signature
from clinfer_kernels.spec import Kernel, Launch, Target
from clinfer_kernels.specs import GridSampleSpec
from clinfer_kernels.tasks import neighbours, shares
from clinfer_kernels.template import block, fill
from clinfer_kernels.types import compute, is_float, lanes, register

_TAPS = {"nearest": 1, "linear": 2, "cubic": 4}
_FEWEST_LANES = 4
_KEPT = 256  # taps of a task that are kept at most, where it has several pixels

_PLACES = {
    True: "(g + 1) / 2 * (real)(size - 1)",
    False: "((g + 1) * (real)size - 1) / 2",
}
_REFLECTED = """\
// A triangle wave between the borders of an axis.
static real reflected(real x, int size)
{
    const real low = (real)$low;
    const real span = $span;
    const real period = span + span;
    const real far = fabs(x - low);
    const real rest = far - period * floor(far / period);
    const real made = span - fabs(rest - span);
    return (made < 0 ? 0 : made > span ? span : made) + low; // of far places only digits are left
}
"""
_SHARES = {
    "nearest": ["const real first = rint(x);", "const real shares[TAPS] = {1};"],
    "linear": [
        "const real first = floor(x);",
        "const real shares[TAPS] = {(first + 1) - x, x - first};",
    ],
    # Keys, "Cubic convolution interpolation for digital image processing", 1981
    "cubic": [
        "const real first = floor(x) - 1;",
        "const real a = (real)-0.75;",
        "const real r = x - (first + 1);",
        "const real q = 1 - r;",
        "const real shares[TAPS] = {",
        "    ((a * (r + 1) - 5 * a) * (r + 1) + 8 * a) * (r + 1) - 4 * a,",
        "    ((a + 2) * r - (a + 3)) * r * r + 1,",
        "    ((a + 2) * q - (a + 3)) * q * q + 1,",
        "    ((a * (q + 1) - 5 * a) * (q + 1) + 8 * a) * (q + 1) - 4 * a};",
    ],
}


@dataclass(frozen=True)
class GridSampleTile:
    """`local` work-items of a work-group; `lanes` channels of a vector.

    A task has `piece` pixels and `channels` channels of each, 0: all. `waves`: work-groups per
    compute unit at most.
    """

    local: int
    lanes: int
    piece: int
    channels: int
    waves: int = 16


def candidates(spec: GridSampleSpec, target: Target) -> tuple[GridSampleTile, ...]:
    """The tiles for `spec`, the best first; none for what is no float."""
    x, grid = spec.ins[:2]
    if not (is_float(x.dtype) and is_float(grid.dtype)):
        return ()
    if target.cls == "gpu":
        return (GridSampleTile(min(256, target.max_work_group), 1, 1, 1),)
    piece = max(_KEPT // _TAPS[spec.mode] ** (x.rank - 2), 1)
    plain = GridSampleTile(1, 1, min(piece, 64), 0)
    width = lanes(target, (x.dtype, spec.outs[0].dtype, *spec.epilogue.inputs))
    channels = x.shape[-1]
    while isinstance(channels, int) and width > channels:
        width //= 2
    if x.strides[-1] != 1 or width < _FEWEST_LANES:
        return (plain,)
    return (replace(plain, lanes=width), plain)


def emit(spec: GridSampleSpec, tile: GridSampleTile, target: Target) -> Kernel:
    """The one launch."""
    views = _views(spec)
    own = replace(views, operands=views.operands[2:])
    x, grid = spec.ins[:2]
    out = spec.outs[0]
    axes = x.rank - 2
    taps = _TAPS[spec.mode]
    channels = out.shape[-1]
    by_pixel = x.strides[-1] != 1
    signature = Signature()
    declare_pixels(signature, views)
    shared = own.in_place if target.cls == "cpu" else ()
    signature.share((o.name, v.name) for o, v in shared)
    for axis in range(axes):
        signature.scalar(f"size{axis}", x.shape[axis + 1])
        signature.scalar(f"step{axis}", x.strides[axis + 1])
    pixels = product(out.shape[:-1])
    counts: dict[str, Dim] = {
        "pixels": pixels,
        "channels": channels,
        "channel_block": tile.channels or channels,
        "pixel_tasks": ceildiv(pixels, tile.piece),
        "channel_tasks": ceildiv(channels, tile.channels) if tile.channels else 1,
    }
    tasks = counts["pixel_tasks"] * counts["channel_tasks"] * minimum(channels, 1)
    del counts["channel_tasks" if by_pixel else "pixel_tasks"]
    for name, value in (*counts.items(), ("tasks", tasks)):
        signature.scalar(name, value)
    entry = f"grid_sample_{spec.mode}_{spec.padding}_r{axes}"
    text = fill(
        "grid_sample",
        target,
        head=kernel_head(entry, (tile.local,)),
        parameters=signature.text,
        taps=taps,
        axes=axes,
        count=taps**axes,
        piece=tile.piece,
        lanes=tile.lanes,
        padding=spec.padding,
        real="double" if grid.dtype == "float64" else "float",
        acc=_acc(spec),
        place=_PLACES[spec.aligned],
        reflected=_reflected(spec),
        taps_of=block(_taps_of(spec), 1),
        **(neighbours() if tile.piece == 1 else shares()),
        pixel_task="task % pixel_tasks" if by_pixel else "task / channel_tasks",
        channel_task="task / pixel_tasks" if by_pixel else "task % channel_tasks",
        rows=block(declare_rows(views, "PIECE"), 2),
        keep=block(keep_rows(views, "flat", "r"), 3),
        axes_taps=block(_axes_taps(views.operands[1], axes), 3),
        at=" + ".join(["x_rows[r]", *(f"near[{_tap(k, taps, axes)}]" for k in range(axes))]),
        share=" * ".join(f"part[{_tap(k, taps, axes)}]" for k in range(axes)),
        channels=block(_channels(spec, own, views.operands[0], tile.lanes), 2),
    )
    groups = minimum(ceildiv(tasks, tile.local), tile.waves * target.compute_units)
    launch = Launch(entry, text, signature.args, (groups * tile.local,), (tile.local,))
    in_place = tuple((o.index, v.index) for o, v in shared)
    return Kernel((launch,), flops=2 * out.size * taps**axes, in_place=in_place)


def _acc(spec: GridSampleSpec) -> str:
    """The C type of what is summed: the epilogue's operand 0."""
    return compute(spec.epilogue.inputs[0])


def _views(spec: GridSampleSpec) -> Pixels:
    """The output's pixels; operands are x (its batch and channels), the grid, the epilogue's."""
    x, grid, *operands = spec.ins
    out = spec.outs[0]
    images = x._replace(
        shape=out.shape, strides=(x.strides[0], *(0,) * (x.rank - 2), x.strides[-1])
    )
    found = pixels_of(spec.outs, (images, grid, *operands), 0)
    names = ("x", "grid", *(f"e{k}" for k in range(len(operands))))
    pairs = zip(found.operands, names, strict=True)
    return replace(found, operands=tuple(replace(v, name=name) for v, name in pairs))


def _reflected(spec: GridSampleSpec) -> str:
    """The function of that name, where places are reflected."""
    if spec.padding != "reflection":
        return ""
    low, span = ("0", "fmax((real)(size - 1), (real)1e-6)") if spec.aligned else ("-0.5", "size")
    return _REFLECTED.replace("$low", low).replace("$span", span)


def _taps_of(spec: GridSampleSpec) -> list[str]:
    """The body of `taps_of`: places and shares from x, a place on an axis."""
    rounded = spec.mode == "nearest"
    before = {
        "zeros": [],
        "border": ["x = x < -4 ? -4 : x > size + 4 ? size + 4 : x;"],  # NaN stays
        "reflection": [f"x = reflected({'rint(x)' if rounded else 'x'}, size);"],
    }
    lines = [*before[spec.padding], *_SHARES[spec.mode], "for (int t = 0; t < TAPS; ++t) {"]
    tap = "reflected(first + t, size)" if spec.padding == "reflection" else "first + t"
    lines += [
        f"    const real tap = fmin(fmax({tap}, (real)-1), (real)size);",
        "    const int place = (int)tap;",
        "    at[t] = clamp(place, 0, size - 1) * step;",
    ]
    inside = "(uint)place < (uint)size ? (value)shares[t] : 0"
    value = inside if spec.padding == "zeros" else "(value)shares[t]"
    return [*lines, f"    share[t] = {value};", "}"]


def _tap(axis: int, taps: int, axes: int) -> str:
    """Where what is kept of an axis's tap of combination t and pixel r lies."""
    return f"({axis * taps} + t / {taps ** (axes - 1 - axis)} % TAPS) * PIECE + r"


def _axes_taps(grid: View, axes: int) -> list[str]:
    """Statements that keep the taps of each axis; the grid's last component is the first's."""
    lines: list[str] = []
    for axis in range(axes):
        at = grid.at(str(axes - 1 - axis)).replace("grid_at", "grid_rows[r]")
        g = memory.load(grid.dtype, "grid", at)
        lines += [
            f"taps_of({g}, size{axis}, step{axis}, a, s);",
            "for (int t = 0; t < TAPS; ++t) {",
            f"    near[({axis} * TAPS + t) * PIECE + r] = a[t];",
            f"    part[({axis} * TAPS + t) * PIECE + r] = s[t];",
            "}",
        ]
    return lines


def _channels(spec: GridSampleSpec, own: Pixels, x: View, width: int) -> list[str]:
    """Statements that make the stored pixels: vectors of channels, or a channel of all pixels."""
    acc = _acc(spec)
    vec = register(spec.epilogue.inputs[0], width)
    at = x.at("c").replace("x_at", "at[t * PIECE + r]")
    types = (acc, compute(x.dtype), width)
    value = memory.convert(memory.load(x.dtype, "x", at, width), *types)
    if width > 1:
        part = memory.convert(memory.load_part(x.dtype, "x", at, width, "left"), *types)
        value = f"left >= LANES ? {value} : {part}"
    add = f"sum += ({value}) * share[t * PIECE + r];"
    if spec.padding == "zeros":  # what is outside may be infinite
        add = f"if (share[t * PIECE + r] != 0) {add}"
    pixel = "for (int r = 0; r < stored; ++r) {"
    channel = "for (int c = channel0; c < channel1; c += LANES) {"
    lines = [pixel, channel] if width > 1 else [channel, pixel]
    return [
        *lines,
        *(f"    {line}" for line in load_rows(own, "r")),
        "    const int left = channel1 - c;",
        f"    {vec} sum = 0;",
        "    #pragma unroll",
        "    for (int t = 0; t < COUNT; ++t) {",
        f"        {add}",
        "    }",
        *(f"    {line}" for line in finish(own, spec.epilogue, "sum", "c", width, "left")),
        "}",
        "}",
    ]

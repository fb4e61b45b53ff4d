"""Convolution for class "gpu": implicit matrix product with tiles in local memory.

After Chetlur et al., "cuDNN: Efficient Primitives for Deep Learning" (2014): the matrix of inputs
is made on the fly, tile by tile, in local memory. Inputs are read with the strides they have.
"""

from __future__ import annotations

from dataclasses import dataclass

from clinfer_kernels import memory
from clinfer_kernels.common import kernel_head
from clinfer_kernels.conv_pack import Panels, constant_panels, pack_panels
from clinfer_kernels.conv_problem import Problem, problems_of
from clinfer_kernels.dims import Dim, ceildiv, minimum
from clinfer_kernels.nest import stride_kind
from clinfer_kernels.pixels import declare_pixels, finish, locate
from clinfer_kernels.signature import Signature
from clinfer_kernels.spec import Kernel, Launch, Pack, Target, Tensor
from clinfer_kernels.specs import ConvSpec
from clinfer_kernels.tasks import MAX_ITEMS
from clinfer_kernels.template import block, fill
from clinfer_kernels.types import compute, compute_size, size_of
from clinfer_kernels.window import declare_axes, decode_position, decode_taps, index, windowed


@dataclass(frozen=True)
class GpuTile:
    """A work-group of `wg_pixels` x `wg_filters` work-items, each with some results.

    `pixels` x `filters`: the results of a work-item. `pack_w`: a launch before packs the weights,
    which are not constant.
    """

    wg_pixels: int = 16
    wg_filters: int = 16
    pixels: int = 4
    filters: int = 4
    k_step: int = 16
    pack_w: bool = False

    @property
    def work_group(self) -> int:
        """Work-items of a work-group."""
        return self.wg_pixels * self.wg_filters

    @property
    def cols(self) -> int:
        """Filters of a work-group."""
        return self.wg_filters * self.filters

    def local_bytes(self, size: int) -> int:
        """Local memory for elements of `size` bytes."""
        return self.k_step * (self.wg_pixels * self.pixels + 1 + self.cols) * size


def gpu_tiles(spec: ConvSpec, target: Target) -> tuple[GpuTile, ...]:
    """The tiles within the device's limits: the best guess first.

    Big tiles reuse more, small ones make enough work-groups for the device from small problems.
    """
    problem = problems_of(spec)[0]
    dynamic = not spec.constant_w
    big = GpuTile(pack_w=dynamic)
    small = GpuTile(pixels=2, filters=2, pack_w=dynamic)
    tiny = GpuTile(8, 8, pixels=2, filters=2, pack_w=dynamic)
    groups = (
        problem.groups
        * ceildiv(problem.positions, big.wg_pixels * big.pixels)
        * ceildiv(problem.filters, big.cols)
    )
    few = isinstance(groups, int) and groups < 2 * target.compute_units
    ordered = (small, big, tiny) if few else (big, small, tiny)
    size = compute_size(problem.acc)
    return tuple(
        tile
        for tile in ordered
        if tile.work_group <= target.max_work_group and tile.local_bytes(size) <= target.local_mem
    )


def emit_gpu(spec: ConvSpec, tile: GpuTile, target: Target) -> Kernel:
    """The launches: the weights' packing where the tile asks for it, then one per phase."""
    problems = problems_of(spec)
    panels = Panels(problems, tile.cols, spec.transposed)
    launches: tuple[Launch, ...] = ()
    scratch: tuple[Dim, ...] = ()
    packs: tuple[Pack, ...] = ()
    if tile.pack_w:
        launches = pack_panels(panels, 0, target)
        scratch = (panels.total * size_of(problems[0].acc),)
    else:
        packs = (constant_panels(panels),)
    products = tuple(_product(panels, phase, tile, target) for phase in range(len(problems)))
    flops = sum((p.flops for p in problems), 0)
    return Kernel((*launches, *products), scratch, packs, flops)


def _product(panels: Panels, phase: int, tile: GpuTile, target: Target) -> Launch:
    problem = panels.problems[phase]
    rank = len(problem.axes)
    pixel_tasks = ceildiv(problem.positions, tile.wg_pixels * tile.pixels)
    tasks = pixel_tasks * problem.groups * panels.each(problem)
    signature = Signature()
    signature.read("in", 0, problem.x.dtype, "x")
    signature.read("scratch" if tile.pack_w else "in", 0 if tile.pack_w else 1, problem.acc, "w")
    declare_pixels(signature, problem.pixels)
    declare_input(signature, problem.x)
    declare_axes(signature, problem.axes)
    for name, value in (
        ("C", problem.channels),
        ("M", problem.filters),
        ("depth", problem.window * problem.channels),
        ("w_o", panels.begin(phase)),
        ("pixels", problem.positions),
        ("pixel_tasks", pixel_tasks),
        ("tasks", tasks),
    ):
        signature.scalar(name, value)
    entry = f"conv_local_{tile.wg_pixels * tile.pixels}x{tile.cols}_r{rank}"
    local_size = (tile.wg_filters, tile.wg_pixels)
    text = fill(
        "conv_gpu",
        target,
        head=kernel_head(entry, local_size),
        parameters=signature.text,
        wg_pixels=tile.wg_pixels,
        wg_filters=tile.wg_filters,
        pixels=tile.pixels,
        filters=tile.filters,
        k_step=tile.k_step,
        acc_type=compute(problem.acc),
        **_window_text(rank),
        load_x=load_input(problem, "at[i] + tap_at", "channel"),
        locate=block(locate(problem.pixels, "flat"), 3),
        epilogue=block(finish(problem.pixels, problem.epilogue, "sum", "channel", 1), 4),
    )
    groups = minimum(tasks, MAX_ITEMS // tile.wg_filters)
    global_size = (groups * tile.wg_filters, tile.wg_pixels)
    return Launch(entry, text, signature.args, global_size, local_size)


def declare_input(signature: Signature, x: Tensor) -> None:
    """The parameters x_o and, unless the text knows it, x_c: the stride of the channels."""
    signature.scalar("x_o", x.offset)
    if stride_kind(x.strides[-1]) == "s":
        signature.scalar("x_c", x.strides[-1])


def channel_step(x: Tensor) -> str:
    """The stride of the channels as C: '0', '1' or the parameter."""
    kind = stride_kind(x.strides[-1])
    return "x_c" if kind == "s" else kind


def load_input(problem: Problem, pixel: str, channel: str) -> str:
    """The input at an element's index and a channel, in the dtype of the sums."""
    x = problem.x
    step = channel_step(x)
    place = {"0": pixel, "1": f"{pixel} + {channel}"}.get(step, f"{pixel} + {channel} * {step}")
    value = memory.load(x.dtype, "x", place)
    return memory.convert(value, compute(problem.acc), compute(x.dtype), 1)


def _window_text(rank: int) -> dict[str, str | int]:
    """The parts of the text that have a line for each axis."""
    start = ["at[i] = x_o + o0 * x_s0;"]
    for a in windowed(rank):
        start += [f"first{a}[i] = {index(a)};", f"at[i] += first{a}[i] * x_s{a};"]
    within = [
        f"is_read = is_read && (uint)(first{a}[i] + t{a} * tap_step{a}) < (uint)size{a};"
        for a in windowed(rank)
    ]
    return {
        "starts": block([f"int first{a}[COPIES];" for a in windowed(rank)], 2),
        "position": block(decode_position(rank, "position"), 3),
        "start": block(start, 3),
        "taps": block(decode_taps(windowed(rank), "tap"), 3),
        "tap_at": " + ".join(f"t{a} * tap_step{a} * x_s{a}" for a in windowed(rank)),
        "within": block(within, 4),
    }

"""The convolution family: channels last, grouped, depthwise, transposed, 1 to 3 axes.

`conv_problem` brings a spec into one form, or into one per phase of a transposed convolution.
Schedules, each with a text file of its own, where its index formulas are:

    conv_cpu         class "cpu": register tiles over packed panels of weights
    conv_grouped     class "cpu": the same for groups of a few filters, several in a vector
    conv_winograd    class "cpu": 3 x 3 windows with fewer multiplications
    conv_integer     class "cpu": the same for 8-bit integers, four channels at once
    conv_pairs       class "cpu": the same for bfloat16, two channels at once
    depthwise_cpu    class "cpu": vectors of channels, several pixels at a time
    depthwise_integer   class "cpu": the same for 8-bit integers, a column of the window at once
    conv_gpu         class "gpu": tiles in local memory
    conv_winograd_gpu   class "gpu": 3 x 3 windows with fewer multiplications
    depthwise_gpu    class "gpu": vectors of channels, taps written out
    conv_direct      either class: one result a work-item
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from clinfer_kernels.conv_cpu import CpuTile, cpu_tiles, emit_cpu
from clinfer_kernels.conv_direct import DirectTile, direct_tiles, emit_direct
from clinfer_kernels.conv_grouped import GroupedTile, emit_grouped, grouped_tiles
from clinfer_kernels.conv_integer import IntegerTile, emit_integer, integer_tiles
from clinfer_kernels.conv_pairs import PairsTile, emit_pairs, pair_tiles
from clinfer_kernels.conv_winograd import WinogradTile, emit_winograd, winograd_tiles
from clinfer_kernels.depthwise_cpu import DepthwiseTile, depthwise_tiles, emit_depthwise
from clinfer_kernels.depthwise_integer import (
    DepthwiseIntegerTile,
    depthwise_integer_tiles,
    emit_depthwise_integer,
)
from clinfer_kernels.spec import Kernel, Target
from clinfer_kernels.specs import ConvSpec, ProjectedConvSpec

if TYPE_CHECKING:
    from clinfer_kernels.conv_gpu import GpuTile
    from clinfer_kernels.conv_winograd_gpu import WinogradGpuTile
    from clinfer_kernels.depthwise_gpu import VectorTile

    Tile = (
        CpuTile
        | IntegerTile
        | PairsTile
        | WinogradTile
        | DepthwiseTile
        | DepthwiseIntegerTile
        | GpuTile
        | WinogradGpuTile
        | VectorTile
        | DirectTile
    )

_EMIT: dict[type, Callable[[ConvSpec, Any, Target], Kernel]] = {
    CpuTile: emit_cpu,
    GroupedTile: emit_grouped,
    IntegerTile: emit_integer,
    PairsTile: emit_pairs,
    WinogradTile: emit_winograd,
    DepthwiseTile: emit_depthwise,
    DepthwiseIntegerTile: emit_depthwise_integer,
    DirectTile: emit_direct,
}


def candidates(spec: ConvSpec, target: Target) -> tuple[Tile, ...]:
    """The tiles for `spec` within the target's limits, the best guess first, a plain one last."""
    if target.cls == "gpu":
        return _for_gpu(spec, target)
    if isinstance(spec, ProjectedConvSpec):
        return ()
    direct = direct_tiles(spec, target)
    integer = integer_tiles(spec, target)
    if integer:
        first = (*depthwise_integer_tiles(spec, target), *depthwise_tiles(spec, target))
        return (*first, *integer, direct[-1])
    depthwise = depthwise_tiles(spec, target)
    winograd = winograd_tiles(spec, target)
    grouped = grouped_tiles(spec, target)
    pairs = pair_tiles(spec, target)
    if pairs:  # which of Winograd's only the large tiles beat
        large = (tile for tile in winograd if tile.out == 4)
        return (*depthwise, *large, *grouped, *pairs, *direct)
    return (*depthwise, *winograd, *grouped, *cpu_tiles(spec, target), *direct)


def _for_gpu(spec: ConvSpec, target: Target) -> tuple[Tile, ...]:
    from clinfer_kernels.conv_gpu import gpu_tiles
    from clinfer_kernels.conv_winograd_gpu import winograd_gpu_tiles
    from clinfer_kernels.depthwise_gpu import vector_tiles

    products = gpu_tiles(spec, target)
    if isinstance(spec, ProjectedConvSpec):
        return products
    direct = direct_tiles(spec, target)
    if len(direct) > 1:
        return (*vector_tiles(spec, target), *direct, *products, direct[-1])
    return (*winograd_gpu_tiles(spec, next(iter(products), None), target), *products, *direct)


def emit(spec: ConvSpec, tile: Tile, target: Target) -> Kernel:
    """The kernel of `spec` cut as `tile` says."""
    if type(tile) not in _EMIT:  # a start on a CPU does not import what is for GPUs
        from clinfer_kernels.conv_gpu import GpuTile, emit_gpu
        from clinfer_kernels.conv_winograd_gpu import WinogradGpuTile, emit_winograd_gpu
        from clinfer_kernels.depthwise_gpu import VectorTile, emit_vector

        _EMIT.update({GpuTile: emit_gpu, VectorTile: emit_vector})
        _EMIT[WinogradGpuTile] = emit_winograd_gpu
    return _EMIT[type(tile)](spec, tile, target)

"""Convolution for class "gpu": an implicit matrix product with tiles in local memory.

After Chetlur et al., "cuDNN: Efficient Primitives for Deep Learning" (2014): the matrix of inputs,
pixels by (tap, channel), is made on the fly, tile by tile, in local memory; the weights are packed
in panels of filters. Inputs are read with the strides they have.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from clinfer_kernels.contraction.emit import launches_of
from clinfer_kernels.contraction.ends import PixelEnd
from clinfer_kernels.contraction.matrix_units import unit_for
from clinfer_kernels.contraction.narrow import narrowed
from clinfer_kernels.contraction.product import Product
from clinfer_kernels.contraction.projected import ProjectedWalk
from clinfer_kernels.contraction.tiles import Choice, choices
from clinfer_kernels.contraction.walks import PanelWalk, Walk, WindowWalk
from clinfer_kernels.conv_bytes_gpu import Bytes, byte_problems, bytes_of
from clinfer_kernels.conv_pack import Panels, constant_panels, pack_panels
from clinfer_kernels.conv_problem import Problem, problems_of
from clinfer_kernels.dims import Dim
from clinfer_kernels.signature import Signature
from clinfer_kernels.spec import Kernel, Launch, Pack, Target
from clinfer_kernels.specs import ConvSpec, ProjectedConvSpec
from clinfer_kernels.types import size_of

PANEL = 32  # filters: what every tile's width is a multiple of, or cut to


@dataclass(frozen=True)
class GpuTile:
    """How the product is cut; `pack_w`: a launch before packs the weights, not being constant."""

    cut: Choice
    pack_w: bool = False

    @property
    def work_group(self) -> int:
        """Work-items of the largest work-group."""
        return self.cut.work_group

    def local_bytes(self, size: int) -> int:
        """Local memory for elements of `size` bytes."""
        return self.cut.local_bytes(size)


def gpu_tiles(spec: ConvSpec, target: Target) -> tuple[GpuTile, ...]:
    """The tiles within the device's limits: the best guess first."""
    panels = _panels(spec)
    dynamic = not spec.constant_w
    product = _product(spec, panels, 0, dynamic, target)
    return tuple(GpuTile(cut, dynamic) for cut in choices(product, target, has_rows=False))


def gpu_product(spec: ConvSpec, target: Target) -> Product:
    """The product of a convolution with constant weights that is not transposed."""
    return _product(spec, _panels(spec), 0, False, target)


def emit_gpu(spec: ConvSpec, tile: GpuTile, target: Target) -> Kernel:
    """The launches: the weights' packing where the tile asks for it, then those of each phase."""
    panels, integers = _panels(spec), bytes_of(spec)
    problems = panels.problems
    launches: tuple[Launch, ...] = ()
    scratch: tuple[Dim, ...] = ()
    packs: tuple[Pack, ...] = ()
    if tile.pack_w:
        launches = pack_panels(panels, 0, target)
        scratch = (panels.total * size_of(problems[0].acc),)
    elif integers is not None:
        packs = (integers.pack(panels),)
    else:
        packs = (_narrow(constant_panels(panels), _narrow_dtype(problems[0], target)),)
    for phase in range(len(problems)):
        product = _product(spec, panels, phase, tile.pack_w, target)
        made, parts = launches_of(product, tile.cut, target, len(scratch))
        launches += made
        scratch += parts
    flops = sum((p.flops for p in problems), 0)
    return Kernel(launches, scratch, packs, flops)


def _stored(problem: Problem) -> tuple[str, str]:
    """The dtypes of what is multiplied; what a prologue makes is not rounded by itself.

    Panels hold the dtype of the sums, so that integers are int32.
    """
    if problem.acc == "int32":
        return ("int32", "int32")
    return (problem.acc if problem.prologue else problem.x.dtype, problem.weights.dtype)


def _narrow_dtype(problem: Problem, target: Target) -> str:
    """The 16-bit dtype of constant panels; '' for that of the sums."""
    unit = unit_for(_stored(problem), target)
    if unit is None or problem.acc != "float32" or unit.packing.size != 2 or unit.is_exact:
        return ""
    return unit.operand


def _narrow(pack: Pack, dtype: str) -> Pack:
    """The panels in a 16-bit dtype."""
    if not dtype:
        return pack
    return pack._replace(
        key=f"{pack.key}-{dtype}", apply=lambda array: narrowed(pack.apply(array), dtype)
    )


def _panels(spec: ConvSpec) -> Panels:
    """The weights' layout."""
    if bytes_of(spec) is not None:
        return Panels(byte_problems(spec), PANEL, spec.transposed, "int8")
    return Panels(_packed_problems(spec), PANEL, spec.transposed)


def _packed_problems(spec: ConvSpec) -> tuple[Problem, ...]:
    """The problems as their weights are packed: those of a `ProjectedConvSpec` have no window."""
    problems = problems_of(spec)
    if not isinstance(spec, ProjectedConvSpec):
        return problems
    axes = tuple(replace(axis, taps=1) for axis in problems[0].axes)
    return (replace(problems[0], axes=axes, taps=(range(1),) * len(spec.kernel)),)


def _walk(
    spec: ConvSpec, problem: Problem, transposed: bool, k_step: int, integers: Bytes | None
) -> Walk:
    """The inputs that pixels read."""
    if integers is not None:
        return WindowWalk(problem, k_step, transposed, outside=integers.zero)
    if not isinstance(spec, ProjectedConvSpec):
        return WindowWalk(problem, k_step, transposed)
    window = replace(problems_of(spec)[0], channels=spec.ins[0].shape[-1])
    side = spec.ins[spec.count]
    return ProjectedWalk(window, k_step, transposed, side=side, number=spec.count)


def _product(spec: ConvSpec, panels: Panels, phase: int, pack_w: bool, target: Target) -> Product:
    """Pixels by filters, for each group."""
    problem = panels.problems[phase]
    weights = ("scratch", 0) if pack_w else ("in", 1)
    projected = "_projected" if isinstance(spec, ProjectedConvSpec) else ""
    dtype = ("" if pack_w else _narrow_dtype(problem, target)) or panels.dtype or problem.acc
    integers = bytes_of(spec)
    stored = _stored(problem) if integers is None else (problem.x.dtype, "int8")
    return Product(
        name="conv",
        suffix=f"_r{len(problem.axes)}{projected}",
        m=problem.positions,
        n=problem.filters,
        k=problem.window * problem.channels,
        batches=problem.groups,
        acc=problem.acc,
        a=lambda k_step: _walk(spec, problem, panels.transposed, k_step, integers),
        b=PanelWalk(panels.cols, problem.acc, *weights, dtype),
        end=PixelEnd(problem) if integers is None else integers.end(problem, panels),
        declare_batch=_nothing,
        batch=lambda names: [],
        operands=(),
        flops=problem.flops,
        scalars=(("w_o", panels.begin(phase)),),
        stored=stored,
    )


def _nothing(signature: Signature) -> None:
    """A group's tensors begin where its number says."""

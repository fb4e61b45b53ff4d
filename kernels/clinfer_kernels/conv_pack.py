"""What convolutions want rearranged: weights in panels, and inputs as dense channels-last arrays.

panels   [groups][ceil(M / cols)][taps][C][cols], filters beyond M zero: a register tile walks
         through memory front to back. The phases of a transposed convolution follow each other; at
         the end are zeros, which windows read in place of padding, as in the indirect convolution
         of Dukhan, "The Indirect Convolution Algorithm" (2019).

Constant weights are packed when the model is compiled; all else by launches of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from clinfer_kernels import memory
from clinfer_kernels.common import kernel_head
from clinfer_kernels.conv_problem import Problem, dense_input, problems_of
from clinfer_kernels.conv_prologue import declare, prepared, prologue_of
from clinfer_kernels.dims import Dim, ceildiv, maximum, minimum, product
from clinfer_kernels.packings import ConvPanels, taps_of
from clinfer_kernels.signature import Signature
from clinfer_kernels.spec import Launch, Pack, Target
from clinfer_kernels.specs import ConvSpec
from clinfer_kernels.tasks import MAX_GROUPS
from clinfer_kernels.template import block, fill
from clinfer_kernels.types import compute, size_of


@dataclass(frozen=True)
class Panels:
    """The packed weights of all phases of a convolution, in panels of `cols` filters.

    Of constant ones `dtype` is that of the panels; '' for that of the sums.
    """

    problems: tuple[Problem, ...]
    cols: int
    transposed: bool
    dtype: str = ""
    least_zeros: int = 0

    def each(self, problem: Problem) -> Dim:
        """Panels of a group."""
        return ceildiv(problem.filters, self.cols)

    def elements(self, problem: Problem) -> Dim:
        """How many elements the panels of one phase take."""
        panels = problem.groups * self.each(problem)
        return panels * problem.window * problem.channels * self.cols

    def begin(self, phase: int) -> Dim:
        """Where the panels of a phase begin; at the number of phases, the zeros."""
        begins: Dim = 0
        for problem in self.problems[:phase]:
            begins = begins + self.elements(problem)
        return begins

    @property
    def zeros(self) -> Dim:
        """Zeros at the end: a run along the innermost axis, and no less than `least_zeros`."""
        run = max(p.axes[-1].taps for p in self.problems) * self.problems[0].channels
        return maximum(run, self.least_zeros) if self.least_zeros else run

    @property
    def total(self) -> Dim:
        """All elements."""
        return self.begin(len(self.problems)) + self.zeros

    @property
    def packing(self) -> ConvPanels:
        """How constant weights are packed."""
        first = self.problems[0]
        taps = taps_of(problem.taps for problem in self.problems)
        dtype, groups = self.dtype or first.acc, first.groups
        least = self.least_zeros
        return ConvPanels(dtype, self.cols, groups, self.transposed, taps, least)  # type: ignore[arg-type]  # constants' sizes are numbers


def constant_panels(panels: Panels) -> Pack:
    """The weights packed when the model is compiled."""
    packing = panels.packing
    return Pack(1, packing.key, packing.pack)


def pack_panels(panels: Panels, scratch: int, target: Target) -> tuple[Launch, ...]:
    """The launches, one a phase, that pack weights of any strides into scratch buffer `scratch`."""
    return tuple(_pack(panels, phase, scratch, target) for phase in range(len(panels.problems)))


def _pack(panels: Panels, phase: int, scratch: int, target: Target) -> Launch:
    problem = panels.problems[phase]
    weights = problem.weights
    signature = Signature()
    signature.read("in", 1, weights.dtype, "w")
    signature.buffer("scratch", scratch, problem.acc, "packed")
    tasks = problem.groups * panels.each(problem) * problem.window
    last = phase == len(panels.problems) - 1
    spatial = weights.shape[3:]
    for name, value in (
        ("w_o", weights.offset),
        ("w_group", weights.strides[0]),
        ("w_filter", weights.strides[1]),
        ("w_channel", weights.strides[2]),
        *((f"w_t{d}", stride) for d, stride in enumerate(weights.strides[3:])),
        *((f"taps{d}", taps) for d, taps in enumerate(spatial)),
        ("M", problem.filters),
        ("C", problem.channels),
        ("window", problem.window),
        ("begin", panels.begin(phase)),
        ("zeros", panels.zeros if last else 0),
        ("tasks", tasks),
    ):
        signature.scalar(name, value)
    entry = f"conv_pack_{panels.cols}_t{len(spatial)}"
    load = memory.load(weights.dtype, "w", "at + c * w_channel")
    text = fill(
        "conv_pack",
        target,
        head=kernel_head(entry),
        parameters=signature.text,
        cols=panels.cols,
        tap_at=_tap_address(len(spatial)),
        load=memory.convert(load, compute(problem.acc), compute(weights.dtype), 1),
    )
    # One work-group at least: it writes the zeros.
    groups = minimum(tasks + 1, MAX_GROUPS)
    return Launch(entry, text, signature.args, (groups,), (1,))


def _tap_address(rank: int) -> str:
    """The offset of tap number `tap` of the window, innermost axis first."""
    terms = []
    rest = "tap"
    for d in reversed(range(rank)):
        position = rest if d == 0 else f"{rest} % taps{d}"
        terms.append(f"({position}) * w_t{d}")
        rest = f"{rest} / taps{d}"
    return " + ".join(terms)


@dataclass(frozen=True)
class DenseInput:
    """A spec whose input has unit stride along the channels and the dtype of the sums.

    `launches` make it, `scratch` are the sizes of their buffers, `buffer` is where x lies.
    """

    spec: ConvSpec
    buffer: tuple[str, int]
    launches: tuple[Launch, ...] = ()
    scratch: tuple[Dim, ...] = ()

    @classmethod
    def in_place(cls, spec: ConvSpec) -> DenseInput:
        """The spec as it is."""
        return cls(spec, ("in", 0))

    @classmethod
    def of(cls, spec: ConvSpec, target: Target) -> DenseInput:
        """The spec on a copy of its input in the first scratch buffer."""
        acc = problems_of(spec)[0].acc
        launch = copy_input(spec, acc, 0, target)
        copied = dense_input(spec, acc)
        return cls(copied, ("scratch", 0), (launch,), (copied.ins[0].size * size_of(acc),))


def copy_input(spec: ConvSpec, acc: str, scratch: int, target: Target) -> Launch:
    """The launch that copies x, [N, spatial..., C] of any strides, densely to `scratch`.

    The prologue is applied on the way.
    """
    x, prologue = spec.ins[0], prologue_of(spec)
    signature = Signature()
    signature.read("in", 0, x.dtype, "x")
    signature.buffer("scratch", scratch, acc, "dense")
    declare(signature, prologue)
    outer = range(x.rank - 1)
    rows = product(x.shape[:-2])
    for name, value in (
        ("x_o", x.offset),
        *((f"x_s{d}", x.strides[d]) for d in range(x.rank)),
        *((f"n{d}", x.shape[d]) for d in range(1, x.rank)),
        ("rows", rows),
    ):
        signature.scalar(name, value)
    entry = f"conv_input_r{x.rank}"
    lines, made = prepared(prologue, x, memory.load(x.dtype, "x", "at"), "c", acc)
    text = fill(
        "conv_input",
        target,
        head=kernel_head(entry),
        parameters=signature.text,
        row_at=row_address(outer[:-1]),
        width=f"n{x.rank - 2}",
        channels=f"n{x.rank - 1}",
        w_step=f"x_s{x.rank - 2}",
        c_step=f"x_s{x.rank - 1}",
        copy=block([*lines, f"dense[to + (long)i * n{x.rank - 1} + c] = {made};"], 4),
    )
    return Launch(entry, text, signature.args, (minimum(rows, MAX_GROUPS),), (1,))


def row_address(axes: Sequence[int]) -> str:
    """Where row number `row` begins in x."""
    terms = ["x_o"]
    rest = "row"
    for d in reversed(axes):
        terms.append(f"({rest if d == 0 else f'{rest} % n{d}'}) * x_s{d}")
        rest = f"{rest} / n{d}"
    return " + ".join(terms)

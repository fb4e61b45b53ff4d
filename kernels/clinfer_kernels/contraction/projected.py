"""Two operands in one product: a convolution's windows, and behind them one more value's channels.

A residual block's last convolution and the projection of its shortcut, which are added, are one
product: K has the window's (tap, channel) first, and then the channels of `side`, which has a pixel
for each result.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from clinfer_kernels import memory
from clinfer_kernels.contraction.units import LANES
from clinfer_kernels.contraction.walks import Walk, WindowWalk, bits_of
from clinfer_kernels.matrix import Matrix
from clinfer_kernels.nest import decode, stride_kind
from clinfer_kernels.signature import Signature
from clinfer_kernels.spec import Tensor
from clinfer_kernels.types import compute, storage


@dataclass(frozen=True)
class ProjectedWalk(WindowWalk):
    """As `WindowWalk`, then `side`: [N, out spatial..., channels], which is input `number`."""

    side: Tensor | None = None
    number: int = -1

    @property
    def _side(self) -> Tensor:
        assert self.side is not None
        return self.side

    @property
    def width(self) -> int:
        """Pieces are of one operand where both are rows of whole vectors."""
        side = self._side
        pixels = Matrix(side.dtype, side.offset, side.strides[:-2], side.strides[-2], 1)
        channels = side.shape[-1]
        whole = isinstance(channels, int) and channels % LANES == 0
        dense = side.strides[-1] == 1 and pixels.is_aligned(LANES)
        return super().width if whole and dense else 1

    def bits(self) -> Walk:
        made = super().bits()
        assert isinstance(made, ProjectedWalk)
        return replace(made, side=self._side._replace(dtype=bits_of(self.dtype)))

    def declare(self, signature: Signature) -> None:
        super().declare(signature)
        side = self._side
        signature.read("in", self.number, side.dtype, "side")
        signature.scalar("side_o", side.offset)
        for axis, stride in enumerate(side.strides[:-1]):
            signature.scalar(f"side_s{axis}", stride)
        if self._is_apart:
            for axis, size in enumerate(side.shape[1:-1], start=1):
                signature.scalar(f"side_n{axis}", size)
        if stride_kind(side.strides[-1]) == "s":
            signature.scalar("side_c", side.strides[-1])
        signature.scalar("window_k", self.problem.window * self.problem.channels)

    def kept(self) -> tuple[str, ...]:
        return (*super().kept(), "side_from")

    @property
    def _is_apart(self) -> bool:
        """Whether the window's axes are others than the side's, as where neighbours are joined."""
        return tuple(axis.out for axis in self.problem.axes) != self._side.shape[:-1]

    def place(self, place: str, number: str) -> list[str]:
        axes = range(self._side.rank - 1)
        at, own = "o", []
        if self._is_apart:
            at, names = "side", ", ".join(f"side{a}" for a in axes)
            own = [f"int pixel = min({place}, M - 1);", f"int {names};"]
            own += decode(axes, "pixel", "side", "side_n")
        terms = " + ".join(["side_o", *(f"{at}{a} * side_s{a}" for a in axes)])
        return [*super().place(place, number), *own, f"side_from{number} = {terms};"]

    @property
    def _is_even(self) -> bool:
        """Whether a step is of one operand: then work-items need not ask which."""
        return self.problem.window * self.problem.channels % self.k_step == 0 and not self.is_single

    def step(self, k: str) -> list[str]:
        first = f"({k}) - a_k" if self._is_even else f"({k})"
        stride = {"0": " * 0", "1": ""}.get(stride_kind(self._side.strides[-1]), " * side_c")
        return [
            *super().step(k),
            f"const int is_side = {first} >= window_k;",
            f"const __global {storage(self.dtype)}* a_at = is_side ? side : a_z;",
            f"const int side_k = (({k}) - window_k){stride};",
        ]

    def load(self, k: str, number: str) -> tuple[list[str], str, str]:
        """As the window's, from one address or the other."""
        x, acc = self.problem.x, self.problem.acc
        _, tests, _ = super().load(k, number)
        steps = {"0": "", "1": " + channel"}
        channel = steps.get(stride_kind(x.strides[-1]), " + channel * x_c")
        window = f"a_from{number} + tap_at{channel}"
        place = f"(is_side ? side_from{number} + side_k : {window})"
        value = memory.load(x.dtype, "a_at", place, self.width, "1", True)
        made = memory.convert(value, compute(acc), compute(x.dtype), self.width)
        return [], f"(is_side || ({tests}))" if tests else "", made

"""Convolutions of 8-bit integers on GPUs: sums of bytes as they lie in memory.

    sum over taps, channels of (x - zero) w  =  sum of x w  -  zero * sum of w

Padding stands for `zero`. Weights are panels of int8, and behind them is what each filter's sums
lack, in int32, which the end adds. So any unit for bytes multiplies them, and multiply-adds of
int32 where a device has none.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from clinfer_kernels import memory
from clinfer_kernels.contraction.ends import PixelEnd
from clinfer_kernels.conv_integer import zero_of
from clinfer_kernels.conv_pack import Panels
from clinfer_kernels.conv_problem import Problem, problems_of
from clinfer_kernels.dims import Dim
from clinfer_kernels.pixels import finish
from clinfer_kernels.signature import Signature
from clinfer_kernels.spec import Pack
from clinfer_kernels.specs import ConvSpec
from clinfer_kernels.types import register

if TYPE_CHECKING:
    import numpy as np

_ALIGNED = 16  # bytes, of what is behind the panels


@dataclass(frozen=True)
class Bytes:
    """What a convolution of 8-bit integers has besides: x's zero point, which is a number."""

    zero: int

    def pack(self, panels: Panels) -> Pack:
        """The panels in int8, and minus zero times the sum of each filter's weights."""

        packing = panels.packing

        def packed(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
            import numpy as np

            made = np.zeros(self._sums_at(panels), np.int8)
            weights = packing.pack(array)
            made[: weights.size] = weights
            axes = tuple(range(1, array.ndim))
            sums = -self.zero * array.sum(axes, dtype=np.int32)
            return np.concatenate([made, sums.astype(np.int32).view(np.int8)])

        return Pack(1, f"{packing.key}-int8-{self.zero}", packed)

    def _sums_at(self, panels: Panels) -> int:
        total = panels.total
        assert isinstance(total, int), "constant weights have known sizes"
        return -(-total // _ALIGNED) * _ALIGNED

    def end(self, problem: Problem, panels: Panels) -> PixelEnd:
        """The end that adds what sums lack."""
        if not self.zero:
            return PixelEnd(problem)
        return BytesEnd(problem, self._sums_at(panels) // 4)


def bytes_of(spec: ConvSpec) -> Bytes | None:
    """None where it is another convolution."""
    zero = zero_of(spec)
    return None if zero is None else Bytes(zero)


def byte_problems(spec: ConvSpec) -> tuple[Problem, ...]:
    """The convolution of x as it is, without a prologue."""
    plain = {field.name: getattr(spec, field.name) for field in fields(ConvSpec)}
    return problems_of(ConvSpec(**{**plain, "ins": spec.ins[: spec.count]}))


@dataclass(frozen=True)
class BytesEnd(PixelEnd):
    """The end of a convolution whose sums lack a number for each filter, from `sums_at` on."""

    sums_at: Dim = 0

    def declare(self, signature: Signature) -> None:
        super().declare(signature)
        signature.read("in", 1, "int32", "w_sums")
        signature.scalar("w_sums_o", self.sums_at)

    def finish(self, width: int) -> list[str]:
        at = "w_sums_o + channel"
        lacking = memory.load("int32", "w_sums", at, width, "1", is_aligned=True)
        pixels, epilogue = self.problem.pixels, self.problem.epilogue
        return [
            "const int channel = z * N + j;",
            f"const {register('int32', width)} whole = sum + {lacking};",
            *finish(pixels, epilogue, "whole", "channel", width, is_aligned=True),
        ]

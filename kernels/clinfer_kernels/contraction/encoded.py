"""The walk of a constant operand of few bits: decoded on its way from registers to local memory."""

from __future__ import annotations

from dataclasses import dataclass, replace

from clinfer_kernels.contraction.formats import Format
from clinfer_kernels.contraction.units import LANES
from clinfer_kernels.contraction.walks import StoredWalk, Walk
from clinfer_kernels.signature import Signature


@dataclass(frozen=True)
class EncodedWalk(StoredWalk):
    """B in few bits: pieces are of LANES codes of a column, which are in one word.

    On its way a piece holds, as floats, the bits of its codes, its scale and its zero point.
    """

    format: Format
    is_single: bool = False
    along: str = "k"
    dtype: str = "float32"  # what is multiplied

    is_stored = False

    @property
    def width(self) -> int:
        return 1 if self.is_single else LANES

    def bits(self) -> Walk:
        raise ValueError("codes are no elements of a matrix unit")

    def single(self) -> Walk:
        return replace(self, is_single=True)

    def declare(self, signature: Signature) -> None:
        self.format.declare(signature)

    def begin(self) -> list[str]:
        return []

    def kept(self) -> tuple[str, ...]:
        return ("b_from", "b_scale")

    def place(self, place: str, number: str) -> list[str]:
        return [
            f"const int b_column = min({place}, b_quads * {LANES} - 1);",
            f"b_from{number} = b_column / {LANES} * b_words + b_column % {LANES};",
            f"b_scale{number} = b_column / {LANES} * b_blocks + b_column % {LANES};",
        ]

    def step(self, k: str) -> list[str]:
        how = self.format
        return [
            f"const int b_word = ({k}) / {how.each} * {LANES};",
            f"const int b_shift = ({k}) % {how.each} * {how.bits};",
            f"const int b_block = {how.block_of(k)};",
        ]

    def advance(self) -> list[str]:
        return []

    def load(self, k: str, number: str) -> tuple[list[str], str, str]:
        how, at = self.format, f"b_scale{number} + b_block"
        bits = f"b[b_from{number} + b_word] >> b_shift"
        scale, zero = how.scales(at, 1), how.zeros(at, 1) or "0"
        if self.is_single:
            lines = [f"const uint b_bits = {bits};"]
            return lines, "", f"({how.of_run('b_bits', zero)}).s0 * {scale}"
        return [], "", f"(float{LANES})(as_float({bits}), {scale}, {zero}, 0)"

    def finish(self, piece: str, number: str) -> tuple[list[str], str]:
        lines = [f"const uint b_bits = as_uint({piece}.s0);"]
        return lines, f"({self.format.of_run('b_bits', f'{piece}.s2')}) * {piece}.s1"

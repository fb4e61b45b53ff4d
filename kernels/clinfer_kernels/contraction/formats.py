"""Matrices of few bits for products on GPUs: how codes lie in memory, and the text that reads them.

    number[k][n] = (value(code[k][n]) - zero[k / block][n]) * scale[k / block][n]

Codes of a column lie along k in words of 32 bits, the lowest bits first; words of LANES columns lie
side by side, and behind them those of the next k. Scales and zero points lie the same way:

    codes [columns / LANES][words of K][LANES]      scales, zeros [columns / LANES][blocks][LANES]

so that 16 bytes are LANES columns of `each` values of k, and what a group reads is one piece of
memory. A code of an integer becomes a float32 without a conversion: or-ed into the low bits of a
power of two whose last place is worth what the code's lowest bit is, minus that power, both exact.
The powers' bits are arguments: an instruction has room for one constant, which is the mask.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from clinfer_kernels import memory, narrow
from clinfer_kernels.contraction.units import LANES
from clinfer_kernels.signature import Signature
from clinfer_kernels.spec import Pack
from clinfer_kernels.specs import EncodedMatmulSpec
from clinfer_kernels.types import compute, kind

if TYPE_CHECKING:
    import numpy as np

_WORD = 32
_SIGNIFICANT = 23  # stored bits of a float32
# Four float16 by one load, which not every compiler makes of vloada_half4.
_HALVES = (
    f"static float{LANES} halves(const __global half* p)",
    "{",
    f"    const ushort{LANES} bits = *(const __global ushort{LANES}*)p;",
    f"    return vload_half{LANES}(0, (const half*)&bits);",
    "}",
)


@dataclass(frozen=True)
class Format:
    """A constant matrix [k, columns] of `bits` (2, 4 or 8) a code.

    `form` as in `EncodedMatmulSpec`; `is_signed`: codes are integers in two's complement. `block`
    is 0 where all of a column is one. `zero` is that of every block; None: there are zero points.
    `places` are the numbers of the inputs: codes, scales, and perhaps zero points.
    """

    k: int
    columns: int
    bits: int
    form: str
    is_signed: bool
    block: int
    zero: int | None
    scale: str
    point: str
    places: tuple[int, ...]

    @property
    def each(self) -> int:
        """Codes in a word."""
        return _WORD // self.bits

    @property
    def words(self) -> int:
        """Of a column."""
        return -(-self.k // self.each)

    @property
    def blocks(self) -> int:
        """Of a column."""
        return self.k // self.block if self.block else 1

    @property
    def quads(self) -> int:
        """Groups of LANES columns."""
        return -(-self.columns // LANES)

    @property
    def suffix(self) -> str:
        """Of an entry's name."""
        return f"_q{self.bits}" + ("" if self.form == "integer" else f"_{self.form}")

    @property
    def _more(self) -> int:
        """What is added to signed codes, to make them positive."""
        return self.is_signed << (self.bits - 1)

    # -- memory ----------------------------------------------------------------------------------

    @property
    def packs(self) -> tuple[Pack, ...]:
        """How the inputs are laid out."""
        codes = Pack(self.places[0], f"words-{self.bits}-{self._more}", self._pack_codes)
        return (codes, *(Pack(place, f"quads-{LANES}", quads) for place in self.places[1:]))

    def _pack_codes(self, array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        import numpy as np

        k, n = array.shape
        packed = np.zeros((self.words, self.quads * LANES), np.uint32)
        mask = np.uint8((1 << self.bits) - 1)
        for place in range(self.each):
            part = array[place :: self.each].view(np.uint8) & mask
            part = part ^ np.uint8(self._more)  # as much more, in two's complement
            packed[: len(part), :n] |= part.astype(np.uint32) << np.uint32(self.bits * place)
        assert k == self.k and n == self.columns
        return quads(packed)

    def declare(self, signature: Signature) -> None:
        """The parameters: b, scales, perhaps zeros, and how many there are of each in a quad."""
        signature.read("in", self.places[0], "uint32", "b")
        for place, name, dtype in zip(
            self.places[1:], ("scales", "zeros"), (self.scale, self.point), strict=False
        ):
            signature.read("in", place, dtype, name)
        signature.scalar("b_quads", self.quads)
        signature.scalar("b_words", self.words * LANES)
        signature.scalar("b_blocks", self.blocks * LANES)
        if self.form == "integer":
            for shift in self._shifts:
                signature.scalar(f"power{shift}", _power_bits(shift), "uint")

    def block_of(self, k: str) -> str:
        """How far the numbers of the block at `k` are from the quad's first."""
        return f"({k}) / {self.block} * {LANES}" if self.block else "0"

    def scales(self, at: str, width: int) -> str:
        """Scales as float32."""
        return _loaded(self.scale, "scales", at, width)

    def zeros(self, at: str, width: int) -> str:
        """Zero points, as many more as codes are, as float32; '' where they are `zero`."""
        if self.zero is not None:
            return ""
        loaded = _loaded(self.point, "zeros", at, width)
        return f"{loaded} + {float(self._more)}f" if self._more else loaded

    # -- numbers ---------------------------------------------------------------------------------

    @property
    def helpers(self) -> tuple[str, ...]:
        """Functions that go before the kernel."""
        if self.form not in narrow.TABLES:
            return _HALVES
        numbers = ", ".join(f"{float.hex(n)}f" for n in narrow.TABLES[self.form])
        lanes = ", ".join(f"known_numbers[code.s{lane}]" for lane in range(LANES))
        return (
            *_HALVES,
            f"__constant float known_numbers[16] = {{{numbers}}};",
            f"static float{LANES} look_up(uint{LANES} code)",
            "{",
            f"    return (float{LANES})({lanes});",
            "}",
        )

    def bases(self, zero: str) -> list[str]:
        """Statements declaring what `rows_of` takes off, where that is no constant; of LANES
        columns with the zero points `zero`."""
        if self.form != "integer" or self.zero is not None or not self._is_whole:
            return []
        return [f"const float{LANES} base{s} = {zero} + {_power(s)};" for s in self._shifts]

    @property
    def _shifts(self) -> range:
        """Where codes lie in half a word: those of the upper one are moved there."""
        return range(0, _WORD // 2, self.bits)

    @property
    def _is_whole(self) -> bool:
        """Whether zero points are integers of a byte: sums with a power of two are exact."""
        return kind(self.point) in ("u", "i") if self.zero is None else True

    def of_columns(self, words: str, number: int, zero: str) -> str:
        """Code `number` of each of LANES words, without scale; the upper halves of those are
        `words`_high. `zero` as in `bases`, whose names this reads."""
        half = _WORD // 2
        shift = self.bits * number % half
        words = f"{words}_high" if self.bits * number >= half else words
        mask = ((1 << self.bits) - 1) << shift
        vec = f"uint{LANES}"
        if self.form != "integer":
            code = f"{words} >> {shift} & ({vec})({mask >> shift}u)"
            return self._without(self._number(f"({code})"), zero)
        bits = f"as_float{LANES}({words} & ({vec})({mask}u) | ({vec})(power{shift}))"
        if self.zero is not None:
            return f"{bits} - {_power(shift, self.zero + self._more)}"
        if self._is_whole:
            return f"{bits} - base{shift}"
        return f"{bits} - {_power(shift)} - {zero}"

    def of_run(self, word: str, zero: str) -> str:
        """LANES codes along k, the lowest of `word`, a uint; without scale. `zero`: a float."""
        half, vec = _WORD // 2, f"uint{LANES}"
        wide = self.bits * LANES > half
        shifts = [self.bits * n % half for n in range(LANES)]
        parts = [f"{word} >> {half}" if wide and n >= LANES // 2 else word for n in range(LANES)]
        words = f"({vec})({', '.join(parts)})" if wide else f"({vec})({word})"
        low = (1 << self.bits) - 1
        if self.form != "integer":
            moved = f"({words} >> ({vec})({_listed(shifts)}) & ({vec})({low}u))"
            return self._without(self._number(moved), f"(float{LANES})({zero})")
        masks = _listed(f"{low << shift}u" for shift in shifts)
        powers = _listed(f"power{shift}" for shift in shifts)
        bits = f"as_float{LANES}({words} & ({vec})({masks}) | ({vec})({powers}))"
        if self.zero is not None:
            more = self.zero + self._more
            return f"{bits} - (float{LANES})({_listed(_power(s, more) for s in shifts)})"
        bases = f"(float{LANES})({_listed(map(_power, shifts))})"
        if self._is_whole:
            return f"{bits} - ({bases} + (float{LANES})({zero}))"
        return f"{bits} - {bases} - (float{LANES})({zero})"

    def _number(self, codes: str) -> str:
        if self.form in narrow.TABLES:
            return f"look_up({codes})"
        return f"decode_{self.form}_float{LANES}({codes})"

    def _without(self, number: str, zero: str) -> str:
        if self.zero is None:
            return f"{number} - {zero}"
        return f"{number} - {float(self.zero)}f" if self.zero else number


def quads(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """[k, n] as [ceil(n / LANES), k, LANES], zeros beyond n."""
    import numpy as np

    k, n = array.shape
    count = -(-n // LANES)
    padded = np.zeros((k, count * LANES), array.dtype)
    padded[:, :n] = array
    return np.ascontiguousarray(padded.reshape(k, count, LANES).swapaxes(0, 1))


def format_of(spec: EncodedMatmulSpec) -> Format | None:
    """The format of a product's constant; None for blocks that a word of codes would go over."""
    k, n = spec.ins[1].shape[-2:]
    scales, *zeros = (spec.ins[place] for place in spec.places[1:])
    if not isinstance(k, int) or not isinstance(n, int):
        return None
    block = 0 if scales.shape[0] == 1 else spec.block
    if block % (_WORD // spec.bits):
        return None
    return Format(
        k=k,
        columns=n,
        bits=spec.bits,
        form=spec.form,
        is_signed=spec.form == "integer" and spec.ins[1].dtype == "int8",
        block=block,
        zero=spec.zero,
        scale=scales.dtype,
        point=zeros[0].dtype if zeros else "",
        places=spec.places,
    )


def _loaded(dtype: str, name: str, at: str, width: int) -> str:
    if dtype == "float16" and width == LANES:
        return f"halves({name} + {at})"
    value = memory.load(dtype, name, at, width, "1", is_aligned=True)
    return memory.convert(value, "float", compute(dtype), width)


def _power(shift: int, more: int = 0) -> str:
    """The power of two whose bit `shift` is worth 1, and more."""
    return f"{float((1 << _SIGNIFICANT - shift) + more)}f"


def _power_bits(shift: int) -> int:
    """Its bits as a float32."""
    return 127 + _SIGNIFICANT - shift << _SIGNIFICANT


def _listed(items: Iterable[object]) -> str:
    return ", ".join(map(str, items))

"""float32 operands as sums of numbers that a matrix unit multiplies, and which products are added.

Two TF32 (Markidis et al., "NVIDIA Tensor Core Programmability, Performance & Precision", 2018) or
three bfloat16 (Henry, Tang & Heinecke, "Leveraging the bfloat16 Artificial Intelligence Datatype
For Higher-Precision Computations", 2019) have all but the last of a float32's bits, or all of them.
"""

from __future__ import annotations

from dataclasses import dataclass

HIGH = """// float32 as two TF32: the nearest, ties away from zero, and the rest, whose 12 bits
// lose one. Neither loses NaN, and what is infinite, or becomes so, makes the rest NaN.
static uint4 high(uint4 v) { return (v + 0x1000u) & 0xFFFFE000u; }
static uint4 low(uint4 v, uint4 h)
{
    return as_uint4(as_float4(v) - as_float4(h)) & 0xFFFFE000u;
}"""

THIRDS = """// float32 as three bfloat16: the nearest, ties away from zero, then the upper eight
// bits of what is left, and the last eight. NaN stays in one of them, and what is infinite, or
// becomes so, leaves NaN.
static uint4 near(float4 v) { return as_uint4(v) + 0x8000u; }
static ushort4 upper(float4 v) { return convert_ushort4(as_uint4(v) >> 16); }
static ushort4 nearest(float4 v) { return convert_ushort4(near(v) >> 16); }
static float4 less_nearest(float4 v) { return v - as_float4(near(v) & 0xFFFF0000u); }
static float4 less_upper(float4 v) { return v - as_float4(as_uint4(v) & 0xFFFF0000u); }
// Two of them in a word.
static uint upper_pair(float x, float y)
{
    return as_uint(x) >> 16 | (as_uint(y) & 0xFFFF0000u);
}
static uint nearest_pair(float x, float y)
{
    return (as_uint(x) + 0x8000u) >> 16 | (as_uint(y) + 0x8000u & 0xFFFF0000u);
}"""


@dataclass(frozen=True)
class Plane:
    """One summand of all elements of a tile, which lies in local memory beside the others.

    `pack` makes its bits of a vector of what is left of the elements, `pair` those of two, of which
    the first is in the lower half; `rest` makes what is left then.
    """

    name: str
    pack: str
    pair: str
    rest: str = ""


@dataclass(frozen=True)
class Summands:
    """`products` by the names of A's and B's summands, small ones first: then only the last sums
    are rounded by much. `hint`: the precision that asks for them; '' where there is nothing to ask.

    `planes`: the summands are made on an operand's way to local memory; none: of registers.
    """

    hint: str
    products: tuple[tuple[str, str], ...]
    helpers: str = ""
    planes: tuple[Plane, ...] = ()

    @property
    def is_one(self) -> bool:
        """Whether operands are multiplied as they are."""
        return len(self.products) == 1


ONE = Summands("", (("", ""),))
TWO_TF32 = Summands("3xtf32", (("l", "h"), ("h", "l"), ("h", "h")), HIGH)
THREE_BF16 = Summands(
    "bf16x3",
    (("l", "h"), ("m", "m"), ("h", "l"), ("m", "h"), ("h", "m"), ("h", "h")),
    THIRDS,
    (
        Plane("h", "nearest", "nearest_pair", "less_nearest"),
        Plane("m", "upper", "upper_pair", "less_upper"),
        Plane("l", "upper", "upper_pair"),
    ),
)

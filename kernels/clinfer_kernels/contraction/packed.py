"""Text that rounds four float32 to what a matrix unit multiplies, and that reads it back."""

from __future__ import annotations

FLUSHED = """// What instructions see that take subnormal float16 for zero.
static float flushed(float x) { return fabs(x) < 0x1p-14f ? 0.0f : x; }"""


def _asm(kind: str) -> str:
    return f"""static uint2 packed(float4 v)
{{
    uint x, y;
    __asm__ ("cvt.rn.{kind}x2.f32 %0, %1, %2;" : "=r"(x) : "f"(v.y), "f"(v.x));
    __asm__ ("cvt.rn.{kind}x2.f32 %0, %1, %2;" : "=r"(y) : "f"(v.w), "f"(v.z));
    return (uint2)(x, y);
}}"""


PACK = {
    "float16": """static uint2 packed(float4 v)
{
    uint2 bits;
    vstore_half4_rte(v, 0, (half*)&bits);
    return bits;
}""",
    "bfloat16": """static uint2 packed(float4 v)
{
    const uint4 b = as_uint4(v);
    const uint4 even = b + 0x7FFFu + (b >> 16 & 1u);
    const uint4 r = (isnan(v) ? b | 0x400000u : even) >> 16;
    return (uint2)(r.x | r.y << 16, r.z | r.w << 16);
}""",
    "bfloat16_upper": """// To nearest, ties away from zero: few instructions.
static uint2 packed(float4 v)
{
    const uint4 near = isnan(v) ? (uint4)(0x7FC00000u) : as_uint4(v) + 0x8000u;
    return as_uint2(as_ushort8(near).odd);
}""",
    "tf32": """static float4 packed(float4 v)
{
    const uint4 b = as_uint4(v);
    const uint4 near = (b + 0x1000u) & 0xFFFFE000u; // to nearest, ties away from zero
    return as_float4(isnan(v) ? b | 0x400000u : near);
}""",
    "float16 ptx": _asm("f16"),
    "bfloat16 ptx": _asm("bf16"),
}
"""By operand; those of a compiler have its name behind. `bfloat16_upper` is for Intel's."""

VALUE = {
    "float16": "vload_half(i, (const half*)&(x))",
    "bfloat16": "as_float((x) >> (16 * (i)) << 16)",
    "tf32": "as_float(x)",
    "float32": "as_float(x)",
    "int8": "(int)(char)((x) >> (8 * (i)) & 255)",
    "uint8": "(int)((x) >> (8 * (i)) & 255)",
}
"""Element i of register x, by operand."""

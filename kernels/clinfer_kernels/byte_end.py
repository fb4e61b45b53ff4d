"""The end of sums that are quantised to 8 bits: vectors side by side become bytes together.

    clip(x, least - zero, most - zero), rounded, + zero        as `requantise` writes it, is

    bytes(words(whole(min(most - zero, x))) + zero)

whole_N gives int32, ties to even, and the least one for NaN and what is far below; words, the sum
and bytes saturate (vcvtps2dq, vpackssdw, vpaddsw, vpackuswb). So nothing is clipped from below, and
up to four vectors of a tile are narrowed as one, and looked up as one where a table is what comes
last. For PoCL's compiler on processors with AVX2.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from clinfer_kernels.expr import Builder, Expr, Line
from clinfer_kernels.integer_dot import instructions
from clinfer_kernels.lookup import has_permutations
from clinfer_kernels.spec import Target

LIMITS = {"uint8": (0, 255), "int8": (-128, 127)}

_NAME = re.compile(
    r"(?:even_float(|2|4|8|16)|whole_(8|16)|bytes_(u?int8)_(\d)x(8|16)|put_(\d+)_(\d+)_(8|16))$"
)


@dataclass(frozen=True)
class ByteEnd:
    """`expr` gives the float that is rounded; `zero` is a number or the number of an operand.

    `table`: the operand that the bytes are looked up in.
    """

    expr: Expr
    dtype: str
    zero: int
    is_operand: bool
    table: int | None = None


def byte_end(expr: Expr, target: Target) -> ByteEnd | None:
    """What `expr` ends with; None where it is something else, or the compiler has no such way."""
    if not _has_instructions(target) or len(expr.outputs) != 1:
        return None
    find = _Finder(expr)
    last, table = find.line(expr.outputs[0]), None
    if last is not None and last.op == "lookup":
        inner, table = last.args
        if table >= find.count or not has_permutations(target):
            return None
        last = find.line(inner)
    if last is None or last.op != "cast" or last.dtype not in LIMITS:
        return None
    found = find.rounded(last.args[0])
    if found is None:
        return None
    inside, zero = found
    if zero is not None and zero >= find.count and find.constant(zero) is None:
        return None
    builder = Builder(expr.inputs)
    numbers = builder_numbers(builder, expr)
    clip = find.line(inside)
    assert clip is not None
    value = numbers[inside]
    if find.is_limit(clip.args[1], zero, LIMITS[last.dtype][0]) and find.is_limit(
        clip.args[2], zero, LIMITS[last.dtype][1]
    ):
        value = builder.op("min_with", numbers[clip.args[2]], numbers[clip.args[0]])
    is_operand = zero is not None and zero < find.count
    point = 0 if zero is None else zero if is_operand else int(find.constant(zero) or 0)
    return ByteEnd(builder.build(value), last.dtype, point, is_operand, table)


def builder_numbers(builder: Builder, expr: Expr) -> list[int]:
    """Every value of `expr` in `builder`."""
    numbers = list(range(len(expr.inputs)))
    for line in expr.lines:
        args = (numbers[a] for a in line.args)
        numbers.append(builder.op(line.op, *args, dtype=line.dtype, attrs=line.attrs))
    return numbers


@dataclass(frozen=True)
class _Finder:
    """Finds patterns in an expression."""

    expr: Expr

    @property
    def count(self) -> int:
        return len(self.expr.inputs)

    def line(self, number: int) -> Line | None:
        return self.expr.lines[number - self.count] if number >= self.count else None

    def constant(self, number: int) -> float | int | None:
        made = self.line(number)
        if made is None or made.op != "const" or isinstance(made.attrs[0], str):
            return None
        return made.attrs[0]

    def rounded(self, number: int) -> tuple[int, int | None] | None:
        """What is clipped and rounded, and the zero point that is added; numbers of values."""
        made = self.line(number)
        if made is None or made.dtype != "int32":
            return None
        if made.op == "near_bits":
            return (made.args[0], None) if self.is_clipped(made.args[0]) else None
        if made.op != "add":
            return None
        for one, other in (made.args, made.args[::-1]):
            bits, zero = self.line(one), self.line(other)
            if bits is None or zero is None or {bits.op, zero.op} != {"near_bits"}:
                continue
            if self.is_clipped(bits.args[0]) and not self.is_clipped(zero.args[0]):
                return bits.args[0], zero.args[0]
        return None

    def is_clipped(self, number: int) -> bool:
        made = self.line(number)
        return made is not None and made.op == "clip"

    def is_limit(self, number: int, zero: int | None, limit: int) -> bool:
        """Whether a bound is `limit` without the zero point."""
        if zero is None:
            return self.constant(number) == limit
        made = self.line(number)
        if made is None or made.op != "sub":
            return False
        return self.constant(made.args[0]) == limit and made.args[1] == zero


def whole(value: str, lanes: int) -> str:
    """The whole numbers nearest to a vector of floats."""
    return f"whole_{lanes}({value})"


def narrowed(end: ByteEnd, vectors: Sequence[str], zero: str, table: str, lanes: int) -> str:
    """The bytes of up to four vectors of whole numbers, one after the other, as one vector."""
    made = f"bytes_{end.dtype}_{len(vectors)}x{lanes}({', '.join(vectors)}, {zero})"
    return f"lookup_bytes_64({made}, {table})" if end.table is not None else made


def put(value: str, first: int, count: int, lanes: int, to: str) -> str:
    """A statement that stores `count` vectors of bytes of `value` from number `first` on."""
    ints = lanes // 4
    return f"put_{first * ints}_{count * ints}_{lanes}({value}, {to});"


def helper(name: str, target: Target) -> str | None:
    """The text of the function `name`; None where this module has no such function."""
    match = _NAME.match(name)
    if match is None:
        return None
    if match[1] is not None:
        return _even(name, match[1], target)
    if match[2]:
        return _whole(name, int(match[2]))
    if match[3]:
        return _bytes(name, match[3], int(match[4]), int(match[5]))
    return _put(name, int(match[6]), int(match[7]), int(match[8]))


def _even(name: str, lanes: str, target: Target) -> str:
    """Rounds to whole numbers, ties to even, below 2^22."""
    vec = f"float{lanes}"
    if not _has_instructions(target) or lanes not in ("8", "16"):
        return f"static {vec} {name}(const {vec} x) {{ return (x + 12582912.0f) - 12582912.0f; }}"
    operation, sign = ("vrndscaleps", "v") if lanes == "16" else ("vroundps", "x")
    return (
        f"static {vec} {name}(const {vec} x) {{\n"
        f"    {vec} made;\n"
        f'    __asm__("{operation} $0, %1, %0" : "={sign}"(made) : "{sign}"(x));\n'
        "    return made;\n}"
    )


def _whole(name: str, lanes: int) -> str:
    sign = _register(lanes)
    return (
        f"static int{lanes} {name}(const float{lanes} x) {{\n"
        f"    int{lanes} made;\n"
        f'    __asm__("vcvtps2dq %1, %0" : "={sign}"(made) : "{sign}"(x));\n'
        "    return made;\n}"
    )


def _bytes(name: str, dtype: str, count: int, lanes: int) -> str:
    """Within 128 bits each instruction puts what it makes of its operands one after the other; the
    int32 they make up are brought into order at the end."""
    vec, sign = f"int{lanes}", _register(lanes)
    parts = "abcd"[:count]
    a, b, c, d = (parts[min(v, count - 1)] for v in range(4))
    narrow = "vpackuswb" if dtype == "uint8" else "vpacksswb"
    order = ", ".join(str(4 * g + part) for part in range(4) for g in range(lanes // 4))
    lines = [
        f"const {vec} shift = (zero & 0xffff) | zero << 16;",
        f"{vec} low, high, made;",
        _two("vpackssdw", "low", a, b, sign),
        _two("vpaddsw", "low", "low", "shift", sign),
    ]
    if count > 2:
        lines += [
            _two("vpackssdw", "high", c, d, sign),
            _two("vpaddsw", "high", "high", "shift", sign),
        ]
    lines += [
        _two(narrow, "made", "low", "high" if count > 2 else "low", sign),
        f"return __builtin_shufflevector(made, made, {order});",
    ]
    given = ", ".join(f"const {vec} {part}" for part in parts)
    head = f"static {vec} {name}({given}, const int zero) {{\n    "
    return head + "\n    ".join(lines) + "\n}"


def _put(name: str, first: int, ints: int, lanes: int) -> str:
    """In the largest pieces that there are vectors of."""
    types, lines = [], []
    start, end = first, first + ints
    for size in (16, 8, 4, 2):
        piece = f"{name}_{size}"
        while end - first >= size and size <= lanes:
            chosen = ", ".join(str(first + j) for j in range(size))
            value = "x" if size == lanes else f"__builtin_shufflevector(x, x, {chosen})"
            lines.append(f"    *(__global {piece}*)(to + {4 * (first - start)}) = {value};")
            types.append(f"typedef int{size} {piece} __attribute__((aligned(1), may_alias));")
            first += size
    head = f"static void {name}(const int{lanes} x, __global uchar* to) {{"
    return "\n".join([*dict.fromkeys(types), head, *lines, "}"])


def _register(lanes: int) -> str:
    return "v" if lanes == 16 else "x"


def _two(operation: str, out: str, x: str, y: str, sign: str) -> str:
    return f'__asm__("{operation} %2, %1, %0" : "={sign}"({out}) : "{sign}"({x}), "{sign}"({y}));'


def _has_instructions(target: Target) -> bool:
    return target.dialect == "pocl" and bool(instructions(target) & {"x86-64-v4", "x86-64-v3"})

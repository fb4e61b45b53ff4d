"""The end of quantised operators: what rounds and clips to an integer, in few instructions.

    min(high, max(low, rint(x / s) + zero)), cast to 8 or 16 bits, and NaN is low

is, for constants, with bounds that are whole numbers and clipped before rounding instead of after:

    bits(clip(x / s, low - zero, high - zero)) + bits(zero)        the low 16 bits of it

`bits` adds 1.5 * 2^23: a float below 2^22 is rounded, ties to even, and lies in the result's
lowest bits as an integer. x / s is x * (1 / s) corrected by what multiplying leaves over
(Markstein, "IA-64 and elementary functions", 2000, section 8): correctly rounded, as a division.
What reads the result as a float again gets the float.

Where zero is no constant only `rint` becomes that addition: of vectors it is a call in some CPU
compilers' libraries. Behind a sum of integers, which floats do not hold exactly anyhow, a product
and a sum are one operation (`finished`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from clinfer_kernels.expr import Builder, Expr, Line, prune
from clinfer_kernels.types import is_float, rounded

_LARGEST = 1 << 22
_ROUNDS = frozenset(["round", "round_near", "round_even", "near_bits"])
_SHORT = ("uint8", "int8", "uint16", "int16")


@dataclass(frozen=True)
class _End:
    """clip(round(value / scale) + zero, low, high); `scale` is None for 1."""

    value: int
    scale: float | None
    zero: int
    low: int
    high: int


def requantised(expr: Expr) -> Expr:
    """`expr` with the shorter form of each such end whose numbers are constants; exact."""
    reader = _Reader(expr)
    builder = Builder(expr.inputs)
    numbers = list(range(reader.count))
    clipped: dict[int, tuple[int, int]] = {}  # by the quantised number: what is rounded, the zero
    floats: dict[int, tuple[int, int]] = {}  # by the float made of it
    for line in expr.lines:
        args = [numbers[a] for a in line.args]
        end = reader.end(line)
        number: int | None = None
        if end is not None:
            number, inside = _shorter(builder, end, numbers, line.dtype)
            clipped[number] = inside, end.zero
        elif line.op == "cast" and line.dtype == "float32" and args[0] in clipped:
            inside, zero = clipped[args[0]]
            number = builder.op("round_near", inside)
            if zero:
                number = builder.op("add", number, builder.const(float(zero), "float32"))
            floats[number] = inside, zero
        elif line.op == "sub" and args[0] in floats:
            inside, zero = floats[args[0]]
            if reader.constant(line.args[1]) == zero:
                number = builder.op("round_near", inside)
        if number is None:
            number = builder.op(line.op, *args, dtype=line.dtype, attrs=line.attrs)
        numbers.append(number)
    return builder.build(*(numbers[v] for v in expr.outputs))


def rounds(expr: Expr) -> bool:
    """Whether it makes whole numbers, in integers or floats, so that a last bit may count."""
    dtypes = (expr.dtype(value) for value in expr.outputs)
    return any(line.op in _ROUNDS for line in expr.lines) or not all(map(is_float, dtypes))


def _shorter(builder: Builder, end: _End, numbers: list[int], dtype: str) -> tuple[int, int]:
    """The quantised number, and what of it is rounded."""
    value = numbers[end.value]
    if end.scale is not None:
        scale = builder.const(end.scale, "float32")
        inverse = builder.const(rounded(1.0 / end.scale, "float32"), "float32")
        value = builder.op("div_by", value, scale, inverse)
    bounds = [builder.const(float(n), "float32") for n in (end.low, end.high)]
    if end.zero:  # one literal, which may become an operand
        zero = builder.const(float(end.zero), "float32")
        bounds = [builder.op("sub", bound, zero) for bound in bounds]
    inside = builder.op("clip", value, *bounds)
    bits = builder.op("near_bits", inside, dtype="int32")
    if end.zero:
        bits = builder.op("add", bits, builder.op("near_bits", zero, dtype="int32"))
    return builder.op("cast", bits, dtype=dtype), inside


@dataclass(frozen=True)
class _Reader:
    """Finds patterns in an expression."""

    expr: Expr

    @property
    def count(self) -> int:
        return len(self.expr.inputs)

    def line(self, number: int) -> Line | None:
        """The line that makes a value; None for operands."""
        return self.expr.lines[number - self.count] if number >= self.count else None

    def constant(self, number: int) -> float | int | None:
        made = self.line(number)
        if made is None or made.op != "const" or isinstance(made.attrs[0], str):
            return None
        return made.attrs[0]

    def whole(self, number: int) -> int | None:
        """A constant that is a whole number of few bits."""
        value = self.constant(number)
        if value is None or not abs(value) < 1 << 17 or value != int(value):
            return None
        return int(value)

    def bounded(self, top: Line) -> tuple[int, int, int] | None:
        """(value, low's number, high's number) of min(where(value > low, value, low), high)."""
        if top.op not in ("min", "min_with"):
            return None
        for inner, high in (top.args, top.args[::-1]):
            low = self.line(inner)
            if low is None or low.op != "where" or self.constant(high) is None:
                continue
            test = self.line(low.args[0])
            if test is not None and test.op == "gt" and test.args == low.args[1:]:
                return low.args[1], low.args[2], high
        return None

    def is_small(self, number: int) -> bool:
        value = self.constant(number)
        return value is not None and abs(value) < _LARGEST

    def end(self, line: Line) -> _End | None:
        """The end of which `line` is the last operation."""
        top = self.line(line.args[0]) if line.op == "cast" and line.dtype in _SHORT else None
        found = None if top is None or top.dtype != "float32" else self.bounded(top)
        if found is None:
            return None
        value, low, high = found[0], self.whole(found[1]), self.whole(found[2])
        zero: int | None = 0
        made = self.line(value)
        if made is not None and made.op == "add":
            for one, other in (made.args, made.args[::-1]):
                if self.is_round(one) and self.whole(other) is not None:
                    zero, made = self.whole(other), self.line(one)
                    break
        if made is None or made.op != "round" or low is None or high is None or zero is None:
            return None
        return _End(*self.ratio(made.args[0]), zero, low, high)

    def ratio(self, number: int) -> tuple[int, float | None]:
        """(x, scale) of x / scale, where multiplying neither over- nor underflows."""
        made = self.line(number)
        if made is not None and made.op == "div":
            scale = self.constant(made.args[1])
            if scale is not None and 1e-30 < scale < 1e30:
                return made.args[0], float(scale)
        return number, None

    def is_round(self, number: int) -> bool:
        made = self.line(number)
        return made is not None and made.op == "round" and made.dtype == "float32"


def rounds_near(expr: Expr) -> Expr:
    """`expr` with `round_near` for each `round` whose result is clipped on both sides."""
    reader = _Reader(expr)
    clipped: dict[int, int] = {}  # how often the clipping reads each
    for top in expr.lines:
        found = reader.bounded(top)
        if found is None or not all(map(reader.is_small, found[1:])):
            continue
        value = reader.line(found[0])
        places = found[:1] if value is None or value.op != "add" else value.args
        times = 2 if places == found[:1] else 1
        clipped.update({p: times for p in places if reader.is_round(p)})
    readers = [number for made in expr.lines for number in made.args] + list(expr.outputs)
    once = {n for n, times in clipped.items() if readers.count(n) == times}
    builder = Builder(expr.inputs)
    numbers = list(range(reader.count))
    for index, made in enumerate(expr.lines):
        args = tuple(numbers[a] for a in made.args)
        op = "round_near" if index + reader.count in once else made.op
        numbers.append(builder.op(op, *args, dtype=made.dtype, attrs=made.attrs))
    return builder.build(*(numbers[v] for v in expr.outputs))


def contracted(expr: Expr) -> Expr:
    """`expr` with one operation for a product and what is added, where only the sum reads it."""
    reader = _Reader(expr)
    readers = [number for made in expr.lines for number in made.args] + list(expr.outputs)
    builder = Builder(expr.inputs)
    numbers = list(range(reader.count))
    for made in expr.lines:
        args = tuple(numbers[a] for a in made.args)
        number: int | None = None
        if made.op == "add" and made.dtype == "float32":
            for one, other in (made.args, made.args[::-1]):
                product = reader.line(one)
                if product is None or product.op != "mul" or readers.count(one) != 1:
                    continue
                factors = (numbers[a] for a in product.args)
                number = builder.op("mul_add", *factors, numbers[other])
                break
        if number is None:
            number = builder.op(made.op, *args, dtype=made.dtype, attrs=made.attrs)
        numbers.append(number)
    return prune(builder.build(*(numbers[v] for v in expr.outputs)))


def finished(expr: Expr) -> Expr:
    """The end of a sum of integers, in few operations."""
    near = contracted(rounds_near(expr))
    lines = (x._replace(op="round_even") if x.op == "round_near" else x for x in near.lines)
    return replace(near, lines=tuple(lines))

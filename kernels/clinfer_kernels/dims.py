"""Sizes: integers known when the model is compiled, or expressions over symbols bound per run.

A ``Dim`` is an ``int`` or an ``Expr``. An ``Expr`` is a polynomial with integer coefficients whose
atoms are symbols (a dynamic dimension of the model) or opaque quotients, remainders, minima and
maxima. Two expressions are equal when their normal forms are; an expression without symbols is
always an ``int``, so ``isinstance(d, int)`` asks 'is this size known now?'.

Symbols stand for sizes, hence for integers >= 0. What broadcasting makes of sizes is in
`broadcasts`, how they are written down in `dim_json`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from math import gcd, prod
from typing import NamedTuple, Union

Dim = Union[int, "Expr"]
Monomial = tuple[tuple["Atom", int], ...]  # ((atom, power), ...), atoms in sort order


class Sym(NamedTuple):
    """A dynamic size, named as in the model ('batch') or made up for a data-dependent one."""

    name: str

    @property
    def sort_key(self) -> str:
        return self.name


class Opaque(NamedTuple):
    """An integer operation that has no polynomial form; `op` is a key of `OPERATIONS`."""

    op: str
    left: Dim
    right: Dim

    @property
    def sort_key(self) -> str:
        return f"~{self.op}({self.left},{self.right})"


Atom = Sym | Opaque

OPERATIONS: dict[str, Callable[[int, int], int]] = {
    "floordiv": lambda a, b: a // b,
    "mod": lambda a, b: a % b,
    "min": min,
    "max": max,
    "join": lambda a, b: b if a == 1 else a,  # of sizes that broadcast: that of the result
    "at most": lambda a, b: int(a <= b),  # a condition: 1 where it holds, else 0
    "step": lambda n, s: 0 if n == 1 else s,  # a stride along n places, where one place repeats
}

RELATIONS: dict[str, Callable[[int, int], bool]] = {
    "equal": lambda left, right: left == right,
    "fits": lambda left, right: left in (1, right),
    "join": lambda left, right: left == right or 1 in (left, right),
    "at most": lambda left, right: left <= right,
}
"""What can be required of two sizes. 'fits': what broadcasts to a given size; 'join': sizes that
broadcast to each other."""


MOST_WEIGHT = 4096
MOST_DEPTH = 64
_MOST_PRODUCTS = 1 << 14  # terms that a product has before equal ones are joined


class TooComplex(ValueError):  # noqa: N818 - says what the expression is
    """An expression of sizes outgrew `MOST_WEIGHT` or `MOST_DEPTH`: sums of products explode."""

    def __init__(self) -> None:
        super().__init__("an expression of the inputs' sizes becomes too long to be followed")


class Expr:
    """A polynomial over atoms; never constant (operations return ``int`` where they can).

    `weight` is about the number of symbols, numbers and signs in its text, `depth` how many opaque
    operations lie in one another. Raises `TooComplex`.
    """

    __slots__ = ("_hash", "depth", "terms", "weight")
    weight: int
    depth: int

    def __init__(self, terms: tuple[tuple[Monomial, int], ...]) -> None:
        self.terms = terms
        self._hash = hash(terms)
        weight, depth = 0, 0
        for monomial, factor in terms:
            weight += 1 + (factor.bit_length() >> 6)
            for atom, power in monomial:
                weight += power
                if len(atom) == 3:  # an opaque operation
                    for side in atom[1:]:
                        if isinstance(side, Expr):
                            weight += side.weight
                            depth = max(depth, side.depth + 1)
        if weight > MOST_WEIGHT or depth > MOST_DEPTH:
            raise TooComplex
        self.weight, self.depth = weight, depth

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Expr) and self.terms == other.terms

    def __hash__(self) -> int:
        return self._hash

    def __add__(self, other: Dim) -> Dim:
        merged = dict(self.terms)
        for monomial, factor in _terms(other):
            merged[monomial] = merged.get(monomial, 0) + factor
        return polynomial(merged)

    __radd__ = __add__

    def __neg__(self) -> Dim:
        return self * -1

    def __sub__(self, other: Dim) -> Dim:
        return self + (other * -1)

    def __rsub__(self, other: Dim) -> Dim:
        return (self * -1) + other

    def __mul__(self, other: Dim) -> Dim:
        product: dict[Monomial, int] = {}
        others = _terms(other)
        if len(self.terms) * len(others) > _MOST_PRODUCTS:
            raise TooComplex
        for left, a in self.terms:
            for right, b in others:
                key = _times(left, right)
                product[key] = product.get(key, 0) + a * b
        return polynomial(product)

    __rmul__ = __mul__

    def __floordiv__(self, other: Dim) -> Dim:
        return floordiv(self, other)

    def __rfloordiv__(self, other: Dim) -> Dim:
        return floordiv(other, self)

    def __mod__(self, other: Dim) -> Dim:
        if divide_exactly(self, other) is not None:
            return 0
        return opaque("mod", self, other)

    def __rmod__(self, other: Dim) -> Dim:
        return opaque("mod", other, self)

    def __bool__(self) -> bool:
        return True

    def __str__(self) -> str:
        return " + ".join(_term_text(m, f) for m, f in self.terms)

    __repr__ = __str__


@lru_cache(maxsize=4096)
def sym(name: str) -> Expr:
    """The symbol `name` as a size."""
    return Expr(((((Sym(name), 1),), 1),))


def floordiv(a: Dim, b: Dim) -> Dim:
    """`a // b`, exact where the polynomial division has no remainder."""
    if isinstance(a, int) and isinstance(b, int):
        return a // b
    exact = divide_exactly(a, b)
    if exact is not None:
        return exact
    if isinstance(a, Expr) and isinstance(b, int) and b > 0:
        whole, rest = _split_multiples(a, b)
        if whole != 0:
            return whole + opaque("floordiv", rest, b)
    return opaque("floordiv", a, b)


def ceildiv(a: Dim, b: Dim) -> Dim:
    """The least integer >= a / b, for b > 0."""
    return floordiv(a + b - 1, b)


def minimum(a: Dim, b: Dim) -> Dim:
    """The smaller size; of equal ones, that one."""
    return a if a == b else opaque("min", a, b)


def maximum(a: Dim, b: Dim) -> Dim:
    """The larger size; of equal ones, that one."""
    return a if a == b else opaque("max", a, b)


def differs(a: Dim, b: Dim) -> Dim:
    """1 where two numbers differ, else 0."""
    return opaque("step", a - b + 1, 1)


def at_most(a: Dim, b: Dim) -> Dim:
    """The condition a <= b as a size: 1 where it holds, else 0."""
    return 1 if a == b else opaque("at most", a, b)


def product(dims: Iterable[Dim]) -> Dim:
    """The number of elements of a shape; 1 for a scalar."""
    result: Dim = 1
    for dim in dims:
        result = result * dim
    return result


def divide_exactly(a: Dim, b: Dim) -> Dim | None:
    """`a / b` where `b` is one term dividing every term of `a` (or equals `a`); else None."""
    if a == b:
        return 1
    divisor = _terms(b)
    if len(divisor) != 1:
        return None
    monomial, factor = divisor[0]
    quotient: dict[Monomial, int] = {}
    for term, coefficient in _terms(a):
        reduced = _over(term, monomial)
        if reduced is None or factor == 0 or coefficient % factor:
            return None
        quotient[reduced] = coefficient // factor
    return polynomial(quotient)


def is_static(dims: Iterable[Dim]) -> bool:
    """Whether every size is known now."""
    return all(isinstance(d, int) for d in dims)


def symbols(dim: Dim) -> frozenset[str]:
    """The names of the symbols `dim` depends on."""
    names: set[str] = set()
    for monomial, _ in _terms(dim):
        for atom, _power in monomial:
            if isinstance(atom, Sym):
                names.add(atom.name)
            else:
                names |= symbols(atom.left) | symbols(atom.right)
    return frozenset(names)


def evaluate(dim: Dim, values: Mapping[str, int]) -> int:
    """The value of `dim`; `KeyError` names a symbol that is not bound."""
    if isinstance(dim, int):
        return dim
    return sum(f * prod(_atom(a, values) ** p for a, p in m) for m, f in dim.terms)


def substitute(dim: Dim, values: Mapping[str, Dim]) -> Dim:
    """`dim` with symbols replaced; symbols without a value stay."""
    if isinstance(dim, int):
        return dim
    total: Dim = 0
    for monomial, factor in dim.terms:
        term: Dim = factor
        for atom, power in monomial:
            replaced = _substitute_atom(atom, values)
            for _ in range(power):
                term = term * replaced
        total = total + term
    return total


def _atom(atom: Atom, values: Mapping[str, int]) -> int:
    if isinstance(atom, Sym):
        return values[atom.name]
    return OPERATIONS[atom.op](evaluate(atom.left, values), evaluate(atom.right, values))


def _substitute_atom(atom: Atom, values: Mapping[str, Dim]) -> Dim:
    if isinstance(atom, Sym):
        return values.get(atom.name, sym(atom.name))
    left = substitute(atom.left, values)
    right = substitute(atom.right, values)
    if atom.op == "floordiv":
        return floordiv(left, right)
    return opaque(atom.op, left, right)


def opaque(op: str, a: Dim, b: Dim) -> Dim:
    """The operation `op` of `OPERATIONS` on two sizes."""
    if isinstance(a, int) and isinstance(b, int):
        return OPERATIONS[op](a, b)
    if op in ("join", "step") and a == 1:
        return b if op == "join" else 0
    return Expr(((((Opaque(op, a, b), 1),), 1),))


def _terms(dim: Dim) -> Sequence[tuple[Monomial, int]]:
    if isinstance(dim, Expr):
        return dim.terms
    return (((), dim),) if dim else ()


def polynomial(terms: Mapping[Monomial, int]) -> Dim:
    """The sum of monomials times their factors."""
    kept = [(m, f) for m, f in terms.items() if f]
    if not kept:
        return 0
    if len(kept) == 1 and kept[0][0] == ():
        return kept[0][1]
    if len(kept) > 1:
        kept.sort(key=lambda term: _monomial_key(term[0]))
    return Expr(tuple(kept))


@lru_cache(maxsize=4096)
def _monomial_key(monomial: Monomial) -> tuple[int, tuple[tuple[str, int], ...]]:
    return (-len(monomial), tuple((a.sort_key, p) for a, p in monomial))


def monomial_of(powers: Mapping[Atom, int]) -> Monomial:
    """Atoms with their powers, in order."""
    if len(powers) < 2:  # a key is the text of all that is in an atom
        return tuple(powers.items())
    return tuple(sorted(powers.items(), key=lambda item: item[0].sort_key))


def _times(a: Monomial, b: Monomial) -> Monomial:
    powers = dict(a)
    for atom, power in b:
        powers[atom] = powers.get(atom, 0) + power
    return monomial_of(powers)


def _over(a: Monomial, b: Monomial) -> Monomial | None:
    powers = dict(a)
    for atom, power in b:
        left = powers.get(atom, 0) - power
        if left < 0:
            return None
        if left:
            powers[atom] = left
        else:
            del powers[atom]
    return monomial_of(powers)


def _split_multiples(a: Expr, b: int) -> tuple[Dim, Dim]:
    whole = polynomial({m: f // b for m, f in a.terms if f % b == 0})
    rest = polynomial({m: f for m, f in a.terms if f % b})
    return whole, rest


def _term_text(monomial: Monomial, factor: int) -> str:
    parts = [_atom_text(a) + (f"^{p}" if p > 1 else "") for a, p in monomial]
    if factor != 1 or not parts:
        parts.insert(0, str(factor))
    return "*".join(parts)


def _atom_text(atom: Atom) -> str:
    if isinstance(atom, Sym):
        return atom.name
    signs = {"floordiv": "//", "mod": "%"}
    if atom.op in signs:
        return f"(({atom.left}) {signs[atom.op]} ({atom.right}))"
    return f"{atom.op}({atom.left}, {atom.right})"


def common_factor(dims: Iterable[Dim]) -> int:
    """The greatest integer known to divide every size (0 for none)."""
    result = 0
    for dim in dims:
        for _, factor in _terms(dim):
            result = gcd(result, factor)
    return result

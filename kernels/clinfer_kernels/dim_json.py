"""Sizes written down: what plans keep of them, and how that is read back."""

from __future__ import annotations

from typing import Any

from clinfer_kernels.dims import (
    OPERATIONS,
    Atom,
    Dim,
    Monomial,
    Sym,
    monomial_of,
    opaque,
    polynomial,
    sym,
)

Json = Any


def to_json(dim: Dim) -> Json:
    """An integer, a symbol's name, or nested lists; `from_json` reads it back."""
    if isinstance(dim, int):
        return dim
    monomial, factor = dim.terms[0]
    if len(dim.terms) == 1 and factor == 1 and len(monomial) == 1 and monomial[0][1] == 1:
        return _atom_json(monomial[0][0])
    return ["sum", [[f, [[_atom_json(a), p] for a, p in m]] for m, f in dim.terms]]


def from_json(value: Json) -> Dim:
    """The size `to_json` wrote; `ValueError` for anything else."""
    if isinstance(value, bool):
        raise ValueError(f"not a size: {value!r}")
    if isinstance(value, int):
        return value
    if isinstance(value, str):
        return sym(value)
    if isinstance(value, list) and len(value) == 3 and value[0] in OPERATIONS:
        return opaque(value[0], from_json(value[1]), from_json(value[2]))
    if isinstance(value, list) and len(value) == 2 and value[0] == "sum":
        terms: dict[Monomial, int] = {}
        for factor, atoms in value[1]:
            monomial = _monomial_from_json(atoms)
            terms[monomial] = terms.get(monomial, 0) + int(factor)
        return polynomial(terms)
    raise ValueError(f"not a size: {value!r}")


def _monomial_from_json(atoms: Json) -> Monomial:
    powers: dict[Atom, int] = {}
    for value, power in atoms:
        size = from_json(value)
        if isinstance(size, int) or len(size.terms) != 1 or int(power) < 1:
            raise ValueError(f"not an atom and its power: {value!r}, {power!r}")
        ((monomial, _),) = size.terms
        powers[monomial[0][0]] = int(power)
    return monomial_of(powers)


def _atom_json(atom: Atom) -> Json:
    if isinstance(atom, Sym):
        return atom.name
    return [atom.op, to_json(atom.left), to_json(atom.right)]

"""Pieces of an operand put into local memory for units that want one k or two side by side.

The operand lies as [k / v][place][v], v being 2 or 1; pieces are vectors, or single elements.
`walks.Copy` puts those of v = 4 itself.
"""

from __future__ import annotations

from typing import NamedTuple

from clinfer_kernels.contraction.units import LANES


class Pieces(NamedTuple):
    """A work-item's pieces of operand `name`: `pieces` of `width` elements, along k or places.

    Along places `turn` of them have neighbouring k, and the groups of those are `steps` apart.
    """

    name: str
    pieces: int
    width: int
    is_along_k: bool
    turn: int
    steps: int
    pitch: int
    v: int
    pack: str  # makes 16 bits each of float32; '' where pieces have their bits already
    element: str


def put_lines(pieces: Pieces) -> list[str]:
    """Statements that store all pieces through the pointer `NAME_to`."""
    return _along_k(pieces) if pieces.is_along_k else _along_places(pieces)


def _along_k(p: Pieces) -> list[str]:
    n, v, lines = p.name, p.v, []
    for u in range(p.pieces):
        place = f"{n}_place + {u * p.steps}"
        piece = _bits(p, f"{n}_piece{u}")
        if p.width == 1:
            at = f"({n}_k / {v} * {p.pitch} + {place}) * {v} + {n}_k % {v}"
            lines.append(f"{n}_to[{at}] = {piece}.s0;")
            continue
        lines.append(f"const {p.element}4 {n}_bits{u} = {piece};")
        for j in range(0, LANES, v):
            at = f"(({n}_k + {j}) / {v} * {p.pitch} + {place}) * {v}"
            lanes = "".join(str(j + i) for i in range(v))
            lines.append(_store(p, at, f"{n}_bits{u}.s{lanes}", v))
    return lines


def _along_places(p: Pieces) -> list[str]:
    n, v, lines = p.name, p.v, []
    for first in range(0, p.pieces, v):
        block, own = first // p.turn, first % p.turn
        k = f"{p.turn} * ({n}_k + {block * p.steps}) + {own}"
        at = f"(({k}) / {v} * {p.pitch} + {n}_place) * {v}"
        bits = [_bits(p, f"{n}_piece{first + i}") for i in range(v)]
        if v == 1:
            stored = bits[0] if p.width > 1 else f"{bits[0]}.s0"
            lines.append(_store(p, at, stored, p.width))
            continue
        names = [f"{n}_bits{first + i}" for i in range(v)]
        lines += [f"const {p.element}4 {name} = {b};" for name, b in zip(names, bits, strict=True)]
        lanes = [f"{name}.s{place}" for place in range(p.width) for name in names]
        vector = f"({p.element}{len(lanes)})({', '.join(lanes)})"
        lines.append(_store(p, at, vector, len(lanes)))
    return lines


def _bits(p: Pieces, piece: str) -> str:
    kind = "float" if p.pack else p.element
    vector = piece if p.width > 1 else f"({kind}4)({piece}, 0, 0, 0)"
    return f"as_ushort4({p.pack}({vector}))" if p.pack else vector


def _store(p: Pieces, at: str, value: str, width: int) -> str:
    if width == 1:
        return f"{p.name}_to[{at}] = {value};"
    return f"*(__local {p.element}{width}*)({p.name}_to + {at}) = {value};"

"""Pieces of an operand put into local memory for units that want one k or two side by side.

The operand lies as [k / v][place][v], v being 16, 2 or 1; pieces are vectors, or single elements.
`walks.Copy` puts those of v = 4 itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from clinfer_kernels.contraction.units import LANES, Packing


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
    gap: int = 0  # behind every four places, as `fragments.Layout`
    pair: str = ""  # makes 32 bits of two float32; '' where neighbours have no such function


def put_lines(pieces: Pieces) -> list[str]:
    """Statements that store all pieces through the pointer `NAME_to`."""
    return _along_k(pieces) if pieces.is_along_k else _along_places(pieces)


def _along_k(p: Pieces) -> list[str]:
    n, v, lines = p.name, p.v, []
    for u in range(p.pieces):
        place = f"{n}_place + {u * p.steps}"
        piece = _bits(p, f"{n}_piece{u}")
        if p.width == 1:
            at = f"({n}_k / {v} * {p.pitch} + {place}) * {v} + {n}_k % {v}{_gaps(p, place)}"
            lines.append(f"{n}_to[{at}] = {piece}.s0;")
            continue
        if p.pair and v > 1:
            lines += _pairs(p, u, place)
            continue
        lines.append(f"const {p.element}4 {n}_bits{u} = {piece};")
        if v > LANES:
            at = f"({n}_k / {v} * {p.pitch} + {place}) * {v} + {n}_k % {v}{_gaps(p, place)}"
            lines.append(_store(p, at, f"{n}_bits{u}", LANES))
            continue
        for j in range(0, LANES, v):
            at = f"(({n}_k + {j}) / {v} * {p.pitch} + {place}) * {v}"
            lanes = "".join(str(j + i) for i in range(v))
            lines.append(_store(p, at, f"{n}_bits{u}.s{lanes}", v))
    return lines


def _pairs(p: Pieces, u: int, place: str) -> list[str]:
    """Piece `u` along k, two neighbours in a word each."""
    n, v = p.name, p.v
    words = [f"{p.pair}({n}_piece{u}.s{j}, {n}_piece{u}.s{j + 1})" for j in range(0, LANES, 2)]
    each = min(v, LANES) // 2
    lines = []
    for j in range(0, len(words), each):
        k = f"({n}_k + {2 * j})"
        at = f"({k} / {v} * {p.pitch} + {place}) * {v} + {k} % {v}{_gaps(p, place)}"
        lines.append(_store_words(p, at, words[j : j + each]))
    return lines


def _store_words(p: Pieces, at: str, words: Sequence[str]) -> str:
    kind = "uint" if len(words) == 1 else f"uint{len(words)}"
    value = words[0] if len(words) == 1 else f"({kind})({', '.join(words)})"
    return f"*(__local {kind}*)({p.name}_to + {at}) = {value};"


def _columns(p: Pieces) -> list[str]:
    """Pieces along places whose neighbouring k are fewer than lie side by side: one column after
    the other."""
    n, v, turn = p.name, p.v, p.turn
    lines = []
    for first in range(0, p.pieces, turn):
        k = f"({turn} * ({n}_k + {first // turn * p.steps}))"
        if not p.pair:
            each = range(first, first + turn)
            lines += [
                f"const {p.element}4 {n}_bits{u} = {_bits(p, f'{n}_piece{u}')};" for u in each
            ]
        for place in range(p.width):
            at = f"({k} / {v} * {p.pitch} + {n}_place + {place}) * {v} + {k} % {v}"
            at += _gaps(p, f"{n}_place")
            if p.pair:
                lane = f".s{place}" if p.width > 1 else ""
                of = [f"{n}_piece{first + i}{lane}" for i in range(turn)]
                words = [f"{p.pair}({of[i]}, {of[i + 1]})" for i in range(0, turn, 2)]
                lines.append(_store_words(p, at, words))
                continue
            lanes = ", ".join(f"{n}_bits{first + i}.s{place}" for i in range(turn))
            lines.append(_store(p, at, f"({p.element}{turn})({lanes})", turn))
    return lines


def _gaps(p: Pieces, place: str) -> str:
    """What a place's address has besides; neighbours in a vector have as much."""
    return f" + ({place}) / {LANES} * {p.gap}" if p.gap else ""


def _along_places(p: Pieces) -> list[str]:
    if p.v > LANES:
        return _columns(p)
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


def packed(packing: Packing, value: str) -> str:
    """A vector of float32 as the elements of the unit's operands."""
    return f"{packing.pack}({value})" if packing.pack else value


def put_vector(
    packing: Packing, side: int, tile: str, pitch: str, names: tuple[str, str, str]
) -> list[str]:
    """Statements that store a vector of float32 along k in a tile of A (`side` 0) or B; `names` of
    the vector, of its first k, a multiple of LANES, and of its place."""
    value, k, place = names
    v = packing.together[side]
    if v == LANES:
        at = f"({k} / {v} * {pitch} + {place}) * {v}"
        return [f"*(__local {packing.bits}*)({tile} + {at}) = {packed(packing, value)};"]
    element = packing.element
    lines = [f"const {element}4 bits = {_elements(packing, value)};"]
    for j in range(0, LANES, v):
        at = f"(({k} + {j}) / {v} * {pitch} + {place}) * {v}"
        lanes = "".join(str(j + i) for i in range(v))
        kind = f"{element}{v}" if v > 1 else element
        lines.append(f"*(__local {kind}*)({tile} + {at}) = bits.s{lanes};")
    return lines


def put_turned(
    packing: Packing, side: int, tile: str, pitch: str, names: tuple[Sequence[str], str, str]
) -> list[str]:
    """As `put_vector`, of vectors along places, as many as lie side by side along k; `names` of the
    vectors, of their first k, a multiple of their number, and of the first place."""
    values, k, place = names
    v = packing.together[side]
    if v == LANES:
        lines = []
        for lane in range(LANES):
            lanes = ", ".join(f"{value}.s{lane}" for value in values)
            at = f"({k} / {v} * {pitch} + {place} + {lane}) * {v}"
            made = packed(packing, f"(float4)({lanes})")
            lines.append(f"*(__local {packing.bits}*)({tile} + {at}) = {made};")
        return lines
    element, at = packing.element, f"({k} / {v} * {pitch} + {place}) * {v}"
    bits = [f"bits{n}" for n in range(v)]
    lanes = ", ".join(f"{name}.s{lane}" for lane in range(LANES) for name in bits)
    return [
        *(
            f"const {element}4 {name} = {_elements(packing, value)};"
            for name, value in zip(bits, values, strict=True)
        ),
        f"*(__local {element}{LANES * v}*)({tile} + {at}) = ({element}{LANES * v})({lanes});",
    ]


def _elements(packing: Packing, value: str) -> str:
    made = packed(packing, value)
    return made if packing.size == 4 else f"as_{packing.element}4({made})"

"""The end of a register tile of pixels by channels, where all of it is there.

    acc[r][v]    vector v of pixel r: channels channel0 + v * LANES and on

Ends that quantise to bytes narrow up to four vectors at once: those of a pixel, and of as many
pixels as make up four. Each pixel's bytes are stored where they belong.
"""

from __future__ import annotations

from typing import Protocol

from clinfer_kernels.byte_end import ByteEnd, byte_end, put, whole
from clinfer_kernels.expr import Expr
from clinfer_kernels.pixels import Pixels, finish, load_rows, rendered
from clinfer_kernels.spec import Target

_AT_ONCE = 4  # vectors that are narrowed together


class Tile(Protocol):
    """ROWS x (VECS x LANES) results."""

    @property
    def rows(self) -> int: ...

    @property
    def vecs(self) -> int: ...

    @property
    def lanes(self) -> int: ...


def finish_rows(pixels: Pixels, epilogue: Expr, tile: Tile, target: Target, acc: str) -> list[str]:
    """Statements that finish all rows of `acc`, an array in registers."""
    end = byte_end(epilogue, target)
    if end is None or not pixels.packs(end):
        lines = finish_row(pixels, epilogue, tile, target, f"{acc}[r]")
        return _loop("r", "ROWS", lines)
    lines = [*load_rows(pixels, "r"), *_rounded(pixels, end, tile, f"{acc}[r][v]", "rounded[r]")]
    together = max(1, _AT_ONCE // tile.vecs)
    groups = tile.rows // together
    stores = _stores(pixels, end, tile, together, "first * TOGETHER")
    rest = _stores(pixels, end, tile, tile.rows % together, f"{groups * together}")
    return [
        "vec rounded[ROWS][VECS];",
        *_loop("r", "ROWS", lines),
        *_loop("first", str(groups), [x.replace("TOGETHER", str(together)) for x in stores]),
        *(["{", *(f"    {line}" for line in rest), "}"] if rest else []),
    ]


def finish_row(pixels: Pixels, epilogue: Expr, tile: Tile, target: Target, acc: str) -> list[str]:
    """Statements that finish row `r`, whose vectors are `acc`."""
    end = byte_end(epilogue, target)
    if end is not None and pixels.packs(end):
        return [
            *load_rows(pixels, "r"),
            "vec rounded[VECS];",
            *_rounded(pixels, end, tile, f"{acc}[v]", "rounded"),
            *_narrow(pixels, end, tile, [f"rounded[{v}]" for v in range(tile.vecs)]),
            put("made", 0, tile.vecs, tile.lanes, pixels.place("channel0")),
        ]
    lines = [
        "const int channel = channel0 + v * LANES;",
        f"const vec sum = {acc}[v];",
        *finish(pixels, epilogue, "sum", "channel", tile.lanes),
    ]
    return [*load_rows(pixels, "r"), *_loop("v", "VECS", lines)]


def _rounded(pixels: Pixels, end: ByteEnd, tile: Tile, value: str, to: str) -> list[str]:
    """Statements that set `to`, an array of vectors, to what is rounded of a row."""
    statements, result = rendered(pixels, end.expr, "sum", "channel", tile.lanes)
    lines = [
        "const int channel = channel0 + v * LANES;",
        f"const vec sum = {value};",
        *statements,
        f"{to}[v] = {whole(result, tile.lanes)};",
    ]
    return _loop("v", "VECS", lines)


def _stores(pixels: Pixels, end: ByteEnd, tile: Tile, rows: int, first: str) -> list[str]:
    """Statements that narrow and store `rows` rows from `first` on."""
    if not rows:
        return []
    vectors = [f"rounded[{first} + {r}][{v}]" for r in range(rows) for v in range(tile.vecs)]
    lines = [*load_rows(pixels, first), *_narrow(pixels, end, tile, vectors)]
    out = pixels.outs[0].name
    for r in range(rows):
        to = f"(__global uchar*){out} + {out}_rows[{first} + {r}] + channel0"
        lines.append(put("made", r * tile.vecs, tile.vecs, tile.lanes, to))
    return lines


def _narrow(pixels: Pixels, end: ByteEnd, tile: Tile, vectors: list[str]) -> list[str]:
    return [f"const vec made = {pixels.narrowed(end, vectors, tile.lanes)};"]


def _loop(name: str, count: str, lines: list[str]) -> list[str]:
    return [
        "#pragma unroll",
        f"for (int {name} = 0; {name} < {count}; ++{name}) {{",
        *(f"    {line}" for line in lines),
        "}",
    ]

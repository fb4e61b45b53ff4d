"""Measured tile choices that ship with the kernels, as data that a reader can judge.

A file per class of devices, `CLASS-DIALECT-WIDTH.json`: a list of tables, each for all devices of
the class, for those of a `vendor`, or for those whose `device` text fits a pattern of `fnmatch`
('NVIDIA H200', 'NVIDIA H[12]00*'). A row is the name of a problem (`clinfer.lowering.choose`) and
the tile that was the fastest, by name and fields:

    "matmul 128x768 768x3072 float32": {"tile": "CpuTile", "rows": 8, "vecs": 2, ...}

The most special table that has a problem's name decides: device, pattern, vendor, class. A tile
that the family no longer offers is not used; one more that it offers changes nothing. The files are
written by `tools/tune_models.py`. (Lookup after CLBlast's database: device, architecture, vendor,
default.)
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from clinfer_kernels.spec import Target

Row = Mapping[str, Any]
FOLDER = Path(__file__).parent
_WILD = frozenset("*?[")


class Table(NamedTuple):
    """Rows by the name of the problem; '' for any vendor, or any device."""

    vendor: str
    device: str
    measured_on: str
    rows: Mapping[str, Row]

    def fits(self, vendor: str, device: str) -> bool:
        """Whether it is for devices like that."""
        is_vendor = self.vendor in ("", vendor)
        return is_vendor and (not self.device or fnmatchcase(device, self.device))

    @property
    def rank(self) -> int:
        """How special it is."""
        if self.device:
            return 2 if _WILD & set(self.device) else 3
        return 1 if self.vendor else 0


def file_name(target: Target) -> str:
    """'cpu-pocl-16.json' for PoCL with 16 float32 lanes."""
    return f"{target.cls}-{target.dialect}-{target.vector_width}.json"


def shipped(target: Target) -> Mapping[str, Row]:
    """The rows for a device by the name of the problem; empty where none ship."""
    return _rows(file_name(target), target.vendor, target.architecture)


@lru_cache(maxsize=16)
def _rows(file: str, vendor: str, device: str) -> Mapping[str, Row]:
    fitting = (table for table in tables_of(file) if table.fits(vendor, device))
    ranked = sorted(fitting, key=lambda table: table.rank)
    return {name: row for table in ranked for name, row in table.rows.items()}


def chosen(tiles: Sequence[Any], row: Row | None) -> int | None:
    """The place of a row's tile among those that a family offers; None where it is not there."""
    if row is None:
        return None
    return next((index for index, tile in enumerate(tiles) if _is(tile, row)), None)


def _is(tile: Any, row: Row) -> bool:
    """A field that the row was written without has its default."""
    if row["tile"] != type(tile).__name__:
        return False
    known = {field.name: field for field in fields(tile)}
    return row.keys() - {"tile"} <= known.keys() and all(
        _plain(getattr(tile, name)) == row.get(name, _default(field))
        for name, field in known.items()
    )


def _default(field: Any) -> Any:
    return None if field.default is MISSING else _plain(field.default)


def _plain(value: Any) -> Any:
    """As JSON gives it back."""
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


@lru_cache(maxsize=8)
def tables_of(name: str) -> tuple[Table, ...]:
    """The tables of a file; none where it is not there."""
    file = FOLDER / name
    if not file.is_file():
        return ()
    return tuple(Table(**table) for table in json.loads(file.read_text(encoding="utf-8")))

"""Tile choices that ship: by name, from the most special table, whatever else is offered."""

from __future__ import annotations

import dataclasses
import json
import re
from dataclasses import dataclass

import pytest

from clinfer.lowering.choose import KernelChoice
from clinfer_kernels import matmul, tuned
from clinfer_kernels.expr import identity
from clinfer_kernels.spec import Target, dense
from clinfer_kernels.specs import MatmulSpec
from tune_models import row_from, write_tables

TARGET = Target(cls="cpu", dialect="pocl", vector_width=16, local_mem=1 << 20)
NAME = "matmul 16384x32 32x32 float32"


@pytest.fixture
def product():
    a, b, out = (dense("float32", shape) for shape in ((16384, 32), (32, 32), (16384, 32)))
    return MatmulSpec(True, identity("float32"), (a, b), (out,))


def chosen(spec, target=TARGET):
    choice = KernelChoice()
    choice(spec, target)
    ((digest, index),) = choice.chosen.items()
    problem = choice.problems[digest]
    return str(problem), problem.tiles[index], index


def test_a_row_is_found_whatever_the_vendor(product):
    found = [chosen(product, TARGET._replace(vendor=v)) for v in ("amd", "intel", "generic")]
    assert {name for name, _, _ in found} == {NAME}
    assert len({tile for _, tile, _ in found}) == 1
    assert row_of(found[0][1]) == tuned.shipped(TARGET)[NAME]


def test_one_more_candidate_loses_no_row(product, monkeypatch):
    _, before, index = chosen(product)
    assert index > 0
    offered = matmul.candidates
    monkeypatch.setattr(
        matmul,
        "candidates",
        lambda spec, target: (
            offered(spec, target)[-1],
            dataclasses.replace(offered(spec, target)[0], tasks=77),
            *offered(spec, target),
        ),
    )
    _, after, moved = chosen(product)
    assert after == before
    assert moved in (0, index + 2)


def test_shipped_rows_of_products_name_tiles_that_are_offered():
    asked = found = 0
    for name, row in tuned.shipped(TARGET).items():
        found_name = re.fullmatch(r"matmul (\d+)x(\d+) \d+x(\d+) (\w+)", name)
        if found_name:
            m, k, n = map(int, found_name.groups()[:3])
            dtype = found_name[4]
            a, b, out = (dense(dtype, shape) for shape in ((m, k), (k, n), (m, n)))
            spec = MatmulSpec(True, identity(dtype), (a, b), (out,))
            asked += 1
            found += tuned.chosen(matmul.candidates(spec, TARGET), row) is not None
    assert asked >= 5
    assert found == asked


@dataclass(frozen=True)
class Tile:
    rows: int = 4
    unroll: int = 1
    kinds: tuple[str, ...] = ()


ROW = {"tile": "Tile", "rows": 8}


def test_a_field_that_is_newer_than_the_row_has_its_default():
    assert tuned.chosen([Tile(8, 2), Tile(8)], ROW) == 1


@pytest.mark.parametrize("row", [None, {**ROW, "rows": 9}, {**ROW, "gone": 1}, {"tile": "Other"}])
def test_a_tile_that_is_not_offered_is_not_used(row):
    assert tuned.chosen([Tile(8)], row) is None


def test_the_most_special_table_decides(tmp_path, monkeypatch):
    def table(vendor, device, rows):
        made = {name: {"tile": "Tile", "rows": n} for name, n in rows.items()}
        return tuned.Table(vendor, device, "somewhere", made)

    tables = [
        table("", "Fast GPU 2", {"a": 1}),
        table("", "Fast GPU *", {"a": 2, "b": 2}),
        table("nvidia", "", {"a": 3, "b": 3, "c": 3}),
        table("", "", {"a": 4, "b": 4, "c": 4, "d": 4}),
        table("amd", "", {"d": 5}),
    ]
    target = Target("gpu", "nvidia", "Fast GPU 2", dialect="nvidia", vector_width=4)
    write_tables(tmp_path / tuned.file_name(target), tables)
    monkeypatch.setattr(tuned, "FOLDER", tmp_path)
    tuned.tables_of.cache_clear()
    tuned._rows.cache_clear()
    try:
        found = {name: row["rows"] for name, row in tuned.shipped(target).items()}
        assert found == {"a": 1, "b": 2, "c": 3, "d": 4}
        other = tuned.shipped(target._replace(architecture="Slow GPU"))
        assert other["a"]["rows"] == 3
    finally:
        tuned.tables_of.cache_clear()
        tuned._rows.cache_clear()


def test_rows_are_read_as_they_were_written():
    assert row_from("Tile(rows=8, unroll=2, kinds=('a', 'b'))") == row_of(Tile(8, 2, ("a", "b")))


def row_of(tile):
    return json.loads(json.dumps({"tile": type(tile).__name__, **dataclasses.asdict(tile)}))

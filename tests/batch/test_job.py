"""Files in, Parquet out: what is there after a stop, and what becomes of bad rows and files."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

import clinfer
from api.made import dense_answer, one_node, save
from clinfer.batch import ERROR, run
from clinfer.batch import job as jobs

arrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")
feather = pytest.importorskip("pyarrow.feather")


def written(folder: Path, x: np.ndarray, files: int = 2, **options) -> Path:
    """Rows with numbers of their own, over several files of row groups of 10."""
    folder.mkdir()
    for number, rows in enumerate(np.array_split(np.arange(len(x)), files)):
        table = arrow.table({"x": x[rows].tolist(), "id": rows})
        parquet.write_table(table, folder / f"{number}.parquet", row_group_size=10)
    return folder


def read(target: Path, kind: str = "part") -> dict[int, list[float]]:
    """Results by the rows' own numbers."""
    tables = [parquet.read_table(p) for p in sorted(target.glob(f"{kind}-*.parquet"))]
    rows = [row for table in tables for row in table.to_pylist()]
    assert len({row["id"] for row in rows}) == len(rows)
    return {row["id"]: row["y" if kind == "part" else ERROR] for row in rows}


def test_each_row_of_parquet_files(dense, x, tmp_path):
    told: list[tuple[int, int]] = []
    source = written(tmp_path / "in", x)
    report = run(source, dense, tmp_path / "out", piece_rows=20, progress=lambda *n: told.append(n))
    assert report == (100, 0, 6, 0)
    assert told[0] == (0, 100)
    assert told[-1] == (100, 100)
    found = read(tmp_path / "out")
    y = np.array([found[row] for row in range(100)])
    np.testing.assert_allclose(y, dense_answer(x), rtol=1e-5, atol=1e-5)


def test_one_file_of_arrow(dense, x, tmp_path):
    feather.write_feather(arrow.table({"x": x.tolist(), "id": range(100)}), tmp_path / "a.feather")
    assert run(tmp_path / "a.feather", dense, tmp_path / "out").rows == 100
    found = read(tmp_path / "out")
    y = np.array([found[row] for row in range(100)])
    np.testing.assert_allclose(y, dense_answer(x), rtol=1e-5, atol=1e-5)


def test_it_goes_on_after_a_stop(dense, x, tmp_path, monkeypatch):
    source, target = written(tmp_path / "in", x), tmp_path / "out"
    perform, done = jobs.perform, []

    def stopped(task):
        if len(done) == 3:
            raise KeyboardInterrupt
        done.append(perform(task))
        return done[-1]

    monkeypatch.setattr(jobs, "perform", stopped)
    with pytest.raises(KeyboardInterrupt):
        run(source, dense, target, piece_rows=20)
    monkeypatch.undo()
    before = {p: p.stat().st_mtime_ns for p in target.glob("part-*")}
    report = run(source, dense, target, piece_rows=20)
    assert report == (100, 0, 3, 3)
    assert all(p.stat().st_mtime_ns == when for p, when in before.items())
    assert len(read(target)) == 100
    assert not list(target.glob(".*parquet*"))
    assert run(source, dense, target, piece_rows=20) == (100, 0, 0, 6)


def test_bad_rows_are_set_aside_with_their_reasons(dense, x, tmp_path):
    (tmp_path / "in").mkdir()
    rows = x.tolist()
    rows[7], rows[50] = None, rows[50][:3]
    table = arrow.table({"x": rows, "id": range(100)})
    parquet.write_table(table, tmp_path / "in" / "a.parquet", row_group_size=10)
    report = run(tmp_path / "in", dense, tmp_path / "out", piece_rows=10)
    assert (report.rows, report.rejected) == (98, 2)
    assert set(read(tmp_path / "out")) == set(range(100)) - {7, 50}
    reasons = read(tmp_path / "out", "rejected")
    assert "null" in reasons[7]
    assert "3" in reasons[50]


def test_a_folder_of_pictures(tmp_path, cpu):
    pillow = pytest.importorskip("PIL.Image")
    shape = [1, 4, 5, 3]
    model = one_node("Identity", {"image": (2, ["n", *shape[1:]])}, {"y": (2, ["n", *shape[1:]])})
    (tmp_path / "in").mkdir()
    pixels = np.random.default_rng(0).integers(0, 255, (3, 4, 5, 3)).astype(np.uint8)
    for number, picture in enumerate(pixels):
        pillow.fromarray(picture).save(tmp_path / "in" / f"{number}.png")
    (tmp_path / "in" / "3.png").write_bytes(b"no picture")
    report = run(tmp_path / "in", save(model, tmp_path / "m.onnx"), tmp_path / "out")
    assert (report.rows, report.rejected) == (3, 1)
    found = parquet.read_table(tmp_path / "out" / "part-000000.parquet")
    assert [Path(p).name for p in found["path"].to_pylist()] == ["0.png", "1.png", "2.png"]
    np.testing.assert_array_equal(np.array(found["y"].to_pylist()), pixels)
    bad = parquet.read_table(tmp_path / "out" / "rejected-000000.parquet").to_pylist()
    assert "3.png" in bad[0][ERROR]


def test_results_of_another_job_are_not_mixed(dense, x, tmp_path):
    source, target = written(tmp_path / "in", x), tmp_path / "out"
    run(source, dense, target)
    with pytest.raises(clinfer.InputError, match=r"another job: outputs changed"):
        run(source, dense, target, outputs={"y": "z"})
    parquet.write_table(arrow.table({"x": x.tolist(), "id": range(100)}), source / "0.parquet")
    with pytest.raises(clinfer.InputError, match=r"another job: pieces changed"):
        run(source, dense, target)


@pytest.mark.parametrize("content", [b"", b"PAR1 no parquet"])
def test_sources_that_are_none(dense, tmp_path, content):
    with pytest.raises(clinfer.InputError, match="no file and no folder"):
        run(tmp_path / "absent", dense, tmp_path / "out")
    (tmp_path / "in").mkdir()
    with pytest.raises(clinfer.InputError, match="no such file"):
        run(tmp_path / "in", dense, tmp_path / "out")
    (tmp_path / "in" / "a.parquet").write_bytes(content)
    with pytest.raises(clinfer.InputError, match="cannot be read"):
        run(tmp_path / "in", dense, tmp_path / "out")
    (tmp_path / "in" / "b.png").write_bytes(content)
    with pytest.raises(clinfer.InputError, match="of one kind"):
        run(tmp_path / "in", dense, tmp_path / "out")


def test_rejected_rows_keep_their_own_columns(dense, x, tmp_path):
    (tmp_path / "in").mkdir()
    table = arrow.table({"x": [None, *x[1:3].tolist()], "y": ["a", "b", "c"], "id": range(3)})
    parquet.write_table(table, tmp_path / "in" / "a.parquet")
    assert run(tmp_path / "in", dense, tmp_path / "out", keep=False).rejected == 1
    bad = parquet.read_table(tmp_path / "out" / "rejected-000000.parquet").to_pylist()
    assert [(row["y"], row["id"]) for row in bad] == [("a", 0)]


def test_bad_rows_first_do_not_decide_what_types_results_have(tmp_path, cpu, monkeypatch):
    """A model without a dimension for rows has results of one dimension more."""
    monkeypatch.setattr(jobs, "_TABLE_ROWS", 2)
    ports = {"x": (1, ["a", "b"])}, {"y": (1, ["a", "b"])}
    model = save(one_node("Relu", *ports), tmp_path / "relu.onnx")
    feather.write_feather(arrow.table({"x": [None, None, [[1.0]], [[2.0]]]}), tmp_path / "a.arrow")
    assert run(tmp_path / "a.arrow", model, tmp_path / "out") == (2, 2, 1, 0)
    found = parquet.read_table(tmp_path / "out" / "part-000000.parquet")
    assert found["y"].to_pylist() == [[[1.0]], [[2.0]]]


def test_results_among_what_is_read_are_refused(dense, x, tmp_path):
    source = written(tmp_path / "in", x)
    for target in (source, source / "out"):
        with pytest.raises(clinfer.InputError, match="outside of the source"):
            run(source, dense, target)


def test_a_disk_without_room_is_an_error_of_clinfer(dense, x, tmp_path, monkeypatch):
    source, target = written(tmp_path / "in", x), tmp_path / "out"

    def full(*_arguments) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(parquet.ParquetWriter, "write_table", full)
        with pytest.raises(clinfer.InputError, match="No space left"):
            run(source, dense, target)
    assert [path.name for path in target.iterdir()] == ["_clinfer_job.json"]
    assert run(source, dense, target).rows == 100


def test_what_others_have_damaged_is_named(dense, x, tmp_path):
    source, target = written(tmp_path / "in", x, files=1), tmp_path / "out"
    run(source, dense, target)
    (target / "part-000000.parquet").write_bytes(b"junk")
    with pytest.raises(clinfer.InputError, match=r"part-000000.parquet' is damaged"):
        run(source, dense, target)
    content = bytearray((source / "0.parquet").read_bytes())
    content[40:900] = bytes(860)
    (source / "0.parquet").write_bytes(content)
    with pytest.raises(clinfer.InputError, match=r"0.parquet' cannot be read"):
        run(source, dense, tmp_path / "other")


def test_what_a_killed_process_was_writing_goes_after_an_hour(dense, x, tmp_path):
    source, target = written(tmp_path / "in", x), tmp_path / "out"
    target.mkdir()
    old, new = target / ".part-000000.parquet.1-a", target / ".part-000000.parquet.2-b"
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (0, 0))
    run(source, dense, target)
    assert (old.exists(), new.exists()) == (False, True)


@pytest.mark.parametrize("name", ["piece_rows", "batch_rows"])
@pytest.mark.parametrize("value", [0, -1, "many"])
def test_numbers_of_rows_that_are_none(dense, tmp_path, name, value):
    with pytest.raises(clinfer.InputError, match=f"{name}: expected a number of 1 or more"):
        run(tmp_path, dense, tmp_path / "out", **{name: value})


def test_workers_that_are_none(dense, x, tmp_path):
    with pytest.raises(clinfer.InputError, match='"ray"'):
        run(written(tmp_path / "in", x), dense, tmp_path / "out", workers=3)

"""`clinfer batch`."""

from __future__ import annotations

import json

import numpy as np
import pytest

from api.conftest import prepare
from api.made import dense_answer, dense_model, save
from clinfer.cli import main

arrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")


def test_a_model_over_a_file(tmp_path, monkeypatch, capsys):
    prepare("CPU", monkeypatch)
    model = save(dense_model(), tmp_path / "dense.onnx")
    x = np.random.default_rng(1).standard_normal((50, 24)).astype(np.float32)
    rows = [*x.tolist(), None]
    parquet.write_table(arrow.table({"pixels": rows}), tmp_path / "in.parquet")
    files = [str(p) for p in (model, tmp_path / "in.parquet", tmp_path / "out")]
    names = ["--column", "x=pixels", "--output", "y=scores", "--drop"]
    assert main(["batch", *files, *names]) == 0
    told = capsys.readouterr().out
    assert "50 rows in" in told
    assert "1 rows set aside" in told
    found = parquet.read_table(tmp_path / "out" / "part-000000.parquet")
    assert found.column_names == ["scores"]
    y = np.array(found["scores"].to_pylist())
    np.testing.assert_allclose(y, dense_answer(x), rtol=1e-5, atol=1e-5)
    assert main(["batch", *files, *names, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["rows"], report["rejected"], report["resumed"]) == (50, 1, 1)


@pytest.mark.parametrize("pair", ["x=", "=a", "x"])
def test_columns_are_pairs(tmp_path, monkeypatch, capsys, pair):
    prepare("CPU", monkeypatch)
    model = save(dense_model(), tmp_path / "dense.onnx")
    arguments = [str(model), str(tmp_path), str(tmp_path / "out"), "--column", pair]
    assert main(["batch", *arguments]) == 1
    assert "--column" in capsys.readouterr().err

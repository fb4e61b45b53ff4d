"""tools/gpu_first_run.py on PoCL presented as a GPU: files, limits, fragments of matrix units."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest

import gpu_first_run
from gpu_first_run import Stage
from gpu_units import UNITS, matrices, product, registers


@pytest.fixture(autouse=True)
def presented(monkeypatch):
    monkeypatch.setenv("CLINFER_GPU_PLATFORM", "Portable")
    monkeypatch.setenv("PYTHONPATH", ":".join(sys.path))


def test_results_are_in_files(tmp_path):
    command = [str(tmp_path), "--small", "--only", "facts", "units", "launches"]
    assert gpu_first_run.main(command) == 0
    document = json.loads((tmp_path / "results.json").read_text())
    assert document["states"] == {"facts": "done", "units": "done", "launches": "done"}
    emulated = [row for row in document["results"]["units"] if row["emulated"]]
    assert [row["right"] for row in emulated] == [True] * len(UNITS)
    assert "PTX is for NVIDIA" in (tmp_path / "report.txt").read_text()


def test_a_stage_that_fails_keeps_its_rows_and_stops_no_other(tmp_path, monkeypatch, capfd):
    (tmp_path / "broken.py").write_text(
        "import os, time\n"
        "def crashes(*_):\n    yield {'what': 'seen'}\n    os.abort()\n"
        "def hangs(*_):\n    yield {'what': 'seen'}\n    time.sleep(600)\n"
    )
    runner = tmp_path / "run.py"
    stages = [("crashes", "broken", 60), ("hangs", "broken", 8), ("facts", "gpu_stages", 60)]
    runner.write_text(
        "import sys, gpu_first_run\n"
        f"gpu_first_run.STAGES = tuple(gpu_first_run.Stage(*s) for s in {stages})\n"
        "gpu_first_run.SCRIPT = __file__\n"
        "sys.exit(gpu_first_run.main())\n"
    )
    monkeypatch.setenv("PYTHONPATH", ":".join([str(tmp_path), *sys.path]))
    monkeypatch.setattr(gpu_first_run, "STAGES", tuple(Stage(*stage) for stage in stages))
    monkeypatch.setattr(gpu_first_run, "SCRIPT", str(runner))
    assert gpu_first_run.main([str(tmp_path / "out"), "--small"]) == 1
    document = json.loads((tmp_path / "out" / "results.json").read_text())
    assert document["states"]["crashes"].startswith("ended with status")
    assert document["states"]["hangs"] == "stopped after 8 s"
    assert document["states"]["facts"] == "done"
    assert document["results"]["crashes"] == [{"what": "seen"}]


def test_every_number_of_a_product_has_its_own_register():
    for unit in UNITS:
        a, b = matrices(unit)
        left, right = registers(unit, a, b)
        assert left.nbytes * 8 == a.size * 32 // unit.per_register
        assert right.nbytes * 8 == b.size * 32 // unit.per_register
    places = product(np.arange(128).reshape(32, 4))
    assert sorted(places.ravel()) == list(range(128))

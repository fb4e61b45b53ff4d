"""The import contracts of pyproject.toml refuse what they forbid."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from clinfer_kernels.families import FAMILIES

pytest.importorskip("importlinter")
tomllib = pytest.importorskip("tomllib")  # Python 3.11

ROOT = Path(__file__).resolve().parent.parent
LINT = "from importlinter.cli import lint_imports_command; lint_imports_command()"
# (where, what is imported, what the report says of it)
FORBIDDEN = (
    ("passes/query.py", "import onnx", "clinfer.passes.query -> onnx"),
    ("models.py", "import onnx", "clinfer.models -> onnx"),
    ("cli/output.py", "import onnx", "clinfer.cli.output -> onnx"),
    ("lowering/plan.py", "import pyopencl", "clinfer.lowering.plan -> pyopencl"),
    ("feeds.py", "import clinfer.device.calls", "clinfer.feeds -> clinfer.device.calls"),
    ("plugins/gpu.py", "import clinfer.plugins.cpu", "clinfer.plugins.gpu -> clinfer.plugins.cpu"),
    ("virtual/auto.py", "import clinfer.virtual.multi", "virtual.auto -> clinfer.virtual.multi"),
    ("log.py", "import clinfer.settings", "clinfer.log -> clinfer.settings"),
    ("feeds.py", "from clinfer.models import Models", "clinfer.feeds -> clinfer.models"),
    ("plugins/base.py", "from clinfer.models import Models", "plugins.base -> clinfer.models"),
    (
        "lowering/operators/conv.py",
        "from clinfer.lowering.operators import matmul",
        "clinfer.lowering.operators.conv -> clinfer.lowering.operators.matmul",
    ),
    (
        "cli/commands/run.py",
        "import clinfer.cli.commands.bench",
        "clinfer.cli.commands.run -> clinfer.cli.commands.bench",
    ),
    (
        "../clinfer_kernels/pad.py",
        "import clinfer_kernels.gather",
        "clinfer_kernels.pad -> clinfer_kernels.gather",
    ),
    ("../clinfer_kernels/dims.py", "import clinfer.errors", "dims -> clinfer.errors"),
    ("graph/ir.py", "import clinfer.graph.reader", "No cycles are allowed"),
)


def test_every_forbidden_import_is_refused_and_named(tmp_path):
    copy = copied(tmp_path)
    for place, line, _ in FORBIDDEN:
        file = copy / "clinfer" / place
        file.write_text(f"{file.read_text()}\n{line}\n")
    (copy / "clinfer" / "stray.py").write_text('"""A module without a room."""\n')
    code, said = lint(tmp_path)
    assert code != 0
    assert "KEPT" not in said, said
    missing = [what for _, _, what in FORBIDDEN if what not in said]
    assert missing == [], said
    assert "stray" in said


def test_every_family_is_under_contract():
    content = tomllib.loads((ROOT / "pyproject.toml").read_text())
    contracts = content["tool"]["importlinter"]["contracts"]
    families = next(c for c in contracts if c["name"].startswith("Families of kernels"))
    assert set(families["modules"]) == {f"clinfer_kernels.{name}" for name in FAMILIES.values()}


def copied(folder: Path) -> Path:
    """Both packages and the contracts."""
    for name in ("runtime/clinfer", "kernels/clinfer_kernels"):
        source = ROOT / name
        shutil.copytree(source, folder / source.name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def lint(folder: Path) -> tuple[int, str]:
    """(exit code, report) of lint-imports."""
    done = subprocess.run(
        [sys.executable, "-c", LINT, "--no-cache"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr

"""The generated sources kept in git are those that lowering makes, in every process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).resolve().parent.parent / "tools" / "generate_kernels.py"


@pytest.mark.parametrize("seed", ["0", "1"])
def test_sources_in_git_are_current_whatever_the_hash_seed(seed):
    done = subprocess.run(
        [sys.executable, str(TOOL), "--check"],
        env={**os.environ, "PYTHONHASHSEED": seed},
        capture_output=True,
        text=True,
        check=False,
    )
    advice = "run: python tools/generate_kernels.py"
    assert done.returncode == 0, f"{done.stdout}{done.stderr}\n{advice}"

"""Options for all tests; the modules of tools/ are importable."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

import platforms

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--opencl",
        metavar="NAME",
        help="part of the name of the OpenCL platform that device tests run on (PoCL); they are "
        f"skipped where there is none; as the environment variable {platforms.VARIABLE}",
    )


def pytest_configure(config: pytest.Config) -> None:
    wanted = config.getoption("--opencl")
    if wanted:
        os.environ[platforms.VARIABLE] = wanted

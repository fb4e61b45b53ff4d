"""Options for all tests."""

from __future__ import annotations

import os

import pytest

import platforms


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

"""Which OpenCL platform the device tests run on: PoCL, or what --opencl names (see conftest.py)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import lru_cache

import pytest

from clinfer.device.quirks import quirks_of

POCL = "Portable"
VARIABLE = "CLINFER_TEST_PLATFORM"
OPTIMISED = "CLINFER_TEST_OPTIMISED"


def platform() -> str:
    """Part of the platform's name. Skips the test where another one than PoCL is not installed."""
    wanted = os.environ.get(VARIABLE) or POCL
    if wanted != POCL and not any(wanted.lower() in name.lower() for name in _installed()):
        pytest.skip(f"no OpenCL platform is named like '{wanted}' ({', '.join(_installed())})")
    return wanted


def dialect() -> str:
    """The compiler family of the platform, as `Target.dialect` names it."""
    wanted = os.environ.get(VARIABLE) or POCL
    if wanted == POCL:
        return "pocl"
    return next((quirks_of(n).dialect for n in _installed() if wanted.lower() in n.lower()), "")


def options(group: Sequence[int]) -> tuple[str, ...]:
    """More build options for programs launched with groups of this size.

    Schedules of GPUs have groups of several items. On PoCL they are run for what their texts mean,
    not for speed, and compile four times as fast unoptimised; texts of CPUs are compiled as users
    have them. `pytest --optimised` compiles all of them so.
    """
    is_plain = max(group) == 1 or os.environ.get(OPTIMISED) or dialect() != "pocl"
    return () if is_plain else ("-cl-opt-disable",)


@lru_cache(maxsize=1)
def _installed() -> tuple[str, ...]:
    from clinfer.device.opencl import cl

    return tuple(found.name for found in cl().get_platforms())

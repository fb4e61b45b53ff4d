"""Which OpenCL platform the device tests run on: PoCL, or what --opencl names (see conftest.py)."""

from __future__ import annotations

import os
import zlib
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


def options(group: Sequence[int], text: str = "") -> tuple[str, ...]:
    """More build options for a program launched with groups of this size.

    Schedules of GPUs have groups of several items. On PoCL they are run for what their texts mean,
    not for speed, and compile four times as fast unoptimised. Programs of CPUs are compiled as
    users have them; of those whose `text` is given, which only kernels' own tests run, every fourth
    one. `pytest --optimised` compiles all of them so.
    """
    is_users = max(group) == 1 and zlib.crc32(text.encode()) % 4 == 0
    is_plain = is_users or os.environ.get(OPTIMISED) or dialect() != "pocl"
    return () if is_plain else ("-cl-opt-disable",)


@lru_cache(maxsize=1)
def _installed() -> tuple[str, ...]:
    from clinfer.device.opencl import cl

    return tuple(found.name for found in cl().get_platforms())

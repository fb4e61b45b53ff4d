"""Options for all tests; the modules of tools/ are importable."""

from __future__ import annotations

import os
import signal
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

import guards
import platforms

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools"))

import shared_programs

# No test depends on how fast the machine is.
settings.register_profile("any", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--opencl",
        metavar="NAME",
        help="part of the name of the OpenCL platform that device tests run on (PoCL); they are "
        f"skipped where there is none; as the environment variable {platforms.VARIABLE}",
    )
    parser.addoption(
        "--optimised",
        action="store_true",
        help="compile GPUs' schedules on PoCL with optimisation, as users have them, which takes "
        f"four times as long; as the environment variable {platforms.OPTIMISED}",
    )


@pytest.fixture(scope="session", autouse=True)
def guarded() -> None:
    """Every tensor of every run in this process lies between guard bytes."""
    guards.install()


@pytest.fixture(scope="session", autouse=True)
def compiled_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one test has compiled, in whichever process of this run, no other one compiles."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base) / "programs"
    folder.mkdir(exist_ok=True)
    shared_programs.install(folder)
    return folder


@pytest.fixture
def own_programs(compiled_once: Path) -> Iterator[None]:
    """For tests of the compiler's processes: nothing is known from other tests."""
    shared_programs.uninstall()
    yield
    shared_programs.install(compiled_once)


@pytest.fixture(autouse=True)
def same_numbers(request: pytest.FixtureRequest) -> None:
    """A module's generator begins anew for each test, whichever ran before in this process."""
    seed = zlib.crc32(request.node.nodeid.encode())
    for name in ("rng", "RNG"):
        generator = getattr(request.module, name, None)
        if isinstance(generator, np.random.Generator):
            generator.bit_generator.state = np.random.default_rng(seed).bit_generator.state


@pytest.fixture(scope="session", autouse=True)
def no_users_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Commands that are told of no cache use a folder of the tests', not the user's own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("user")))
        yield


def pytest_configure(config: pytest.Config) -> None:
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell's background jobs have it
        signal.signal(signal.SIGINT, signal.default_int_handler)
    wanted = config.getoption("--opencl")
    if wanted:
        os.environ[platforms.VARIABLE] = wanted
    if config.getoption("--optimised"):
        os.environ[platforms.OPTIMISED] = "1"

"""A plugin of pytest: the device that tests of models run on.

    def test_scores(clinfer_core, clinfer_device):
        model = clinfer_core.compile_model("model.onnx", clinfer_device)

It is there wherever clinfer is installed beside pytest.

`--clinfer-device NAME`, in an ini file `clinfer_device`, names the device, 'CPU' by default;
of several, separated by commas, each test runs on each. `--clinfer-require`, `clinfer_require`: a
device that is not there fails tests instead of skipping them.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from clinfer.core import Core

_DEVICE = "clinfer_device"
_REQUIRE = "clinfer_require"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Called by pytest: the options above."""
    group = parser.getgroup("clinfer")
    device = "device of the fixture clinfer_device: CPU, GPU, GPU.1, AUTO; several with commas"
    require = "fail, not skip, tests whose device is not there"
    group.addoption("--clinfer-device", metavar="NAME", help=device)
    group.addoption("--clinfer-require", action="store_true", default=None, help=require)
    parser.addini(_DEVICE, device, default="CPU")
    parser.addini(_REQUIRE, require, type="bool", default=False)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Called by pytest: a test that uses the fixture runs on every device that is named."""
    if _DEVICE in metafunc.fixturenames:
        named = metafunc.config.getoption("--clinfer-device") or metafunc.config.getini(_DEVICE)
        devices = [part.strip() for part in str(named).split(",") if part.strip()]
        metafunc.parametrize(_DEVICE, devices, indirect=True, scope="session")


@pytest.fixture(scope="session")
def clinfer_core(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Core:
    """One `clinfer.Core` for the session.

    Its cache is CLINFER_CACHE_DIR where that is set, else a folder of pytest's own cache, so that
    the next session compiles nothing; without that a temporary one.
    """
    import clinfer

    core = clinfer.Core()
    if not os.environ.get("CLINFER_CACHE_DIR"):
        core.set_property({"CACHE_DIR": str(_folder(tmp_path_factory, pytestconfig))})
    return core


@pytest.fixture(scope="session")
def clinfer_device(request: pytest.FixtureRequest, clinfer_core: Core) -> str:
    """The name of a device that is there; skips the test where it is not, or fails it."""
    import clinfer

    name: str = request.param
    try:
        clinfer_core.get_property(name, "FULL_DEVICE_NAME")
    except clinfer.DeviceError as error:
        config = request.config
        if config.getoption("--clinfer-require") or config.getini(_REQUIRE):
            pytest.fail(f"{name}: {error}", pytrace=False)
        pytest.skip(f"{name}: {error}")
    return name


def _folder(temporary: pytest.TempPathFactory, config: pytest.Config) -> Path:
    cache = getattr(config, "cache", None)
    if cache is None:
        return temporary.mktemp("clinfer")
    folder: Path = cache.mkdir("clinfer")
    return folder

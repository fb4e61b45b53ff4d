"""No test of the cache sees the environment variables of whoever runs it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from clinfer import config
from clinfer.cache import Store


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in config.VARIABLES:
        monkeypatch.delenv(variable.name, raising=False)


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    """Where a cache directory may be made; it does not exist yet."""
    tmp_path.chmod(0o700)
    yield tmp_path / "some" / "cache"


@pytest.fixture
def store(directory: Path) -> Store:
    return Store(directory)

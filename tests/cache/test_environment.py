"""The table of environment variables."""

from __future__ import annotations

import os

import pytest

from clinfer import config
from clinfer.errors import PropertyError


def test_every_variable_has_its_prefix_a_default_and_words() -> None:
    names = [variable.name for variable in config.VARIABLES]
    assert len(set(names)) == len(names)
    for variable in config.VARIABLES:
        assert variable.name.startswith("CLINFER_")
        assert variable.get() == variable.default
        assert variable.doc.endswith(".")


def test_variables_are_read_when_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLINFER_CACHE_MODE", "Cache-Only")
    assert config.CACHE_MODE.get() == "cache-only"
    monkeypatch.setenv("CLINFER_CACHE_MODE", "  ")
    assert config.CACHE_MODE.get() == "read-write"


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("123", 123),
        ("64K", 65536),
        ("2m", 2**21),
        ("8GiB", 2**33),
        ("8 GB", 2**33),
        ("1T", 2**40),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert config.parse_size(text) == size


def test_lists_and_flags(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLINFER_CACHE_PATH", os.pathsep.join(["/a", "", "/b"]))
    monkeypatch.setenv("CLINFER_CACHE_ALLOW_SHARED", "yes")
    monkeypatch.setenv("CLINFER_COMPILE_JOBS", "3")
    assert config.CACHE_PATH.get() == ("/a", "/b")
    assert config.CACHE_ALLOW_SHARED.get() is True
    assert config.COMPILE_JOBS.get() == 3


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("CLINFER_CACHE_SIZE", "-1"),
        ("CLINFER_CACHE_SIZE", "1.5G"),
        ("CLINFER_CACHE_SIZE", "many"),
        ("CLINFER_CACHE_MODE", "readonly"),
        ("CLINFER_CACHE_ALLOW_SHARED", "maybe"),
        ("CLINFER_COMPILE_JOBS", "-2"),
        ("CLINFER_LOG", "loud"),
    ],
)
def test_a_wrong_value_is_named(name: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    variable = next(item for item in config.VARIABLES if item.name == name)
    monkeypatch.setenv(name, text)
    with pytest.raises(PropertyError) as caught:
        variable.get()
    assert name in str(caught.value)
    assert variable.expects in str(caught.value)
    assert repr(text) in str(caught.value)

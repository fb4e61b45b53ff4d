"""Readers of cache files under mutation: clinfer errors, nothing else (tools/fuzz.py at length)."""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))

from fuzz import mutated, try_one
from fuzz_targets import TARGETS

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=12,
)
INDEX = st.fixed_dictionaries(
    {
        "entries": JSON | st.dictionaries(st.text(max_size=64), JSON, max_size=3),
        "format": st.just(1) | JSON,
        "name": st.text(max_size=70) | JSON,
        "serial": st.integers() | JSON,
    }
)


@pytest.mark.parametrize("name", TARGETS)
def test_seeds_are_accepted(name: str) -> None:
    for seed in TARGETS[name].seeds():
        TARGETS[name].read(seed)
        TARGETS[name].read(TARGETS[name].repair(seed))


@pytest.mark.parametrize("name", TARGETS)
@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.booleans())
def test_mutated_files_give_clinfer_errors(name: str, number: int, repaired: bool) -> None:
    data = mutated(random.Random(number), TARGETS[name].seeds())
    assert try_one(name, TARGETS[name].repair(data) if repaired else data) is None


@pytest.mark.parametrize("name", TARGETS)
@settings(max_examples=25, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_give_clinfer_errors(name: str, data: bytes) -> None:
    assert try_one(name, data) is None


@settings(max_examples=100, deadline=None)
@given(INDEX)
def test_any_json_for_an_index(document: dict[str, Any]) -> None:
    text = json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
    assert try_one("index", text) is None

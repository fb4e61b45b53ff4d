"""Operators at their edges: sizes of 0, 1, one less and one more, special values, other types.

The same cases each time; `tools/edges.py` runs all of them.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import pytest

import edges
from api.conftest import prepare
from conformance_cases import Cases
from shared_builds import Binaries, shared

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")


@pytest.fixture(scope="module")
def cases() -> Iterator[Cases]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield Cases()


def at_fault(cases: Cases, device: str, names: list[str]) -> list[str]:
    found = [edges.run_case(cases, name, device) for name in names]
    return [f"{o.name}: {o.message}" for o in found if o.status == "fault"]


def test_plans_refuse_what_does_not_fit_and_infer_the_rest(cases: Cases) -> None:
    """A case of every operator."""
    failed = at_fault(cases, "PLAN", edges.one_of_each(cases))
    assert not failed, "\n".join(failed)


@pytest.mark.parametrize(("name", "start", "step"), [("CPU", 0, 16), ("GPU", 5, 48)])
def test_results_at_the_edges_are_those_of_onnx_runtime(
    cases: Cases, name: str, start: int, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cases of every so many operators, in the order of their names."""
    binaries: Binaries = {}
    device = prepare(name, monkeypatch)
    with shared(binaries):
        failed = at_fault(cases, device, edges.one_of_each(cases)[start::step])
    assert not failed, "\n".join(failed)

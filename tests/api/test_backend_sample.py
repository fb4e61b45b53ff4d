"""A sample of ONNX's backend cases on the devices; `tools/conformance.py` runs all of them.

The same cases each time, chosen by the digest of their names: some of every operator.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence

import pytest

from api.conftest import prepare
from conformance_cases import Cases, Outcome, run_case
from shared_builds import Binaries, shared

# Decoders and random numbers that this machine has not, or nobody can foresee.
EXCEPT = ("test_image_decoder", "test_gradient", "test_bernoulli", "test_training_dropout")


@pytest.fixture(scope="module")
def cases() -> Iterator[Cases]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield Cases()


def outcomes(cases: Cases, device: str, names: Sequence[str]) -> list[Outcome]:
    binaries: Binaries = {}
    with shared(binaries):
        return [run_case(cases, name, device) for name in names]


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize(("name", "size", "least"), [("CPU", 120, 60), ("GPU", 24, 12)])
def test_cases_of_every_operator_give_their_results(
    cases: Cases, name: str, size: int, least: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = outcomes(cases, prepare(name, monkeypatch), cases.sample(size, EXCEPT))
    failed = [f"{o.name}: {o.status}: {o.message}" for o in found if o.status != "passed"]
    assert not failed, "\n".join(failed)
    assert sum(outcome.on_device for outcome in found) >= least

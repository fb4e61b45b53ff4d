"""ONNX's backend cases, evaluated on the host: types, contents and results of every value."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import pytest
from graph_helpers import Checked

from clinfer.errors import ClinferError
from clinfer.graph.reader import read
from conformance_cases import Cases, HostModel

# What this machine or the reference implementation cannot do, and random results.
EXPECTED = ("test_image_decoder", "test_gradient", "test_bernoulli")


pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")


@pytest.fixture(scope="module")
def cases() -> Iterator[Cases]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield Cases()


def test_results_on_the_host(cases: Cases) -> None:
    failed = []
    for name in cases.kinds:
        if name.startswith(EXPECTED):
            continue
        try:
            host = HostModel(cases.model(name))
            for inputs, expected in cases.data(name):
                cases.compare(name, expected, host.run(inputs))
        except (AssertionError, ClinferError) as error:
            failed.append(f"{name}: {error}")
    assert not failed, "\n".join(failed)


def faults(checked: Checked, inputs: list[object]) -> list[str]:
    """What is wrong with the types inferred, and constraints that should hold and do not."""
    try:
        checked.run(inputs)
    except AssertionError as error:
        return [str(error)]
    return checked.violated()


def test_types_with_every_dimension_dynamic(cases: Cases) -> None:
    """Dimensions of inputs become symbols; what is inferred must hold for the cases' sizes."""
    failed = []
    for name in cases.kinds:
        if name.startswith((*EXPECTED, "test_strnorm")):
            continue
        model = read(cases.model(name))
        shapes = {
            port.name: [f"{port.name}_{axis}" for axis in range(len(port.shape))]
            for port in model.inputs
            if port.shape is not None
        }
        model.reshape(shapes)
        checked = Checked(model.graph())
        for inputs, _ in cases.data(name):
            failed += [f"{name}: {fault}" for fault in faults(checked, inputs)]
    assert not failed, "\n".join(failed)

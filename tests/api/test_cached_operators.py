"""A cached model gives the bits of an uncached one, operator by operator.

A sample of ONNX's cases, spread over all operators; `tools/conformance.py --cached` runs them all.
"""

from __future__ import annotations

import warnings

import pytest

from conformance_cases import Cases, run_case

SAMPLE = 24


def test_cached_equals_uncached(device: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cases = Cases()
        names = sorted(name for name, kind in cases.kinds.items() if kind == "node")
        chosen = [n for n in names if not n.endswith("_expanded")]
        chosen = chosen[:: len(chosen) // SAMPLE]
        outcomes = [run_case(cases, name, device, cached=True) for name in chosen]
    failed = [f"{o.name}: {o.status}: {o.message}" for o in outcomes if o.status != "passed"]
    assert not failed, "\n".join(failed)


def test_the_comparison_sees_a_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    import numpy as np

    from conformance_cases import bits

    one = np.ones(3, np.float32)
    other = one.copy()
    other.view(np.int32)[1] ^= 1
    assert bits([one]) == bits([one.copy()])
    assert bits([one]) != bits([other])
    assert bits([one]) != bits([one.astype(np.float64)])

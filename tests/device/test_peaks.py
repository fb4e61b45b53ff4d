"""The roofs that kernels are measured against: right results, and the nearer roof is named."""

from __future__ import annotations

import numpy as np
import pytest

from clinfer.device.discover import open_device
from clinfer.plugins.peaks import Peaks, Roofs, _loaded
from clinfer_kernels.peaks import copy, fma_loop
from platforms import platform


def test_a_kernel_is_measured_against_the_roof_it_is_nearer_to() -> None:
    peaks = Peaks(gflops=100.0, gigabytes=10.0)
    assert peaks.share(50 * 10**9, 10**9, 1.0) == (0.5, "FMA")
    assert peaks.share(10**9, 8 * 10**9, 1.0) == (0.8, "copy")
    assert peaks.share(1, 1, 0.0) == (0.0, "copy")


@pytest.mark.parametrize("name", ["CPU", "GPU"])
def test_the_roofs_compute_what_they_say(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLINFER_CPU_PLATFORM", platform())
    monkeypatch.setenv("CLINFER_GPU_PLATFORM", platform())
    device = open_device(name)
    source = np.arange(4099, dtype=np.float32)
    (copied,) = _loaded(device, copy(device.target, 4099), 4099, 4099).session().run([source])
    np.testing.assert_array_equal(copied, source)

    loop = fma_loop(device.target, 60)
    items = int(np.prod(loop.launches[0].global_size))
    (sums,) = _loaded(device, loop, 0, items).session().run([])
    # Every chain ends at the fixed point of x / 2 + 1 / 4, which is 1 / 2.
    lanes_and_chains = loop.flops / (2 * 60 * items)
    np.testing.assert_allclose(sums, lanes_and_chains / 2)


def test_peaks_only_rise_when_measured_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLINFER_CPU_PLATFORM", platform())
    roofs = Roofs(open_device("CPU"))
    first, again = roofs.measure(), roofs.measure()
    assert 0 < first.gflops <= again.gflops
    assert 0 < first.gigabytes <= again.gigabytes

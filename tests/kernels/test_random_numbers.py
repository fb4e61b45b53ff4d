"""Random numbers: Philox against its authors' answers, and what the numbers are like."""

from __future__ import annotations

from math import erf, sqrt

import numpy as np
import pytest
from harness import TARGETS, Array, run_kernel

from clinfer_kernels import random_numbers
from clinfer_kernels.dims import sym
from clinfer_kernels.spec import dense
from clinfer_kernels.specs import RandomSpec

# Philox 4x32-10 by Random123's file of known answers: counter 0 and key 0.
KNOWN = np.array([0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8], np.uint32)


def philox(blocks: int, key: tuple[int, int]) -> Array:
    """The words of the first blocks, in integers of 64 bits."""
    low = np.uint64(0xFFFFFFFF)
    c = [np.arange(blocks, dtype=np.uint64), *[np.zeros(blocks, np.uint64)] * 3]
    k = list(key)
    for _ in range(10):
        first, second = c[0] * np.uint64(0xD2511F53), c[2] * np.uint64(0xCD9E8D57)
        shift = np.uint64(32)
        c = [
            (second >> shift) ^ c[1] ^ np.uint64(k[0]),
            second & low,
            (first >> shift) ^ c[3] ^ np.uint64(k[1]),
            first & low,
        ]
        k = [(k[0] + 0x9E3779B9) % 2**32, (k[1] + 0xBB67AE85) % 2**32]
    return np.stack(c, 1).ravel().astype(np.uint32)


def numbers(kind: str, cls: str, count: int, key: tuple[int, int], form=(1.0, 0.0)) -> Array:
    spec = RandomSpec(
        kind, (dense("uint32", (2,)), dense("float32", (2,))), (dense("float32", (sym("n"),)),)
    )
    target = TARGETS[cls]
    kernel = random_numbers.emit(spec, random_numbers.candidates(spec, target)[0], target)
    ins = [np.array(key, np.uint32), np.array(form, np.float32)]
    (made,) = run_kernel(kernel, ins, [((count,), "float32")], {"n": count})
    return made


def test_the_generator_of_these_tests_gives_the_known_answers() -> None:
    np.testing.assert_array_equal(philox(1, (0, 0)), KNOWN)


@pytest.mark.parametrize("cls", TARGETS)
@pytest.mark.parametrize("count", [0, 1, 4, 7, 20_001])
def test_uniform_numbers_are_the_upper_bits_of_the_words(cls: str, count: int) -> None:
    key = (0xDEADBEEF, 17)
    wanted = (philox(count // 4 + 1, key) >> 8).astype(np.float32) / np.float32(2**24)
    np.testing.assert_array_equal(numbers("uniform", cls, count, key), wanted[:count])


@pytest.mark.parametrize("cls", TARGETS)
def test_normal_numbers_are_those_of_box_and_muller(cls: str) -> None:
    key = (5, 6)
    words = philox(2000, key).astype(np.float64).reshape(-1, 2)
    radius = np.sqrt(-2 * np.log((words[:, 0] // 256 + 1) / 2**24))
    angle = 2 * np.pi * words[:, 1] / 2**32
    wanted = np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1).ravel()
    found = numbers("normal", cls, 8000, key)
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=2e-6)


def test_devices_of_both_kinds_give_the_same_bits() -> None:
    for kind in ("uniform", "normal"):
        one, other = (numbers(kind, cls, 5001, (1, 2), (3.3, -0.7)) for cls in TARGETS)
        np.testing.assert_array_equal(one.view(np.uint32), other.view(np.uint32))


def test_normal_numbers_are_spread_as_they_should_be() -> None:
    """The greatest distance of distributions, by Kolmogorov and Smirnov, and the moments."""
    found = np.sort(numbers("normal", "cpu", 100_000, (7, 8), (2.0, 1.0)).astype(np.float64))
    wanted = np.array([0.5 * (1 + erf((x - 1) / 2 / sqrt(2))) for x in found])
    places = np.arange(1, found.size + 1) / found.size
    assert np.abs(wanted - places).max() < 1.95 / sqrt(found.size)
    assert abs(found.mean() - 1) < 0.03
    assert abs(found.std() - 2) < 0.03

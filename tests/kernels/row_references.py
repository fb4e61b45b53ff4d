"""Softmax and norms along the last axis in float64, for the tests of kernels on rows."""

from __future__ import annotations

import numpy as np
from harness import Array


def softmax(x: Array) -> Array:
    wide = x.astype(np.float64)
    e = np.exp(wide - wide.max(-1, keepdims=True))
    return np.asarray(e / e.sum(-1, keepdims=True))


def norm(x: Array, rms: bool = False) -> Array:
    wide = x.astype(np.float64)
    centred = wide if rms else wide - wide.mean(-1, keepdims=True)
    return np.asarray(centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5))


ALONG_ROWS = {
    "softmax": softmax,
    "log": lambda x: np.log(softmax(x)),
    "norm": norm,
    "rms": lambda x: norm(x, rms=True),
}

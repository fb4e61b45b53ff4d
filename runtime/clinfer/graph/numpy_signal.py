"""DFT, STFT and MelWeightMatrix in NumPy.

Complex numbers are a last axis of 2, real ones one of 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from clinfer.dtypes import BY_ONNX, to_numpy
from clinfer.graph.ir import Array


def dft(attrs: Mapping[str, Any], inputs: Sequence[Any]) -> list[Any]:
    x, length, axis = (*inputs, None, None)[:3]
    at = -2 if axis is None else int(np.asarray(axis).item())
    at = at + x.ndim if at < 0 else at
    inverse, onesided = bool(attrs.get("inverse", 0)), bool(attrs.get("onesided", 0))
    count = None if length is None else int(np.asarray(length).item())
    signal = _joined(x)
    if inverse and onesided:
        made = np.fft.irfft(signal, 2 * (x.shape[at] - 1) if count is None else count, at)
        return [made[..., None].astype(x.dtype)]
    spectrum = (np.fft.ifft if inverse else np.fft.fft)(signal, count, at)
    if onesided:
        spectrum = spectrum.take(range(spectrum.shape[at] // 2 + 1), at)
    return [_apart(spectrum, x.dtype)]


def stft(attrs: Mapping[str, Any], inputs: Sequence[Any]) -> list[Any]:
    x, step, window, length = (*inputs, None, None)[:4]
    hop = int(np.asarray(step).item())
    signal = _joined(x) if x.ndim == 3 else _real(x)
    size = signal.shape[1]
    count = frame_length(size, window, length)
    if hop < 1 or not 1 <= count <= size:
        raise ValueError(
            f"frames of 1 to {size} samples (the signal's) at positive steps expected, found "
            f"frames of {count} at steps of {hop}"
        )
    starts = np.arange(0, size - count + 1, hop)
    frames = signal[:, starts[:, None] + np.arange(count)]
    if window is not None:
        if len(window) != count:
            raise ValueError(f"a window of {count} samples expected, found {len(window)}")
        frames = frames * _real(window)
    spectrum = np.fft.fft(frames, axis=-1)
    if attrs.get("onesided", 1):
        spectrum = spectrum[..., : count // 2 + 1]
    return [_apart(spectrum, x.dtype)]


def mel_weight_matrix(attrs: Mapping[str, Any], inputs: Sequence[Any]) -> list[Any]:
    """Triangles in the mel scale: [spectrum bins, mel bins]; where edges are equal, a peak of 1."""
    bins, length, rate, low, high = (np.asarray(v).item() for v in inputs)
    if bins < 0 or length < 0 or rate < 1:
        raise ValueError(
            f"numbers of mel bins and samples from 0 on, a positive rate expected, found "
            f"{bins}, {length} and {rate}"
        )
    result = np.zeros(
        (length // 2 + 1, bins), to_numpy(BY_ONNX[attrs.get("output_datatype", 1)].name)
    )
    least, most = (2595 * np.log10(1 + edge / 700) for edge in (low, high))
    mels = np.arange(bins + 2) * ((most - least) / (bins + 2)) + least
    hertz = 700 * (np.power(10, mels / 2595) - 1)
    edges = ((length + 1) * hertz // rate).astype(np.int64)
    if bins and not 0 <= edges.min() <= edges.max() < len(result):
        raise ValueError(f"edges of 0 to half the rate of {rate} expected, found {low} and {high}")
    for number in range(bins):
        left, centre, right = edges[number : number + 3]
        result[left : centre + 1, number] = np.arange(centre - left + 1) / max(centre - left, 1)
        if centre == left:
            result[centre, number] = 1
        if right > centre:
            result[centre:right, number] = np.arange(right - centre, 0, -1) / (right - centre)
    return [result]


def frame_length(size: int, window: Array | None, length: Array | None) -> int:
    """As given, else the window's, else the whole signal."""
    if length is not None:
        return int(np.asarray(length).item())
    return size if window is None else len(window)


def _joined(x: Array) -> Array:
    if x.shape[-1] not in (1, 2):
        raise ValueError(f"a last axis of 1 or 2 (real, complex) expected, found {x.shape[-1]}")
    wide = _real(x)
    return wide[..., 0] if x.shape[-1] == 1 else wide[..., 0] + 1j * wide[..., 1]


def _real(x: Array) -> Array:
    return x if x.dtype == np.float64 else x.astype(np.float32)


def _apart(spectrum: Array, dtype: np.dtype[Any]) -> Array:
    return np.stack([spectrum.real, spectrum.imag], -1).astype(dtype)

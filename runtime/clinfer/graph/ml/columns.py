"""Operators on columns of numbers: picking, scaling, filling in, joining."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from clinfer.graph.ir import Array
from clinfer.graph.ml import Attrs, Maker, Run
from clinfer.graph.ml.attributes import ints, numbers, rows


def array_feature_extractor(attrs: Attrs) -> Run:
    """Columns of the last axis, in the order of the indices; a vector counts as a row."""

    def run(inputs: Sequence[Any]) -> list[Any]:
        x, indices = inputs[0], np.asarray(inputs[1]).ravel()
        if x.ndim == 0 or not indices.size:
            raise ValueError(
                f"an input of one dimension or more and an index expected, found shape {x.shape} "
                f"and {indices.size} indices"
            )
        if indices.min() < 0 or indices.max() >= x.shape[-1]:
            raise ValueError(f"indices in [0, {x.shape[-1]}) expected, found {indices.tolist()}")
        return [np.take(x.reshape(1, -1) if x.ndim == 1 else x, indices, axis=-1)]

    return run


def binarizer(attrs: Attrs) -> Run:
    """1 where x is above the threshold, else 0."""
    threshold = np.float32(attrs.get("threshold", 0.0))
    return lambda inputs: [(inputs[0] > threshold).astype(inputs[0].dtype)]


def feature_vectorizer(attrs: Attrs) -> Run:
    """Inputs side by side, each cut or filled with zeros to its number of columns."""
    widths = ints(attrs, "inputdimensions").tolist()

    def run(inputs: Sequence[Any]) -> list[Any]:
        parts = [rows(np.asarray(x)) for x in inputs]
        sizes = widths or [part.shape[1] for part in parts]
        if len(sizes) != len(parts):
            raise ValueError(f"{len(parts)} inputs, but inputdimensions are {sizes}")
        if len({part.shape[0] for part in parts}) > 1:
            raise ValueError(f"inputs of as many rows expected, found {[p.shape for p in parts]}")
        made = np.zeros((parts[0].shape[0], sum(sizes)), np.float32)
        start = 0
        for part, width in zip(parts, sizes, strict=True):
            taken = min(width, part.shape[1])
            made[:, start : start + taken] = part[:, :taken]
            start += width
        return [made]

    return run


def imputer(attrs: Attrs) -> Run:
    """Other values in place of one that stands for 'missing'."""
    by_kind = {
        "f": (numbers(attrs, "imputed_value_floats"), attrs.get("replaced_value_float", 0.0)),
        "i": (ints(attrs, "imputed_value_int64s"), attrs.get("replaced_value_int64", 0)),
    }

    def run(inputs: Sequence[Any]) -> list[Any]:
        x = inputs[0]
        values, missing = by_kind[x.dtype.kind]
        if not values.size:
            raise ValueError(f"an imputed value for {x.dtype} expected, found none")
        by_column = x.ndim and values.size == x.shape[-1]
        filling = (values if by_column else values[:1]).astype(x.dtype)
        is_missing = np.isnan(x) if missing != missing else x == x.dtype.type(missing)
        return [np.where(is_missing, filling, x)]

    return run


def scaler(attrs: Attrs) -> Run:
    """(x - offset) * scale, for each column."""
    offset, scale = numbers(attrs, "offset"), numbers(attrs, "scale")

    def run(inputs: Sequence[Any]) -> list[Any]:
        x = inputs[0]
        columns = x.shape[-1] if x.ndim else 0
        for found, name in ((offset, "offset"), (scale, "scale")):
            if found.size not in (1, columns):
                raise ValueError(
                    f"'{name}' of one number, or one for each of {columns} columns expected, "
                    f"found {found.size}"
                )
        wide = x.astype(np.float32) if x.dtype != np.float64 else x
        return [((wide - offset) * scale).astype(np.float32)]

    return run


def normalizer(attrs: Attrs) -> Run:
    """Rows divided by their norm: the largest element, the sum of magnitudes, or the length."""
    divide = _NORMS[attrs.get("norm", "MAX")]

    def run(inputs: Sequence[Any]) -> list[Any]:
        x = inputs[0].astype(np.float32)
        if x.ndim == 0:
            raise ValueError("an input of one dimension or more expected, found a scalar")
        if not x.size:
            return [x]
        return [divide(x, min(1, x.ndim - 1))]

    return run


def _by_max(x: Array, axis: int) -> Array:
    """As the specification reads: the largest element, not the largest magnitude."""
    largest = x.max(axis=axis, keepdims=True)
    return np.asarray(x / np.where(largest == 0, np.float32(1), largest))


def _by_sum(x: Array, axis: int) -> Array:
    total = np.abs(x).sum(axis=axis, keepdims=True)
    return np.asarray(x / np.where(total == 0, np.float32(1), total))


def _by_length(x: Array, axis: int) -> Array:
    length = np.sqrt(np.square(x).sum(axis=axis, keepdims=True))
    return np.asarray(x / np.where(length == 0, np.float32(1), length))


_NORMS = {"MAX": _by_max, "L1": _by_sum, "L2": _by_length}

MAKERS: dict[str, Maker] = {
    "ArrayFeatureExtractor": array_feature_extractor,
    "Binarizer": binarizer,
    "FeatureVectorizer": feature_vectorizer,
    "Imputer": imputer,
    "Normalizer": normalizer,
    "Scaler": scaler,
}

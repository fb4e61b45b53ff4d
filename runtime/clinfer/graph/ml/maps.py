"""Operators from and to Python's dictionaries, ONNX's maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from clinfer.graph.ir import Array
from clinfer.graph.ml import Attrs, Maker, Run
from clinfer.graph.ml.attributes import ints, labels, objects, texts


def zip_map(attrs: Attrs) -> Run:
    """A dictionary from label to score for each row."""
    keys = labels(attrs, "classlabels_int64s", "classlabels_strings").tolist()

    def run(inputs: Sequence[Any]) -> list[Any]:
        x = inputs[0]
        if x.ndim not in (1, 2) or x.shape[-1] != len(keys):
            raise ValueError(f"a row of {len(keys)} scores expected, found shape {list(x.shape)}")
        return [[dict(zip(keys, row, strict=True)) for row in np.atleast_2d(x).tolist()]]

    return run


def dict_vectorizer(attrs: Attrs) -> Run:
    """The values of the vocabulary's keys in one row, 0 or '' for keys that are not there."""
    keys: list[Any] = texts(attrs, "string_vocabulary") or ints(attrs, "int64_vocabulary").tolist()

    def run(inputs: Sequence[Any]) -> list[Any]:
        given = _map(inputs[0])
        is_text = any(isinstance(v, str) for v in given.values())
        row = [given.get(key, "" if is_text else 0) for key in keys]
        return [(objects(row) if is_text else np.array(row)).reshape(1, -1)]

    return run


def cast_map(attrs: Attrs) -> Run:
    """The values in the order of their keys; a sparse map has `max_map` columns."""
    convert, dtype = _CASTS[attrs.get("cast_to", "TO_FLOAT")]
    is_sparse = attrs.get("map_form", "DENSE") == "SPARSE"
    columns = int(attrs.get("max_map", 1))

    def run(inputs: Sequence[Any]) -> list[Any]:
        given = _map(inputs[0])
        keys = sorted(key for key in given if not is_sparse or key < columns)
        if keys and is_sparse and keys[0] < 0:
            raise ValueError(f"keys from 0 on expected, found {keys[0]}")
        row: Array = np.full(columns if is_sparse else len(keys), convert(0), dtype)
        row[keys if is_sparse else slice(None)] = [convert(given[key]) for key in keys]
        return [row.reshape(1, -1)]

    return run


def _map(value: Any) -> Mapping[Any, Any]:
    if not isinstance(value, Mapping):
        raise ValueError(f"a dict expected, found {type(value).__name__}")
    return value


def _as_text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return f"{value:f}" if isinstance(value, float) else "" if value == 0 else str(value)


_CASTS: dict[str, tuple[Any, Any]] = {
    "TO_FLOAT": (float, np.float32),
    "TO_INT64": (lambda value: int(float(value)), np.int64),
    "TO_STRING": (_as_text, object),
}

MAKERS: dict[str, Maker] = {
    "CastMap": cast_map,
    "DictVectorizer": dict_vectorizer,
    "ZipMap": zip_map,
}

"""Operators on text in NumPy, of which `TfIdfVectorizer` counts n-grams too."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from clinfer.errors import InputError, ModelError

Attrs = Mapping[str, Any]
Gram = tuple[Any, ...]


def equal(attrs: Attrs, inputs: Sequence[Any]) -> list[Any]:
    """Whether elements are equal, of text whatever its length; zeros at its end count."""
    return [np.asarray(np.equal(*inputs), bool)]


def concat(attrs: Attrs, inputs: Sequence[Any]) -> list[Any]:
    """StringConcat: text after text, element by element."""
    return [np.asarray(np.add(*inputs), object)]


def tf_idf(attrs: Attrs, inputs: Sequence[Any]) -> list[Any]:
    """The n-grams of the pool that each row has, [C] or [N, C] -> [count] or [N, count].

    An n-gram may leave out up to `max_skip_count` items between any two of its own, always as many.
    Work is bounded by the row's length: what no row has room for is not looked for.
    """
    (x,) = inputs
    if x.ndim not in (1, 2):
        raise InputError(f"items of 1 or 2 dimensions expected, found {list(x.shape)}")
    indexes = np.asarray(attrs["ngram_indexes"], np.int64)
    weights = attrs.get("weights")
    weights = np.ones(len(indexes), np.float32) if weights is None else np.float32(weights)
    if len(weights) != len(indexes) or (indexes < 0).any():
        raise ModelError("'ngram_indexes' from 0 on, and as many 'weights', expected")
    grams = _pool(attrs, len(indexes))
    result = np.zeros((1 if x.ndim == 1 else len(x), int(indexes.max(initial=-1)) + 1), np.float32)
    for row, items in zip(result, np.atleast_2d(x).tolist(), strict=True):
        for gram, times in _found(items, grams, int(attrs["max_skip_count"])).items():
            number = grams[gram]
            if attrs["mode"] == "IDF":
                row[indexes[number]] = weights[number]
            else:
                row[indexes[number]] += times * (weights[number] if attrs["mode"] == "TFIDF" else 1)
    return [result if x.ndim == 2 else result[0]]


def _pool(attrs: Attrs, most: int) -> dict[Gram, int]:
    """The n-grams to look for and their numbers, of at most so many in the whole pool."""
    pool = attrs.get("pool_strings")
    pool = list(attrs.get("pool_int64s", ()) if pool is None else pool)
    bounds = [*map(int, attrs["ngram_counts"]), len(pool)]
    grams: dict[Gram, int] = {}
    number = 0
    for size, (first, stop) in enumerate(pairwise(bounds), start=1):
        if not 0 <= first <= stop <= len(pool) or (stop - first) % size:
            raise ModelError(
                f"'ngram_counts' that cut the pool of {len(pool)} items into n-grams expected, "
                f"found {bounds[:-1]}"
            )
        for at in range(first, stop, size):
            if attrs["min_gram_length"] <= size <= attrs["max_gram_length"]:
                if number >= most:
                    raise ModelError(f"'ngram_indexes' for more than {most} n-grams expected")
                grams.setdefault(tuple(pool[at : at + size]), number)
            number += 1
    return grams


def _found(items: list[Any], grams: Mapping[Gram, int], most_skipped: int) -> Counter[Gram]:
    """How often each n-gram of the pool stands in the items."""
    found: Counter[Gram] = Counter()
    for size in sorted({len(gram) for gram in grams}):
        heads = {gram[0] for gram in grams if len(gram) == size}
        starts = [at for at, item in enumerate(items) if item in heads]
        reach = (len(items) - 1) // (size - 1) if size > 1 else 1
        for step in range(1, min(most_skipped + 1, reach) + 1):
            span = (size - 1) * step
            for at in starts:
                gram = tuple(items[at : at + span + 1 : step])
                if len(gram) == size and gram in grams:
                    found[gram] += 1
    return found

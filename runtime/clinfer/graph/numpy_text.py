"""Operators on text in NumPy, of which `TfIdfVectorizer` counts n-grams too."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
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


def split(attrs: Attrs, inputs: Sequence[Any]) -> list[Any]:
    """StringSplit: the parts of each text and how many: [...] -> [..., most parts], int64 [...].

    At a delimiter, else at spaces in a row; empty text has no part. Rows end in empty text.
    """
    (x,) = inputs
    by, most = str(attrs.get("delimiter") or ""), attrs.get("maxsplit")
    limit = -1 if most is None else int(most)

    def parts(text: str) -> list[str]:
        if by:
            return text.split(by, limit) if text else []
        text = text.lstrip(" ") if limit >= 0 else text.strip(" ")
        found = re.split(" +", text, maxsplit=max(limit, 0)) if limit else [text]
        return [part for part in found if part]

    rows = [parts(str(text)) for text in x.ravel().tolist()]
    longest = max(map(len, rows), default=0)
    made = np.full((len(rows), longest), "", object)
    for line, row in zip(made, rows, strict=True):
        line[: len(row)] = row
    counts = np.array([len(row) for row in rows], np.int64)
    return [made.reshape(*x.shape, longest), counts.reshape(x.shape)]


def normalized(attrs: Attrs, inputs: Sequence[Any]) -> list[Any]:
    """StringNormalizer: text without stop words, in one case: [C] -> [D] or [1, C] -> [1, D].

    An element is a stop word as a whole. Of nothing an empty text is left. Letters change as a
    locale's single characters do, in the locales C and POSIX those of ASCII.
    """
    (x,) = inputs
    if x.ndim not in (1, 2) or (x.ndim == 2 and len(x) != 1):
        raise InputError(f"text of [C] or [1, C] expected, found {list(x.shape)}")
    action = attrs.get("case_change_action", "NONE")
    is_ascii = attrs.get("locale") in ("C", "POSIX")
    change = _CASES["LOWER" if action == "NONE" else action]

    def changed(text: str) -> str:
        return "".join(_changed(c, change, is_ascii) for c in text)

    compared = str if attrs.get("is_case_sensitive", 0) else changed
    stops = {compared(str(word)) for word in attrs.get("stopwords") or ()}
    kept = [text for text in map(str, x.ravel().tolist()) if compared(text) not in stops]
    made = kept if action == "NONE" else [changed(text) for text in kept]
    result = np.array(made or [""], object)
    return [result if x.ndim == 1 else result.reshape(1, -1)]


_CASES: dict[str, Callable[[str], str]] = {"LOWER": str.lower, "UPPER": str.upper}


def _changed(letter: str, change: Callable[[str], str], is_ascii: bool) -> str:
    """A letter in another case; those that are several letters there stay."""
    found = change(letter)
    return letter if len(found) != 1 or (is_ascii and not letter.isascii()) else found


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

"""Key records: one encoding, one digest, differences by name."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from typing import Any

import pytest
from cache_helpers import program_record, run_python
from hypothesis import given
from hypothesis import strategies as st

from clinfer.cache import KeyRecord
from clinfer.cache.record import FieldDifference
from clinfer.errors import BlobError, CacheError

NAMES = st.from_regex(r"[a-z][a-z0-9_.-]{0,10}", fullmatch=True).filter(lambda name: name != "kind")
VALUES = st.one_of(
    st.text(st.characters(), max_size=20), st.booleans(), st.integers(-(2**63), 2**64 - 1)
)
RECORDS = st.dictionaries(NAMES, VALUES, max_size=8).map(
    lambda fields: KeyRecord.make("program", fields.items())
)


@given(RECORDS)
def test_encoding_goes_both_ways(record: KeyRecord) -> None:
    again = KeyRecord.from_json(record.to_json())
    assert again == record
    assert again.fields == record.fields
    assert again.digest == record.digest
    assert len(record.digest) == 64


@given(RECORDS, RECORDS)
def test_records_are_equal_exactly_where_their_digests_are(a: KeyRecord, b: KeyRecord) -> None:
    assert (a == b) == (a.digest == b.digest)
    assert (a == b) <= (not a.diff(b))


@given(st.one_of(st.text(), st.binary()))
def test_any_text_gives_a_record_or_a_cache_error(data: str | bytes) -> None:
    with suppress(CacheError):
        KeyRecord.from_json(data)


def test_one_and_true_are_different_keys() -> None:
    one = KeyRecord.make("program", [("flag", 1)])
    true = KeyRecord.make("program", [("flag", True)])
    text = KeyRecord.make("program", [("flag", "1")])
    assert len({one.digest, true.digest, text.digest}) == 3
    assert len({one, true, text}) == 3
    assert one.diff(true) == (FieldDifference("flag", 1, True),)


def test_the_order_of_fields_is_part_of_the_key() -> None:
    there = KeyRecord.make("program", [("a", 1), ("b", 2)])
    back = KeyRecord.make("program", [("b", 2), ("a", 1)])
    assert there != back
    assert there.diff(back) == ()


def test_differences_are_named_in_order() -> None:
    mine = KeyRecord.make("program", [("a", 1), ("b", "x"), ("c", True)])
    other = KeyRecord.make("program", [("c", False), ("a", 1), ("d", "y")])
    assert [(item.name, item.here, item.there) for item in mine.diff(other)] == [
        ("b", "x", None),
        ("c", True, False),
        ("d", None, "y"),
    ]
    assert str(mine.diff(other)[0]) == "b: 'x' here, absent there"


def test_fields_are_found_by_name() -> None:
    record = program_record(driver="9")
    assert record.kind == "program"
    assert record["driver"] == "9"
    assert record.get("nothing") is None
    with pytest.raises(KeyError):
        record["nothing"]


def test_a_key_of_another_device_is_refused_by_name() -> None:
    record = program_record(device="A", driver="1")
    record.require({"device": "A", "driver": "1"}, "the blob")
    with pytest.raises(BlobError) as caught:
        record.require({"device": "B", "format": 1, "driver": "2"}, "the blob")
    message = str(caught.value)
    assert "device is 'A', expected 'B'" in message
    assert "driver is '1', expected '2'" in message
    assert "format" not in message


@pytest.mark.parametrize(
    "fields",
    [
        (),
        (("name", "x"),),
        (("kind", 3),),
        (("kind", "x"), ("kind", "y")),
        (("kind", "x"), ("a", 1), ("a", 1)),
        (("kind", "x"), ("A", 1)),
        (("kind", "x"), ("a b", 1)),
        (("kind", "x"), ("a", 1.0)),
        (("kind", "x"), ("a", None)),
        (("kind", "x"), ("a", ("b",))),
        (("kind", "x"), ("a", b"b")),
        (("kind", "x"), ("a", 2**64)),
        (("kind", "x"), ("a", -(2**63) - 1)),
        (("kind", "x"), ("a", "b" * 70000)),
        (("kind", "x"), *((f"a{index}", 1) for index in range(300))),
    ],
)
def test_what_is_no_key_is_refused(fields: Any) -> None:
    with pytest.raises(CacheError):
        KeyRecord(fields)


@pytest.mark.parametrize(
    "text",
    [
        '[["kind", "x"]]',
        '[["kind","x"]] ',
        '[["kind","\\u0041"]]',
        '[["kind","x"],["a",1.0]]',
        '[["kind","x"],["a",null]]',
        '[["kind","x"],["a",NaN]]',
        '[["kind","x","y"]]',
        '{"kind":"x"}',
        "[" * 20000,
        '[["kind","x"],["a",' + "9" * 5000 + "]]",
    ],
)
def test_another_encoding_of_a_key_is_refused(text: str) -> None:
    with pytest.raises(CacheError):
        KeyRecord.from_json(text)


def test_digests_are_stable_across_processes_and_hash_seeds() -> None:
    code = (
        "from clinfer.cache import KeyRecord\n"
        "fields = {'format': 1, 'device': 'd\\u00e9vice', 'fast': True, 'n': -3}\n"
        "print(KeyRecord.make('program', fields.items()).digest)\n"
    )
    digests = {run_python(code, PYTHONHASHSEED=seed).strip() for seed in ("0", "1", "4711")}
    encoding = rb'[["kind","program"],["format",1],["device","d\u00e9vice"],["fast",true],["n",-3]]'
    assert digests == {hashlib.sha256(encoding).hexdigest()}

"""The container: what was written comes back, and nothing else does."""

from __future__ import annotations

import hashlib
import io
import random
import struct
from pathlib import Path

import numpy as np
import pytest
from cache_helpers import noise, program_record
from hypothesis import given, settings
from hypothesis import strategies as st

from clinfer.cache import Entry, EntryError, Reason, read, read_header, to_bytes, write
from clinfer.cache import files as cache_files
from clinfer.cache.digests import tree_checks
from clinfer.cache.header import ALIGNMENT, FORMAT_VERSION, PAGE, parse_header
from clinfer.errors import BlobError, CacheError, ClinferError

RECORD = program_record(7)
SECTIONS = {"plan": b"{'launches': []}", "weights": noise(10000), "empty": b"", "programs": b"xyz"}
BLOB = to_bytes(RECORD, SECTIONS, seconds=1.5)

HEAD = struct.Struct("<8sIIQQII")
ROW = struct.Struct("<32sIQQ32s16s")
ROWS_AT = HEAD.size + len(RECORD.encoded)
DIGEST_AT = ROWS_AT + len(SECTIONS) * ROW.size


def load(data: bytes, path: Path | None = None) -> Entry:
    if path is None:
        return read(data)
    path.write_bytes(data)
    return read(path)


def refused(data: bytes, path: Path | None = None) -> EntryError:
    with pytest.raises(EntryError) as caught:
        load(data, path)
    return caught.value


def signed_again(data: bytearray, count: int = len(SECTIONS)) -> bytes:
    """The header's digest made to fit what the header now says."""
    at = ROWS_AT + count * ROW.size
    data[at : at + 32] = hashlib.sha256(data[:at]).digest()
    return bytes(data)


@pytest.mark.parametrize("map_from", [0, 10**9])
def test_what_is_written_is_read(
    tmp_path: Path, map_from: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_files, "MAP_FROM", map_from)
    for path in (None, tmp_path / "blob"):
        entry = load(BLOB, path)
        assert entry.record == RECORD
        assert list(entry.sections) == list(SECTIONS)
        assert {name: bytes(view) for name, view in entry.sections.items()} == SECTIONS
        assert all(view.readonly for view in entry.sections.values())
        assert (entry.nbytes, entry.build_seconds) == (len(BLOB), 1.5)


def test_streams_and_bytes_are_the_same() -> None:
    file = io.BytesIO()
    assert write(file, RECORD, SECTIONS, seconds=1.5) == len(BLOB)
    assert file.getvalue() == BLOB


def test_a_file_that_takes_little_at_a_time_is_filled() -> None:
    class Slow(io.BytesIO):
        def write(self, data: object) -> int:
            return super().write(memoryview(data)[:1000])  # type: ignore[arg-type]

    file = Slow()
    write(file, RECORD, SECTIONS, seconds=1.5)
    assert file.getvalue() == BLOB


def test_any_split_into_buffers_gives_the_same_bytes() -> None:
    weights = np.frombuffer(SECTIONS["weights"], dtype=np.float32)
    split = {
        "plan": bytearray(SECTIONS["plan"]),
        "weights": [weights[:7], weights[7:7], weights[7:]],
        "empty": [],
        "programs": (b"x", memoryview(b"yz")),
    }
    assert to_bytes(RECORD, split, seconds=1.5) == BLOB


def test_a_container_without_sections() -> None:
    data = to_bytes(RECORD, {})
    assert dict(read(data).sections) == {}
    assert parse_header(data, len(data)).sections == ()


def test_sections_are_aligned_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "blob"
    path.write_bytes(BLOB)
    header = read_header(path)
    assert header.record == RECORD
    found = {section.name: section for section in header.sections}
    assert found["weights"].offset % PAGE == 0
    assert all(section.offset % ALIGNMENT == 0 for section in header.sections)
    assert header.sections[-1].end == len(BLOB)
    chosen = to_bytes(RECORD, {"a": b"1", "b": b"2"}, page_aligned=("b",))
    offset = chosen.index(b"2", len(chosen) - 1)
    assert offset % PAGE == 0


def test_a_missing_section_is_named() -> None:
    with pytest.raises(BlobError, match=r"no section 'binary', only: plan, weights"):
        read(BLOB).section("binary")


@pytest.mark.parametrize("name", ["", "A", "a/b", "..", "a" * 33, "1a", "a\0b", "\u00e9"])
def test_section_names_are_restricted(name: str) -> None:
    with pytest.raises(CacheError, match="section name"):
        to_bytes(RECORD, {name: b""})


def test_too_many_sections_are_not_written() -> None:
    with pytest.raises(CacheError, match="at most 256"):
        to_bytes(RECORD, {f"s{index}": b"" for index in range(257)})


def test_every_bit_of_the_header_and_padding_counts() -> None:
    weights_at = BLOB.index(SECTIONS["weights"][:64])
    for position in range(weights_at + 2):
        for bit in (0, 3, 7):
            damaged = bytearray(BLOB)
            damaged[position] ^= 1 << bit
            refused(bytes(damaged))


def test_random_bits_count(tmp_path: Path) -> None:
    picker = random.Random(1)
    for _ in range(500):
        damaged = bytearray(BLOB)
        damaged[picker.randrange(len(BLOB))] ^= 1 << picker.randrange(8)
        assert refused(bytes(damaged)).reason in (Reason.DAMAGED, Reason.VERSION)


def test_random_bits_count_for_the_check_values() -> None:
    picker = random.Random(2)
    for _ in range(500):
        damaged = bytearray(BLOB)
        damaged[picker.randrange(len(BLOB))] ^= 1 << picker.randrange(8)
        with pytest.raises(EntryError):
            read(bytes(damaged), thorough=False)


def test_a_fitting_check_value_is_not_a_fitting_digest() -> None:
    """Content that somebody changed along with its check value, but not the signed digest."""
    data = bytearray(BLOB)
    fields = list(ROW.unpack_from(data, ROWS_AT))
    offset, length = fields[2:4]
    data[offset] ^= 1
    (fields[5],) = tree_checks([[memoryview(bytes(data[offset : offset + length]))]])
    ROW.pack_into(data, ROWS_AT, *fields)
    forged = signed_again(data)
    assert read(forged, thorough=False)
    assert "digest of section" in str(refused(forged))


def test_every_truncation_is_found() -> None:
    for length in [*range(1500), *range(1500, len(BLOB), 97), len(BLOB) - 1]:
        assert refused(BLOB[:length]).reason is Reason.DAMAGED


def test_trailing_bytes_are_found() -> None:
    assert "claims" in str(refused(BLOB + b"\0"))


def test_another_format_version_is_told_apart() -> None:
    newer = bytearray(BLOB)
    struct.pack_into("<I", newer, 8, FORMAT_VERSION + 1)
    failure = refused(bytes(newer))
    assert failure.reason is Reason.VERSION
    assert f"version {FORMAT_VERSION + 1}" in str(failure)


def test_another_kind_or_key_is_foreign() -> None:
    assert read(BLOB, expect_kind="program").record == RECORD
    with pytest.raises(EntryError, match="expected a 'model', found a 'program'") as caught:
        read(BLOB, expect_kind="model")
    assert caught.value.reason is Reason.FOREIGN
    with pytest.raises(EntryError, match=r"driver: '9' here, '1\.2\.3' there") as caught:
        read(BLOB, expect_record=program_record(7, driver="9"))
    assert caught.value.reason is Reason.FOREIGN


def lie_in_head(data: bytearray, index: int, value: int) -> None:
    fields = list(HEAD.unpack_from(data))
    fields[index] = value
    HEAD.pack_into(data, 0, *fields)


def lie_in_row(data: bytearray, row: int, index: int, value: object) -> None:
    at = ROWS_AT + row * ROW.size
    fields = list(ROW.unpack_from(data, at))
    fields[index] = value
    ROW.pack_into(data, at, *fields)


ROW_LIES = {
    "a name with a slash": (0, 0, b"../plan", "not allowed"),
    "an empty name": (0, 0, b"", "not allowed"),
    "bytes after the name": (0, 0, b"plan\0x", "not allowed"),
    "a name used twice": (1, 0, b"plan", "two sections"),
    "an odd alignment": (0, 1, 16, "alignment"),
    "no alignment": (0, 1, 0, "alignment"),
    "another alignment": (1, 1, 64, "layout"),
    "an offset in the header": (0, 2, 0, "overlaps"),
    "an offset inside another section": (3, 2, 4096, "overlaps"),
    "an offset too late": (3, 2, 2**20, "layout"),
    "an offset beyond any file": (0, 2, 2**64 - 64, "layout"),
    "a length beyond the end": (3, 3, 4, "beyond the end"),
    "a length beyond any file": (1, 3, 2**64 - 1, "beyond the end"),
    "a length too short": (3, 3, 2, "follow the last section"),
    "another digest": (1, 4, bytes(32), "digest of section 'weights'"),
}


@pytest.mark.parametrize("lie", ROW_LIES)
def test_a_lying_row_is_found_though_the_header_is_signed(lie: str) -> None:
    row, index, value, message = ROW_LIES[lie]
    data = bytearray(BLOB)
    lie_in_row(data, row, index, value)
    assert message in str(refused(signed_again(data)))


HEAD_LIES = {
    "longer header": (2, len(BLOB), "header's length"),
    "endless header": (2, 2**32 - 1, "header's length"),
    "longer file": (3, len(BLOB) + 1, "follow the last section"),
    "shorter file": (3, 5000, "beyond the end"),
    "no file": (3, 0, "beyond the end"),
    "build time": (4, 2**64 - 1, "build time"),
    "endless record": (5, 2**32 - 1, "key record of 4294967295 bytes"),
    "shorter record": (5, 3, "header's length"),
    "endless sections": (6, 2**32 - 1, "4294967295 sections"),
    "fewer sections": (6, 1, "header's length"),
}


@pytest.mark.parametrize("lie", HEAD_LIES)
def test_a_lying_head_is_found_though_the_header_is_signed(lie: str) -> None:
    index, value, message = HEAD_LIES[lie]
    data = bytearray(BLOB)
    lie_in_head(data, index, value)
    assert message in str(refused(signed_again(data)))


def test_a_record_that_is_not_canonical_is_found() -> None:
    data = bytearray(BLOB)
    data[HEAD.size : HEAD.size + 8] = b'[["kinD"'
    assert "kind" in str(refused(signed_again(data)))


def test_signed_padding_that_is_not_zero_is_found() -> None:
    data = bytearray(BLOB)
    data[DIGEST_AT + 32] = 1
    assert "padding" in str(refused(bytes(data)))


@given(st.binary(max_size=2000))
def test_any_bytes_give_clinfer_errors_only(data: bytes) -> None:
    with pytest.raises(ClinferError):
        read(data)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, DIGEST_AT - 1), st.integers(0, 255)), min_size=1, max_size=6),
    st.booleans(),
)
def test_changed_headers_give_the_content_or_an_error(
    changes: list[tuple[int, int]], sign: bool
) -> None:
    data = bytearray(BLOB)
    for position, value in changes:
        data[position] = value
    try:
        entry = read(signed_again(data) if sign else bytes(data))
    except ClinferError:
        return
    # Whoever signs the header anew can forge the record, the build time and names, no content.
    assert [bytes(view) for view in entry.sections.values()] == list(SECTIONS.values())


@settings(max_examples=60, deadline=None)
@given(st.lists(st.binary(max_size=300), max_size=5), st.sets(st.integers(0, 4)))
def test_any_sections_go_both_ways(contents: list[bytes], paged: set[int]) -> None:
    sections = {f"s{index}": content for index, content in enumerate(contents)}
    data = to_bytes(RECORD, sections, page_aligned=[f"s{index}" for index in paged])
    assert {name: bytes(view) for name, view in read(data).sections.items()} == sections

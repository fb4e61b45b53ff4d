"""What a pack covers: differences between two, gaps of one."""

from __future__ import annotations

from pathlib import Path

import pytest
from cache_helpers import noise, program_record
from pack_helpers import TRUSTED, filled, make_pack

from clinfer.cache import KeyRecord, Reason, Store
from clinfer.cache.coverage import describe, difference, gaps
from clinfer.cache.index import Index, IndexEntry
from clinfer.cache.pack import Pack


def model(model: str = "m", **changes: str) -> KeyRecord:
    fields = {
        "format": 1,
        "model": model,
        "shapes": "",
        "generator": "g1",
        "target": "t1",
        "device": "Some GPU",
        "driver": "1",
        "platform": "Some OpenCL",
    }
    return KeyRecord.make("model", {**fields, **changes}.items())


def index(*records: KeyRecord, content: str = "0") -> Index:
    return Index("x", 1, tuple(IndexEntry(record, content * 64, 100) for record in records))


def test_coverage_gained_and_lost() -> None:
    found = difference(index(model("a"), model("b")), index(model("b"), model("c")))
    assert [entry.record["model"] for entry in found.gained] == ["c"]
    assert [entry.record["model"] for entry in found.lost] == ["a"]
    assert (found.renewed, found.same, found.rebuilt) == ((), 1, 0)


def test_another_release_or_driver_renews() -> None:
    before = index(model("a"), model("b"))
    after = index(model("a", generator="g2"), model("b", driver="2"))
    found = difference(before, after)
    assert (found.gained, found.lost, found.same) == ((), (), 0)
    fields = {
        str(item.after.record["model"]): [d.name for d in item.differences]
        for item in found.renewed
    }
    assert fields == {"a": ["generator"], "b": ["driver"]}


def test_another_device_or_shape_does_not() -> None:
    found = difference(index(model()), index(model(device="Other GPU"), model(shapes="x=1x128")))
    assert (len(found.gained), len(found.lost), found.renewed) == (2, 1, ())


def test_a_driver_dropped_is_a_loss() -> None:
    both = index(model(driver="1"), model(driver="2"))
    found = difference(both, index(model(driver="2")))
    assert [entry.record["driver"] for entry in found.lost] == ["1"]
    renewed = difference(both, index(model(driver="3")))
    assert (len(renewed.renewed), len(renewed.lost)) == (1, 1)
    assert difference(both, both).same == 2


def test_the_nearest_key_is_the_one_renewed() -> None:
    before = index(model(driver="1", generator="g0"), model(driver="2"))
    found = difference(before, index(model(driver="3")))
    assert [item.before.record["driver"] for item in found.renewed] == ["2"]


def test_rebuilt_content_is_counted() -> None:
    found = difference(index(model()), index(model(), content="1"))
    assert (found.same, found.rebuilt) == (1, 1)


def test_gaps_of_a_cache_and_a_pack(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    store = filled(tmp_path / "cache")
    needed = [(f"program {n}", program_record(n)) for n in range(3)]
    assert gaps(needed, [store]) == []
    path = make_pack(tmp_path / "p.clpack", store)
    (store.folder.entry(program_record(1).digest)).unlink()
    damaged = store.folder.entry(program_record(2).digest)
    damaged.write_bytes(damaged.read_bytes()[:-1])
    with Pack.open(path, TRUSTED) as pack:
        assert gaps(needed, [store, pack]) == []
        needed.append(("program 9", program_record(9, driver="9")))
        (gap,) = gaps(needed, [pack])
    assert (gap.what, gap.record) == ("program 9", program_record(9, driver="9"))
    found = gaps(needed, [Store(store.directory, readonly=True)])
    assert [(gap.what, gap.miss.reason, gap.verdict) for gap in found] == [
        ("program 1", Reason.ABSENT, "incomplete"),
        ("program 2", Reason.ABSENT, "incomplete"),  # the damaged entry was removed before
        ("program 9", Reason.ABSENT, "incomplete"),
    ]


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({"driver": "2"}, "incompatible"),
        ({"device": "Other", "driver": "2"}, "incompatible"),
        ({"options": "-g"}, "incomplete"),
        ({"options": "-g", "driver": "2"}, "incomplete"),
    ],
)
def test_what_is_there_for_another_device_is_incompatible(
    changes: dict[str, str], verdict: str, tmp_path: Path
) -> None:
    tmp_path.chmod(0o700)
    store = filled(tmp_path / "cache", count=1)
    (gap,) = gaps([("it", program_record(0, **changes))], [store])
    assert gap.verdict == verdict
    assert gap.nearest is not None
    assert {d.name for d in gap.nearest.differences} == set(changes)


def test_what_is_not_to_be_trusted_is_untrusted(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    store = filled(tmp_path / "cache", count=1)
    store.directory.chmod(0o777)
    (gap,) = gaps([("it", program_record(0))], [Store(store.directory)])
    assert gap.verdict == "untrusted"


def test_descriptions_for_people() -> None:
    assert describe(model("0123456789abcdef"))["what"] == "0123456789ab"
    named = KeyRecord.make("program", [("entry", "matmul"), ("device", "D"), ("driver", "1")])
    assert describe(named) == {
        "entry": named.digest[:12],
        "kind": "program",
        "what": "matmul",
        "device": "D",
        "driver": "1",
    }
    other = KeyRecord.make("tuning", [("family", noise(3).hex())])
    assert describe(other)["what"] == other.digest[:12]

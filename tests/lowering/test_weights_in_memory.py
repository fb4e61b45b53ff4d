"""A draft makes its constants one by one and lets go of what they are made of."""

from __future__ import annotations

import weakref
from pathlib import Path

import numpy as np
import pytest

from clinfer import mapping
from clinfer.lowering.content import Content, Draft
from clinfer.lowering.plan import Buffer, Plan


def _draft(contents: list[Content]) -> Draft:
    buffers = tuple(Buffer("const", "float32", 0, i) for i in range(len(contents)))
    return Draft(Plan((), (), buffers, (), (), ()), contents)


def test_constants_are_in_order_and_their_buffers_know_them() -> None:
    draft = _draft(
        [
            Content(np.ones((2, 3), np.float32), lambda a: a.astype(np.float16)),
            Content(np.arange(12, dtype=np.float32).reshape(3, 4).T),
        ]
    )
    plan = draft.finish()
    assert [b.dtype for b in plan.buffers] == ["float16", "float32"]
    assert [b.size for b in plan.buffers] == [6, 12]
    assert plan.constants[1].flags.c_contiguous
    assert plan.constants[1].tolist() == np.arange(12.0).reshape(3, 4).T.tolist()


def test_sources_are_let_go_of() -> None:
    alive: list[int] = []
    sources = [np.ones(n, np.float32) for n in (10, 30, 20)]
    known = [weakref.ref(source) for source in sources]

    def pack(array: np.ndarray) -> np.ndarray:
        alive.append(sum(ref() is not None for ref in known))
        return array + 1

    draft = _draft([Content(source, pack) for source in sources])
    del sources
    plan = draft.finish()
    assert alive == [3, 2, 1]
    assert [c.size for c in plan.constants] == [10, 30, 20]


def test_no_constant_stays_in_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mapping, "MAP_FROM", 1)
    monkeypatch.setattr(mapping, "may_map", lambda device: True)
    path = tmp_path / "w.bin"
    path.write_bytes(b"\0" + np.arange(5000, dtype=np.float32).tobytes())
    inside = mapping.MappedFile(path, mapping.open_file(path)).content[1:].view(np.float32)
    assert mapping.is_mapped(inside)
    plan = _draft([Content(inside), Content(inside, lambda a: a.reshape(2, -1))]).finish()
    for constant in plan.constants:
        assert not mapping.is_mapped(constant)
        assert constant.flags.aligned
        assert constant.ravel().tolist() == list(range(5000))


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_constants_begin_where_the_driver_wants_them(dtype: str) -> None:
    sources = [np.arange(n, dtype=dtype) for n in (0, 1, 100, 7)]
    plan = _draft([Content(source) for source in sources]).finish(512)
    for constant, source in zip(plan.constants, sources, strict=True):
        assert constant.__array_interface__["data"][0] % 512 == 0 or not constant.size
        assert np.array_equal(constant, source)

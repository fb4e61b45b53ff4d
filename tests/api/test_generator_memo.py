"""The digest of clinfer's own code is remembered as long as no file of it changes."""

from __future__ import annotations

from importlib.util import spec_from_file_location

import pytest

from clinfer.cache.store import Store
from clinfer.plugins import compiler


@pytest.fixture
def source(tmp_path, monkeypatch):
    """One file stands for the code."""
    file = tmp_path / "code" / "one.py"
    file.parent.mkdir()
    file.write_text("a = 1")
    monkeypatch.setattr(compiler, "_generating_files", lambda: [(str(file.parent), "one.py")])
    monkeypatch.setattr(compiler, "RACY_NS", 0)
    monkeypatch.setattr(compiler, "_generator", [])
    return file


def digest(store: Store) -> str:
    """As a new process finds it."""
    compiler._generator.clear()
    compiler.recall_generator(store)
    return compiler.generator_digest()


def test_it_is_not_made_again_until_a_file_changes(source, tmp_path, monkeypatch):
    store = Store(tmp_path / "cache")
    first = digest(store)
    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.read_bytes", lambda self: pytest.fail("it was read again"))
        assert digest(store) == first
    source.write_text("a = 2")
    assert digest(store) != first


def test_a_file_written_a_moment_ago_is_not_relied_on(source, tmp_path, monkeypatch):
    monkeypatch.setattr(compiler, "RACY_NS", 3600 * 10**9)
    store = Store(tmp_path / "cache")
    digest(store)
    assert not list((tmp_path / "cache").rglob("memos/*/*"))


def test_a_damaged_memo_is_made_anew(source, tmp_path):
    store = Store(tmp_path / "cache")
    first = digest(store)
    (memo,) = (tmp_path / "cache").rglob("memos/*/*")
    memo.write_bytes(memo.read_bytes()[:-1] + b"?")
    assert digest(store) == first


def test_all_the_code_is_in_it():
    names = {name for _, name in compiler._generating_files()}
    assert {"lowering/lower.py", "graph/shape_rules/views.py", "conv.py", "expr.py"} <= names
    assert any(name.endswith(".cl") for name in names)


def test_another_release_of_onnx_is_another_generator(tmp_path, monkeypatch):
    """Bodies of functions come from there."""
    package = tmp_path / "onnx" / "__init__.py"
    package.parent.mkdir()
    package.touch()
    spec = spec_from_file_location("onnx", package)
    monkeypatch.setattr(compiler, "find_spec", lambda name: spec)
    found = set()
    for release in ("1.23.2", "1.24.0"):
        info = tmp_path / f"onnx-{release}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Name: onnx\nVersion: {release}\n")
        monkeypatch.setattr(compiler, "_generator", [])
        found.add(compiler.generator_digest())
        (info / "METADATA").unlink()
        info.rmdir()
    assert len(found) == 2

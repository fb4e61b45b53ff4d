"""The remote store: read through, pushed to, never worse than none."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from cache_helpers import noise, posix_only, program_record
from pack_helpers import KEY, filled

pytest.importorskip("fsspec")

from remote_helpers import BINARY, ENTRY, TRUSTING, failing, far, layers, missed, remote, reset

from clinfer.cache import CacheMode, Layers, Miss, Reason, Store, to_bytes
from clinfer.cache.entry import Container
from clinfer.cache.policy import Trust
from clinfer.cache.remote import RemoteStore
from clinfer.errors import PropertyError


@pytest.fixture(autouse=True)
def clean_stores() -> None:
    reset()


# -- read-through and push -------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["memory", "file", "faulty"])
def test_what_is_built_is_pushed_and_read_through(scheme: str, tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    url = f"{scheme}://{tmp_path}/remote"
    trust = Trust(allow_unsigned=scheme == "faulty")
    first = layers(tmp_path / "first", remote(url, trust=trust))
    assert first.get(program_record()) is None
    assert first.put(program_record(), BINARY, seconds=2.0)
    assert first.remote is not None
    assert (first.remote.stats.stored, first.remote.stats.misses) == (1, {"absent": 1})
    second = layers(tmp_path / "second", remote(url, trust=trust))
    entry = second.get(program_record())
    assert entry is not None
    assert bytes(entry.section("binary")) == BINARY["binary"]
    assert second.stats.hits == 1
    assert second.stats.seconds_saved == 2.0
    assert second.remote is not None
    assert second.remote.stats.hits == 1
    # Now it is here, byte for byte, and the remote store is not asked again.
    again = layers(tmp_path / "second", remote(url, trust=trust))
    assert again.get(program_record()) is not None
    assert again.remote is not None
    assert again.remote.stats.hits == 0
    name = program_record().digest
    copies = [Store(tmp_path / d).folder.entry(name).read_bytes() for d in ("first", "second")]
    assert copies[0] == copies[1] == to_bytes(program_record(), BINARY, seconds=2.0)


def test_a_copied_cache_directory_is_a_remote_store(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    filled(tmp_path / "cache")
    store = remote(f"file://{tmp_path}/cache")
    assert all(isinstance(store.fetch(program_record(n)), Container) for n in range(3))


def test_sections_that_are_page_aligned_stay_so(tmp_path: Path) -> None:
    import numpy as np

    store = remote()
    assert (
        store.push(program_record(), to_bytes(program_record(), {"weights": noise(5000)})) is None
    )
    found = store.peek(program_record())
    assert not isinstance(found, Miss)
    assert np.frombuffer(found.section("weights"), np.uint8).ctypes.data % 4096 == 0


def test_without_a_cache_of_ones_own(tmp_path: Path) -> None:
    alone = Layers(remote=remote())
    assert not alone.put(program_record(), BINARY)
    assert alone.get(program_record()) is not None
    assert "memory://store" in alone.explain(program_record(5), "it")


@pytest.mark.parametrize("mode", [CacheMode.READ_ONLY, CacheMode.CACHE_ONLY, CacheMode.OFF])
def test_modes(mode: CacheMode, tmp_path: Path) -> None:
    remote().push(program_record(), ENTRY)
    opened = layers(tmp_path / "cache", remote(), mode)
    assert (opened.get(program_record()) is not None) == mode.reads
    opened.put(program_record(1), BINARY)
    assert not (tmp_path / "cache").exists()
    assert isinstance(remote().peek(program_record(1)), Miss)


def test_looking_again_asks_only_here(tmp_path: Path) -> None:
    remote().push(program_record(), ENTRY)
    opened = layers(tmp_path / "cache", remote())
    assert opened.get(program_record(), again=True) is None
    assert opened.remote is not None
    assert opened.remote.stats.hits == 0


def test_the_environment_and_properties_name_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLINFER_CACHE_STORE", "memory://a")
    opened = Layers.open(tmp_path)
    assert opened.remote is not None
    assert opened.remote.place == "memory://a"
    chosen = Layers.open(tmp_path, store="memory://b").remote
    assert chosen is not None
    assert chosen.place == "memory://b"
    assert Layers.open(tmp_path, store="").remote is None


# -- URLs ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("url", ["folder", "/tmp/x", "", "https://host/x?token=1", "http://h/#x"])
def test_what_is_no_url_of_a_store(url: str) -> None:
    with pytest.raises(PropertyError):
        RemoteStore(url)


@pytest.mark.parametrize("url", ["s3://bucket/x", "https://host/x", "file:///x"])
def test_a_url_is_no_cache_directory(url: str) -> None:
    with pytest.raises(PropertyError, match="CACHE_STORE"):
        Store(url)
    with pytest.raises(PropertyError, match="CACHE_STORE"):
        Layers.open(url)


def test_a_url_reaches_no_lower_layer(tmp_path: Path) -> None:
    opened = Layers.open(tmp_path / "cache", store="memory://user:secret@host/store")
    opened.put(program_record(), BINARY)
    assert [str(layer.directory) for layer in opened.stores] == [str(tmp_path / "cache")]
    entry = opened.get(program_record())
    assert entry is not None
    everything = repr([vars(layer) for layer in opened.stores]) + repr(entry)
    assert "memory:" not in everything


def test_passwords_are_not_shown(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = far()
    secret = remote("faulty://user:secret@host/x", trust=Trust(allow_unsigned=True))
    failing(OSError("GET https://user:secret@host/x failed"))
    assert secret.place == "faulty://host/x"
    for text in (missed(store).detail, missed(secret).detail, caplog.text):
        assert "secret" not in text
        assert "failed" in text


# -- file: and http: -------------------------------------------------------------------------------


@posix_only
def test_a_file_appears_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fsspec.implementations.local import LocalFileSystem

    tmp_path.chmod(0o700)
    store = remote(f"file://{tmp_path}/remote")
    store.push(program_record(), ENTRY)
    (old,) = (p for p in (tmp_path / "remote").rglob("*") if p.is_file())

    def break_off(self: object, path: str, value: bytes, **_: object) -> None:
        Path(path).write_bytes(value[:100])
        raise OSError("broken off")

    monkeypatch.setattr(LocalFileSystem, "pipe_file", break_off)
    assert store.push(program_record(), ENTRY) is not None
    assert [p for p in (tmp_path / "remote").rglob("*") if p.is_file()] == [old]
    assert old.read_bytes() == ENTRY


def test_over_http(tmp_path: Path) -> None:
    pytest.importorskip("aiohttp")
    from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

    tmp_path.chmod(0o700)

    class Handler(SimpleHTTPRequestHandler):
        broken = False

        def __init__(self, *more: Any) -> None:
            super().__init__(*more, directory=str(tmp_path))

        def do_GET(self) -> None:
            if Handler.broken:
                self.send_error(500)
            else:
                super().do_GET()

        def do_PUT(self) -> None:
            path = Path(self.translate_path(self.path))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(201)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/store"
    try:
        store = remote(url, trust=TRUSTING, key=KEY)
        assert missed(store).reason is Reason.ABSENT
        big = to_bytes(program_record(1), {"binary": noise(20_000_000)})
        for number, data in ((0, ENTRY), (1, big)):
            assert store.push(program_record(number), data) is None
            found = store.fetch(program_record(number))
            assert isinstance(found, Container)
            assert bytes(found.data) == data
        Handler.broken = True
        Handler.do_HEAD = Handler.do_GET  # type: ignore[method-assign]
        assert missed(store).reason is Reason.UNREADABLE
    finally:
        server.shutdown()
        server.server_close()
    assert missed(remote(url, trust=TRUSTING)).reason is Reason.UNREADABLE

"""The remote store in trouble: counted misses, signatures, nothing that arrives is believed."""

from __future__ import annotations

import errno
import http.server
import os
import queue
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from cache_helpers import in_child, noise, posix_only, program_record
from pack_helpers import KEY, OTHER_KEY

pytest.importorskip("fsspec")

import fsspec
from remote_helpers import (
    BINARY,
    ENTRY,
    TRUSTING,
    Faulty,
    failing,
    far,
    layers,
    missed,
    remote,
    reset,
)

from clinfer.cache import Miss, Reason, deadline, to_bytes
from clinfer.cache.entry import Container
from clinfer.cache.index import Limits
from clinfer.cache.policy import Trust
from clinfer.cache.remote import RemoteStore
from clinfer.cache.transfer import Incoming
from clinfer.errors import CacheError
from clocks import LIMIT


@pytest.fixture(autouse=True)
def clean_stores() -> None:
    reset()


# -- faults ----------------------------------------------------------------------------------------

FAULTS = [
    (FileNotFoundError("gone"), "absent"),
    (PermissionError("forbidden"), "unreadable"),
    (ConnectionResetError("reset"), "unreadable"),
    (OSError(errno.EIO, "broken"), "unreadable"),
    (RuntimeError("strange"), "unreadable"),
    (ValueError("stranger"), "unreadable"),
    (MemoryError(), "unreadable"),
    (NotImplementedError("not here"), "unreadable"),
]


@pytest.mark.parametrize(("error", "reason"), FAULTS, ids=[type(e).__name__ for e, _ in FAULTS])
def test_every_failure_is_a_counted_miss(error: Exception, reason: str, tmp_path: Path) -> None:
    store = far()
    store.push(program_record(), ENTRY)
    failing(error)
    opened = layers(tmp_path / "cache", store)
    assert opened.get(program_record()) is None
    assert store.stats.misses == opened.stats.misses == {reason: 1}
    assert opened.put(program_record(), BINARY)  # never worse than none: it is stored here


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (PermissionError("forbidden"), "read-only"),
        (NotImplementedError("read only"), "read-only"),
        (OSError(errno.ENOSPC, "full"), "no-space"),
        (ConnectionResetError("reset"), "unwritable"),
    ],
)
def test_a_push_that_fails_is_counted(error: Exception, reason: str, tmp_path: Path) -> None:
    store = far()
    asked = []

    def fault(what: str) -> None:
        asked.append(what)
        raise error

    Faulty.fault = staticmethod(fault)
    opened = layers(tmp_path / "cache", store)
    for number in range(2):
        assert opened.put(program_record(number), BINARY)
    assert store.stats.unstored == {reason: 2}
    # Where nothing can be written, that is not tried again.
    assert len(asked) == (1 if reason == "read-only" else 2)


def test_a_store_that_does_not_answer_is_given_up_soon() -> None:
    release = threading.Event()
    Faulty.fault = staticmethod(lambda what: release.wait(LIMIT) and None)
    now = [0.0]
    store = far(timeout=0.05, clock=lambda: now[0])
    start = time.perf_counter()
    for _ in range(3):
        assert "no answer within 0.05 s" in missed(store).detail
    for _ in range(100):
        assert "is not asked" in missed(store).detail
    assert store.push(program_record(), ENTRY) is not None
    assert time.perf_counter() - start < LIMIT
    assert store.stats.misses == {"unreadable": 103}
    release.set()
    Faulty.fault = staticmethod(lambda what: None)
    now[0] = 61.0
    assert missed(store).reason is Reason.ABSENT


class Slow:
    """The entry a few bytes every 12 s, by a clock of its own."""

    size = len(ENTRY)
    pieces = 200
    now = 0.0

    def __init__(self) -> None:
        self.at = 0

    def close(self) -> None:
        pass

    def read(self, count: int) -> bytes:
        assert News.awaited.acquire(timeout=LIMIT)
        Slow.now += 12
        start, self.at = self.at, self.at + min(count, self.pieces)
        return ENTRY[start : self.at]


class News(queue.SimpleQueue):
    """Has a piece come when it is waited for, and times out by that clock."""

    awaited = threading.Semaphore(0)

    def get(self, timeout: float) -> object:
        if timeout <= 0:
            raise queue.Empty
        self.awaited.release()
        return super().get(timeout=LIMIT)


@pytest.fixture
def own_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(News, "awaited", threading.Semaphore(0))
    clock = SimpleNamespace(monotonic=lambda: Slow.now)
    monkeypatch.setattr(deadline, "time", clock)
    monkeypatch.setattr(deadline, "queue", SimpleNamespace(SimpleQueue=News, Empty=queue.Empty))


def slow(store: RemoteStore) -> RemoteStore:
    class System:
        protocol = "faulty"

        def open(self, *_: object, **__: object) -> Slow:
            return Slow()

    store._objects._opened = (os.getpid(), System(), "")
    return store


def test_slow_is_not_silent(own_time: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces that keep coming are waited for, if they come fast enough."""
    monkeypatch.setattr(deadline, "SLOWEST", 10)
    start = Slow.now
    assert isinstance(slow(far(timeout=60.0)).fetch(program_record()), Container)
    assert Slow.now - start > 60


def test_who_drips_gains_no_time(own_time: None) -> None:
    assert "bytes within" in missed(slow(far(timeout=60.0))).detail


def spoil(change: Callable[[bytes], bytes]) -> RemoteStore:
    store = far()
    store.push(program_record(), ENTRY)
    name = next(path for path in Faulty.store if program_record().digest in path)
    fsspec.filesystem("faulty").pipe_file(name, change(ENTRY))
    return store


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda data: data[:-1], Reason.DAMAGED),
        (lambda data: data + b"x", Reason.DAMAGED),
        (lambda data: b"", Reason.DAMAGED),
        (lambda data: data[:700] + bytes([data[700] ^ 1]) + data[701:], Reason.DAMAGED),
        (lambda data: data[:8] + b"\x09" + data[9:], Reason.VERSION),
        (lambda data: to_bytes(program_record(1), BINARY), Reason.FOREIGN),
        (lambda data: b"<html>not here</html>", Reason.DAMAGED),
    ],
)
def test_what_arrives_is_checked(
    change: Callable[[bytes], bytes], reason: Reason, tmp_path: Path
) -> None:
    store = spoil(change)
    opened = layers(tmp_path / "cache", store)
    assert opened.get(program_record()) is None
    assert opened.stats.misses == {reason.value: 1}
    assert not (tmp_path / "cache").exists()
    opened.put(program_record(), BINARY)  # which mends it
    assert isinstance(far().fetch(program_record()), Container)


def test_bits_flipped_on_the_way(tmp_path: Path) -> None:
    for offset in range(0, len(ENTRY), 23):
        flipped = bytearray(ENTRY)
        flipped[offset] ^= 1 << (offset % 8)
        assert isinstance(spoil(lambda _, f=flipped: bytes(f)).fetch(program_record()), Miss)


def test_an_object_longer_than_is_read() -> None:
    short = far(limits=Limits(entry=100))
    short.push(program_record(), ENTRY)
    assert "at most 100 are read" in missed(short).detail


# -- a server that means ill -----------------------------------------------------------------------


class Evil(http.server.BaseHTTPRequestHandler):
    """Answers as the first folder of the path says. `ended` tells that a client has hung up."""

    protocol_version = "HTTP/1.1"
    ended = threading.Event()

    def do_GET(self) -> None:
        try:
            getattr(self, self.path.split("/")[1])()
        except OSError:
            self.ended.set()

    def log_message(self, *_: object) -> None:
        pass

    def answer(self, code: int = 200, **headers: str) -> None:
        self.close_connection = True
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def pour(self) -> None:
        while True:
            self.wfile.write(bytes(2**16))

    def garbage(self) -> None:
        self.answer()
        self.pour()

    def endless(self) -> None:
        self.answer()
        self.wfile.write(ENTRY)
        self.pour()

    def drip(self) -> None:
        self.answer(Content_Length="1000000")
        for byte in ENTRY * 100:
            self.wfile.write(bytes([byte]))
            time.sleep(0.05)

    def dripping_head(self) -> None:
        self.wfile.write(b"HTTP/1.1 200 OK\r\n")
        for number in range(10000):
            self.wfile.write(b"X-%d: 1\r\n" % number)
            time.sleep(0.05)

    def short(self) -> None:
        self.answer(Content_Length=str(len(ENTRY)))
        self.wfile.write(ENTRY[:-100])

    def cut(self) -> None:
        self.answer(Content_Length=str(len(ENTRY) - 100))
        self.wfile.write(ENTRY)

    def loop(self) -> None:
        self.answer(302, Location=self.path, Content_Length="0")

    def folded(self) -> None:
        import gzip

        self.answer(Content_Encoding="gzip")
        piece = gzip.compress(bytes(2**24))
        while True:
            self.wfile.write(piece)

    def good(self) -> None:
        self.answer(Content_Length=str(len(ENTRY)))
        self.wfile.write(ENTRY)


class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    pytest.importorskip("aiohttp")
    with Server(("127.0.0.1", 0), Evil) as made:
        threading.Thread(target=made.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{made.server_address[1]}"
        made.shutdown()


_ILL = ("garbage", "endless", "short", "cut", "loop", "folded", "drip", "dripping_head")


@pytest.mark.parametrize("how", _ILL)
def test_a_server_that_means_ill_is_given_up(server: str, how: str) -> None:
    Evil.ended.clear()
    seconds = 1.0 if how.startswith("drip") else 60.0
    store = remote(f"{server}/{how}", trust=Trust(allow_unsigned=True), timeout=seconds)
    reason = missed(store).reason
    assert reason in (Reason.DAMAGED, Reason.UNREADABLE)
    assert store.stats.misses == {reason.value: 1}
    if how in ("garbage", "endless", "drip", "folded"):
        assert Evil.ended.wait(60.0), "the connection stays open"


def test_a_server_that_means_well(server: str) -> None:
    store = remote(f"{server}/good", trust=Trust(allow_unsigned=True), timeout=30.0)
    assert isinstance(store.fetch(program_record()), Container)


def test_nothing_more_is_read_of_what_is_not_signed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The header says what the signature must be of; the rest may be gigabytes."""
    far().push(program_record(), ENTRY)
    asked: list[int] = []
    whole = Incoming.whole
    monkeypatch.setattr(Incoming, "whole", lambda self, n: asked.append(n) or whole(self, n))
    assert missed(remote("faulty://store", trust=TRUSTING)).reason is Reason.UNTRUSTED
    assert asked == []
    assert missed(far(), 1).reason is Reason.ABSENT
    assert isinstance(far().fetch(program_record()), Container)
    assert asked == [len(ENTRY)]


@posix_only
def test_a_forked_process_opens_anew() -> None:
    store = far()
    store.push(program_record(), ENTRY)
    assert in_child(lambda: isinstance(store.fetch(program_record()), Container))


# -- trust -----------------------------------------------------------------------------------------


def test_entries_from_far_away_must_be_signed(tmp_path: Path) -> None:
    far().push(program_record(), ENTRY)
    nobody = remote("faulty://store", trust=Trust())
    assert missed(nobody).reason is Reason.UNTRUSTED
    assert "CLINFER_TRUST" in missed(nobody).detail
    unsigned = remote("faulty://store", trust=TRUSTING)
    assert missed(unsigned).reason is Reason.UNTRUSTED
    assert "is not signed" in missed(unsigned).detail
    assert remote("faulty://store", trust=TRUSTING, key=KEY).push(program_record(), ENTRY) is None
    assert isinstance(unsigned.fetch(program_record()), Container)
    stranger = remote("faulty://store", trust=Trust((OTHER_KEY.public,)))
    assert missed(stranger).reason is Reason.UNTRUSTED
    assert KEY.public.id in missed(stranger).detail


def test_nothing_is_pushed_that_readers_would_refuse(tmp_path: Path) -> None:
    for trust in (Trust(), TRUSTING):
        store = remote("faulty://store", trust=trust)
        fault = store.push(program_record(), ENTRY)
        assert fault is not None
        assert "CLINFER_SIGN_KEY" in fault.detail
        assert Faulty.store == {}


def test_entry_and_hashes_rewritten_together() -> None:
    store = remote("faulty://store", trust=TRUSTING, key=KEY)
    store.push(program_record(), ENTRY)
    evil = to_bytes(program_record(), {"binary": b"evil" * 250})
    far().push(program_record(), evil)
    assert missed(store).reason is Reason.UNTRUSTED
    # Nor does a signature that was made of something else help.
    files = dict(Faulty.store)
    signature = next(f.getvalue() for name, f in files.items() if "/signatures/" in name)
    from clinfer.cache.header import parse_header

    content = parse_header(evil, len(evil)).digest.hex()
    system = fsspec.filesystem("faulty")
    system.pipe_file(f"/store/signatures/{content[:2]}/{content}", signature)
    assert "does not fit" in missed(store).detail
    for junk in (b"", b"x", signature[:-1], signature * 100, noise(96)):
        system.pipe_file(f"/store/signatures/{content[:2]}/{content}", junk)
        assert isinstance(store.fetch(program_record()), Miss)


@posix_only
def test_a_folder_is_trusted_as_a_cache_directory_is(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    folder = tmp_path / "remote"
    assert remote(f"file://{folder}").push(program_record(), ENTRY) is None
    assert isinstance(remote(f"file://{folder}").fetch(program_record()), Container)
    folder.chmod(0o777)
    open_to_all = remote(f"file://{folder}")
    assert missed(open_to_all).reason is Reason.UNTRUSTED
    assert "can be written by every user" in missed(open_to_all).detail
    waived = remote(f"file://{folder}", trust=Trust(allow_unsigned=True))
    assert isinstance(waived.fetch(program_record()), Container)


@posix_only
def test_a_folder_that_appears_in_a_shared_place_is_looked_at_again(tmp_path: Path) -> None:
    """Where it is missing it passes; whoever then makes it may be somebody else."""
    tmp_path.chmod(0o1777)
    store = remote(f"file://{tmp_path}/remote")
    assert missed(store).reason is Reason.ABSENT
    planted = tmp_path / "remote" / "entries" / program_record().digest[:2]
    planted.mkdir(parents=True)
    (planted / program_record().digest).write_bytes(ENTRY)
    assert isinstance(store.fetch(program_record()), Container)
    (tmp_path / "remote").chmod(0o777)
    assert missed(store).reason is Reason.UNTRUSTED


def test_keys_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    KEY.save(tmp_path / "key")
    monkeypatch.setenv("CLINFER_TRUST_FILE", str(tmp_path / "serials.json"))
    monkeypatch.setenv("CLINFER_TRUST", str(tmp_path / "key.pub"))
    monkeypatch.setenv("CLINFER_SIGN_KEY", str(tmp_path / "key"))
    assert remote("faulty://store").push(program_record(), ENTRY) is None
    assert isinstance(remote("faulty://store").fetch(program_record()), Container)
    monkeypatch.setenv("CLINFER_TRUST", str(tmp_path / "absent"))
    broken = remote("faulty://store")
    assert "absent" in missed(broken).detail
    with pytest.raises(CacheError, match="absent"):
        broken.connect()


def test_what_is_missing_is_said_before_work_begins() -> None:
    with pytest.raises(CacheError, match="not known"):
        remote("nonsense://store").connect()
    remote().connect()

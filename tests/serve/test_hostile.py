"""Malformed, oversized, slow, cancelled, half-closed requests: an error, and life goes on."""

from __future__ import annotations

import gzip
import json
import os
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path

import httpx
import numpy as np
import pytest

from api.conftest import prepare
from api.made import dense_answer, dense_model
from serve.conftest import place, serving

LIMITS = {
    "max_body": 100_000,
    "max_header": 8_192,
    "header_timeout": 1.0,
    "body_timeout": 1.0,
    "max_connections": 200,
}
ANSWER = 60
GIVEN = np.arange(48, dtype=np.float32).reshape(2, 24)


@pytest.fixture(scope="module")
def running(tmp_path_factory, cache):
    root = tmp_path_factory.mktemp("repository")
    place(root, "dense", dense_model())
    with pytest.MonkeyPatch.context() as patch:
        prepare("CPU", patch)
        with serving(root, cache, **LIMITS) as found:
            yield found


def body(array=GIVEN, **more) -> bytes:
    item = {"name": "x", "shape": list(array.shape), "datatype": "FP32", "data": array.tolist()}
    return json.dumps({"inputs": [{**item, **more}]}).encode()


def head(content: bytes, *more: str, length: int | None = None) -> bytes:
    lines = [
        "POST /v2/models/dense/infer HTTP/1.1",
        "host: localhost",
        f"content-length: {len(content) if length is None else length}",
        *more,
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


IN_PIECES = head(b"").replace(b"content-length: 0", b"transfer-encoding: chunked")


def connect(running) -> socket.socket:
    return socket.create_connection(("127.0.0.1", running.port), timeout=ANSWER)


def everything(connection: socket.socket) -> bytes:
    """What comes until the server closes."""
    pieces = []
    while piece := connection.recv(65536):
        pieces.append(piece)
    return b"".join(pieces)


def answered(running, sent: bytes) -> tuple[int, dict]:
    """The status and the document that come for these bytes, after which the server closes."""
    with connect(running) as connection:
        connection.sendall(sent)
        got = everything(connection)
    line, _, rest = got.partition(b"\r\n")
    return int(line.split()[1]), json.loads(rest.partition(b"\r\n\r\n")[2])


def works(running) -> None:
    """Whether the server answers as ever."""
    answer = httpx.post(f"{running.url}/v2/models/dense/infer", content=body())
    assert answer.status_code == 200
    found = np.array(answer.json()["outputs"][0]["data"], np.float32)
    np.testing.assert_allclose(found.reshape(2, 10), dense_answer(GIVEN), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "no JSON"),
        (b"{", "no JSON"),
        (b"\xff\xfe{}", "no JSON"),
        (b"[" * 100_000, "no JSON"),
        (b"[]", "expected an object"),
        (b"{}", "'inputs'"),
        (b'{"inputs": {}}', "'inputs'"),
        (b'{"inputs": []}', "no value for input 'x'"),
        (b'{"inputs": [7]}', "an input: expected an object"),
        (b'{"inputs": [{"name": 1}]}', "'name'"),
        (body(name="z"), "no input 'z'"),
        (body(shape=[2, 23]), "48 values given"),
        (body(shape=[2, -24]), "expected a shape"),
        (body(shape=[2, 24.0]), "expected a shape"),
        (body(shape=[2**62, 24]), "expected a shape"),
        (body(shape=[0, 2**40]), "0"),
        (body(shape="2"), "'shape'"),
        (body(datatype="FP31"), "FP31"),
        (body(data=None), "a list of values"),
        (body(data=7), "a list of values"),
        (body(data=[["1"] * 48]), "takes FP32, found str"),
        (body(data=[[1.0] * 24, 1.0]), "not nested evenly"),
        (body(data=[1e300] * 48), "too large for float32"),
        (body(data=[10**400] * 48), "too large for float32"),
        (body(parameters={"binary_data_size": 4}), "binary_data_size"),
        (body(parameters={"binary_data_size": -1}), "binary_data_size"),
        (body(parameters={"shared_memory_region": "x"}), "shared memory"),
        (body()[:-1] + b', "parameters": {"sequence_id": 1}}', "sequence_id"),
        (body()[:-1] + b', "parameters": {"timeout": -1}}', "microseconds"),
        (body()[:-1] + b', "parameters": {"timeout": %d}}' % 10**400, "microseconds"),
        (body()[:-1] + b', "parameters": {"timeout": NaN}}', "microseconds"),
        (body()[:-1] + b', "outputs": [{"name": "q"}]}', "no output 'q'"),
        (body()[:-2] + b"," + body()[12:], "given twice"),
    ],
)
def test_what_is_no_request_is_said_to_be_none(running, content, says):
    status, document = answered(running, head(content, "connection: close") + content)
    assert status == 400
    assert says in document["error"]
    works(running)


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("inference-header-content-length: 100000000", 400),
        ("inference-header-content-length: -1", 400),
        ("inference-header-content-length: 10", 400),
        ("content-encoding: br", 415),
        ("content-encoding: gzip", 400),
        ("origin: http://elsewhere.example", 403),
        ("origin: http://[", 400),
    ],
)
def test_headers_that_do_not_fit(running, line, status):
    content = body()
    found, document = answered(running, head(content, line, "connection: close") + content)
    assert found == status
    assert document["error"]
    works(running)


def test_a_host_that_is_not_this_machines_name_is_refused(running):
    answer = httpx.get(f"{running.url}/v2", headers={"host": "rebound.example"})
    assert answer.status_code == 403


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"NONSENSE\r\n\r\n",
        b"GET /v2 HTTP/9.9\r\n\r\n",
        b"POST /v2/models/dense/infer HTTP/1.1\r\nhost: localhost\r\ncontent-length: x\r\n\r\n",
        head(b"", "transfer-encoding: chunked", length=5) + b"0\r\n\r\n",
        IN_PIECES + b"zz\r\n",
        b"GET /v2 HTTP/1.1\r\nhost: [::1\r\nconnection: close\r\n\r\n",
    ],
)
def test_what_is_no_http_ends_the_connection(running, sent):
    status, document = answered(running, sent)
    assert status == 400
    assert document["error"]
    works(running)


def test_oversized_bodies_are_refused_before_they_are_read(running):
    status, document = answered(running, head(b"", length=10**12))
    assert status == 413
    assert "100000 bytes" in document["error"]
    chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
    assert answered(running, IN_PIECES + 2 * chunk)[0] == 413
    bomb = gzip.compress(b" " * 50_000_000)
    assert len(bomb) < 100_000
    lines = ("content-encoding: gzip", "connection: close")
    assert answered(running, head(bomb, *lines) + bomb)[0] == 413
    works(running)


def test_an_oversized_head_is_refused(running):
    status, _ = answered(running, head(b"", f"x-much: {'x' * 20_000}")[:-4])
    assert status == 431
    works(running)


def test_slow_heads_and_bodies_are_given_up(running):
    assert answered(running, head(body())[:40])[0] == 408
    assert answered(running, head(body()) + body()[:40])[0] == 408
    with connect(running) as silent:
        assert everything(silent) == b""  # nothing was asked, so nothing is said
    works(running)


def test_a_body_that_nobody_reads_is_not_waited_for(running):
    """It is answered at once, and given up later, however much comes of it."""
    with connect(running) as connection:
        start = head(b"", length=10**9).replace(b"dense", b"nothing")
        connection.sendall(start + b"x")
        assert connection.recv(65536).startswith(b"HTTP/1.1 404")
        with pytest.raises(OSError):  # a reset, or a broken pipe
            while True:
                connection.sendall(b"x")
                time.sleep(0.01)
    works(running)


def test_what_follows_a_body_in_pieces_is_not_kept(running):
    content = body()
    pieces = b"%x\r\n%s\r\n0\r\n" % (len(content), content)
    with connect(running) as connection:
        connection.sendall(
            IN_PIECES.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n") + pieces
        )
        connection.sendall(b"x-more: y\r\n" * 20_000 + b"\r\n")
        assert everything(connection).startswith(b"HTTP/1.1 200")
    works(running)


def test_a_client_that_takes_no_answers_is_left(running):
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", running.port))
        ask = b"GET /metrics HTTP/1.1\r\nhost: localhost\r\n\r\n"
        size = len(httpx.get(f"{running.url}/metrics").content)
        connection.sendall(ask * (12 * 2**20 // size))  # more than the system keeps for it
        assert has_peer(connection.getsockname())
        end = time.monotonic() + ANSWER
        while has_peer(connection.getsockname()):
            assert time.monotonic() < end, "still connected"
            time.sleep(0.05)
    works(running)


def test_more_connections_than_may_be(running):
    settings = running.server.settings
    object.__setattr__(settings, "max_connections", 0)
    try:
        answer = httpx.get(f"{running.url}/v2")
    finally:
        object.__setattr__(settings, "max_connections", LIMITS["max_connections"])
    assert answer.status_code == 503
    assert "connections" in answer.json()["error"]
    assert answer.headers["retry-after"]
    works(running)


def test_a_client_that_has_said_all_may_close_its_side(running):
    with connect(running) as connection:
        connection.sendall(head(body()) + body())
        connection.shutdown(socket.SHUT_WR)
        got = everything(connection)
    assert got.startswith(b"HTTP/1.1 200")
    assert b'"outputs"' in got


@pytest.mark.parametrize("sent", [head(body())[:50], head(body()) + body()[:50]])
def test_a_request_that_ends_early_is_an_error(running, sent):
    with connect(running) as connection:
        connection.sendall(sent)
        connection.shutdown(socket.SHUT_WR)
        assert everything(connection).startswith(b"HTTP/1.1 400")
    works(running)


def test_pipelined_requests_are_answered_in_their_order(running):
    sent = b""
    for number in range(5):
        content = json.dumps({**json.loads(body(GIVEN + number)), "id": str(number)}).encode()
        sent += head(content, *(["connection: close"] if number == 4 else [])) + content
    with connect(running) as connection:
        connection.sendall(sent)
        got = everything(connection)
    places = [got.index(f'"id": "{number}"'.encode()) for number in range(5)]
    assert places == sorted(places)
    assert got.count(b"HTTP/1.1 200") == 5


def test_errors_carry_the_requests_id(running):
    answer = httpx.get(f"{running.url}/nowhere", headers={"x-request-id": "abc-1"})
    assert answer.status_code == 404
    assert answer.headers["x-request-id"] == "abc-1"
    answer = httpx.get(f"{running.url}/nowhere", headers={"x-request-id": "<script>"})
    assert answer.headers["x-request-id"] != "<script>"
    assert httpx.get(f"{running.url}/v2/models/dense/infer").status_code == 405


def test_paths_lead_to_no_files(running):
    for name in (
        "..",
        "../dense",
        "%2e%2e",
        "%2e",
        "..%2f..%2fetc",
        "dense%00",
        "\u202e",
        "x" * 5000,
    ):
        for line in (f"GET /v2/models/{name}", f"POST /v2/repository/models/{name}/load"):
            sent = f"{line} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
            assert answered(running, sent.encode())[0] in (400, 404), line
    works(running)


def test_grpcs_malformed_and_oversized_requests(running):
    grpc = pytest.importorskip("grpc")
    from clinfer.serve.messages import SERVICE, message

    request = message("ModelInferRequest")(model_name="dense")
    given = request.inputs.add(name="x", datatype="FP32", shape=[2, 24])
    with grpc.insecure_channel(f"127.0.0.1:{running.grpc_port}") as channel:
        infer = channel.unary_unary(
            f"/{SERVICE}/ModelInfer", response_deserializer=message("ModelInferResponse").FromString
        )

        def code(sent: bytes) -> str:
            with pytest.raises(grpc.RpcError) as found:
                infer(sent, timeout=ANSWER)
            return found.value.code().name

        whole = request.SerializeToString
        assert code(b"\xff\xff\xff") == "INVALID_ARGUMENT"
        assert code(whole()) == "INVALID_ARGUMENT"
        request.raw_input_contents.append(bytes(10))
        assert code(whole()) == "INVALID_ARGUMENT"
        request.raw_input_contents[0] = bytes(200_000)
        assert code(whole()) == "RESOURCE_EXHAUSTED"
        request.raw_input_contents[0] = GIVEN.tobytes()
        request.raw_input_contents.append(b"")
        assert code(whole()) == "INVALID_ARGUMENT"
        del request.raw_input_contents[:]
        given.contents.int_contents.extend([1] * 48)
        assert code(whole()) == "INVALID_ARGUMENT"
        del given.contents.int_contents[:]
        given.contents.fp32_contents.extend([1.0] * 48)
        response = infer(whole(), timeout=ANSWER)
        assert list(response.outputs[0].shape) == [2, 10]
        given.datatype = "F" * 50_000  # quoted no longer than what clients take of an error
        with pytest.raises(grpc.RpcError) as found:
            infer(whole(), timeout=ANSWER)
        assert found.value.code().name == "INVALID_ARGUMENT"
        assert "expected" not in found.value.details()
        assert len(found.value.details()) <= 1000
        missing = channel.unary_unary(f"/{SERVICE}/CudaSharedMemoryStatus")
        with pytest.raises(grpc.RpcError) as found:
            missing(b"", timeout=ANSWER)
        assert found.value.code().name == "UNIMPLEMENTED"
    works(running)


def test_clients_that_leave_cost_nothing_that_stays(running):
    """Connections and threads are as before, and the others get their own answers."""
    works(running)
    before = sockets(), threading.active_count()
    for number in range(60):
        with connect(running) as connection:
            content = body()
            if number % 3:
                connection.sendall(head(content) + content[: len(content) - number % 2])
            if number % 5 == 0:
                reset = (1).to_bytes(4, "little") + (0).to_bytes(4, "little")
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
        if number % 10 == 0:
            works(running)
    end = time.monotonic() + ANSWER
    while sockets() > before[0] + 5 and time.monotonic() < end:
        time.sleep(0.05)
    assert sockets() <= before[0] + 5  # of sixty; those of other tests come and go
    assert threading.active_count() <= before[1] + 8  # the loop's own pool grows to its size
    works(running)


def sockets() -> int:
    """How many this process has open."""
    found = 0
    for entry in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            found += str(entry.readlink()).startswith("socket:")
    return found


def has_peer(address: tuple[str, int]) -> bool:
    """Whether this process, which is the server's too, has a connection to that address."""
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208
        with suppress(OSError), socket.socket(fileno=os.dup(int(name))) as other:
            if other.getpeername() == address:
                return True
    return False


def test_no_answer_goes_to_another_client(running):
    """Many clients at a time, each with its own values, some of whom leave."""
    wrong: list[int] = []

    def ask(number: int) -> None:
        generator = np.random.default_rng(number)
        with httpx.Client(base_url=running.url, timeout=ANSWER) as client:
            for _ in range(15):
                array = generator.standard_normal((2, 24)).astype(np.float32)
                if generator.random() < 0.2:
                    with connect(running) as connection:
                        connection.sendall(head(body(array)) + body(array))
                    continue
                answer = client.post("/v2/models/dense/infer", content=body(array)).json()
                found = np.array(answer["outputs"][0]["data"], np.float32).reshape(2, 10)
                if not np.allclose(found, dense_answer(array), rtol=1e-4, atol=1e-4):
                    wrong.append(number)

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(2 * ANSWER)
    assert not wrong
    works(running)

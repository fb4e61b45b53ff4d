"""A repository's life: configuration, versions, loading anew, keys, TLS, metrics, draining."""

from __future__ import annotations

import base64
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest
from onnx import TensorProto, helper

from api.made import dense_answer, dense_model, finished, one_node
from clinfer.errors import ClinferError, ModelError, PropertyError
from clinfer.serve import service
from clinfer.serve.server import Server
from clinfer.serve.settings import Settings
from serve.conftest import LIMIT, ROOT, place, serving

GIVEN = np.arange(24, dtype=np.float32).reshape(1, 24) / 24


def ask(running, array=GIVEN, path="dense", **more):
    item = {"name": "x", "shape": list(array.shape), "datatype": "FP32", "data": array.tolist()}
    content = {"inputs": [item]}
    return httpx.post(f"{running.url}/v2/models/{path}/infer", json=content, timeout=LIMIT, **more)


def values(answer):
    assert answer.status_code == 200, answer.text
    (output,) = answer.json()["outputs"]
    return np.array(output["data"], np.float32).reshape(output["shape"])


def right(found, seed=0, array=GIVEN):
    return np.allclose(found, dense_answer(array, seed), rtol=1e-5, atol=1e-5)


def test_versions_and_which_are_served(serve, tmp_path):
    for version in (1, 2, 10):
        place(tmp_path, "dense", dense_model(version), version)
    policy = {"version_policy": {"specific": {"versions": [1, 10]}}}
    place(tmp_path, "chosen", dense_model(1), 1, policy)
    place(tmp_path, "chosen", dense_model(2), 2)
    place(tmp_path, "chosen", dense_model(10), 10)
    running = serve(tmp_path)
    assert right(values(ask(running)), 10)
    answer = ask(running, path="dense/versions/2")
    assert answer.status_code == 404
    assert "[10]" in answer.json()["error"]
    assert right(values(ask(running, path="chosen")), 10)
    assert right(values(ask(running, path="chosen/versions/1")), 1)
    assert ask(running, path="chosen/versions/2").status_code == 404
    assert ask(running, path="chosen/versions/one").status_code == 400


def test_loading_anew_loses_no_request(serve, tmp_path, monkeypatch):
    monkeypatch.setattr(service, "_IN_LOOP", 0)  # arrays are made in threads, as large ones are
    place(tmp_path, "dense", dense_model(1))
    running = serve(tmp_path)
    seen, stop = set(), threading.Event()

    def work(_):
        while not stop.is_set():
            found = values(ask(running))
            seen.add(next(seed for seed in (1, 2) if right(found, seed)))

    with ThreadPoolExecutor(4) as pool:
        done = [pool.submit(work, number) for number in range(4)]
        place(tmp_path, "dense", dense_model(2))
        answer = httpx.post(f"{running.url}/v2/repository/models/dense/load", timeout=LIMIT)
        assert answer.status_code == 200, answer.text
        assert right(values(ask(running)), 2)
        stop.set()
        for item in done:
            item.result()
    assert seen == {1, 2} or seen == {2}


def test_a_model_that_does_not_load_leaves_the_old_one(serve, tmp_path):
    file = place(tmp_path, "dense", dense_model(1))
    running = serve(tmp_path)
    file.write_bytes(b"no model")
    answer = httpx.post(f"{running.url}/v2/repository/models/dense/load", timeout=LIMIT)
    assert answer.status_code == 500
    assert "'dense/1/model.onnx': not an ONNX model" in answer.json()["error"]
    assert right(values(ask(running)), 1)
    page = httpx.get(running.url).text
    assert "loading dense" in page


def test_unloading(serve, tmp_path):
    place(tmp_path, "dense", dense_model())
    running = serve(tmp_path)
    before = threading.active_count()
    assert httpx.post(f"{running.url}/v2/repository/models/dense/unload").status_code == 200
    assert threading.active_count() < before
    answer = ask(running)
    assert answer.status_code == 503
    assert answer.headers["retry-after"]
    assert "unloaded" in answer.json()["error"]
    rows = httpx.post(f"{running.url}/v2/repository/index").json()
    assert rows == [{"name": "dense", "version": "", "state": "UNAVAILABLE", "reason": "unloaded"}]
    assert httpx.post(f"{running.url}/v2/repository/index", json={"ready": True}).json() == []
    assert "dense" not in httpx.get(f"{running.url}/metrics").text
    assert httpx.post(f"{running.url}/v2/repository/models/dense/load").status_code == 200
    assert right(values(ask(running)))


def test_what_is_unloaded_is_given_back(serve, tmp_path):
    """The compiled models go with their last request, without a collection of cycles."""
    import gc
    import weakref

    config = {"max_batch_size": 4, "dynamic_batching": {}}
    place(tmp_path, "dense", dense_model(), config=config)
    running = serve(tmp_path)
    values(ask(running))
    (version,) = running.server.models.versions()
    gone = weakref.ref(version.loaded.compiled[0])
    del version
    gc.disable()
    try:
        assert httpx.post(f"{running.url}/v2/repository/models/dense/unload").status_code == 200
        assert gone() is None
    finally:
        gc.enable()


def test_gathered_requests_get_their_own_rows(serve, tmp_path):
    config = {"max_batch_size": 16, "dynamic_batching": {"max_queue_delay_microseconds": 20000}}
    place(tmp_path, "dense", dense_model(), config=config)
    place(tmp_path, "one", dense_model(rows=1), config=config)  # exported for one sample
    running = serve(tmp_path)
    arrays = [np.random.default_rng(n).random((1, 24), np.float32) for n in range(32)]
    for path in ("dense", "one"):
        with ThreadPoolExecutor(16) as pool:
            found = list(pool.map(lambda a: values(ask(running, a, path)), arrays))  # noqa: B023
        assert all(right(f, 0, a) for f, a in zip(found, arrays, strict=True))
    runs, samples = (
        sum(
            float(line.split()[-1])
            for line in httpx.get(f"{running.url}/metrics").text.splitlines()
            if line.startswith(f"clinfer_batch_samples_{part}")
        )
        for part in ("count", "sum")
    )
    assert samples == 64
    assert runs < 64
    answer = ask(running, np.zeros((17, 24), np.float32))
    assert answer.status_code == 400
    assert "17 samples" in answer.json()["error"]


def test_a_model_whose_samples_see_each_other_is_not_gathered(tmp_path, cache):
    whole = one_node("ReduceSum", {"x": (1, ["n", 3])}, {"y": (1, [1, 1])}, keepdims=1)
    config = {"max_batch_size": 4, "dynamic_batching": {}}
    place(tmp_path, "sum", whole, config=config)
    with (
        pytest.raises(ClinferError, match="sum: BATCH: ReduceSum"),
        serving(tmp_path, cache),
    ):
        pass


def test_several_instances_and_preprocessing(serve, tmp_path):
    node = helper.make_node("ReduceMean", ["x"], ["y"], keepdims=0, axes=[2, 3])
    sides = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 4, 4]),
        helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3]),
    ]
    model = finished(helper.make_graph([node], "mean", sides[:1], sides[1:]))
    config = {
        "instance_group": [{"device": "CPU", "count": 2}],
        "preprocessing": {"layout": "NHWC", "mean": [1, 2, 3], "scale": [2, 2, 2]},
    }
    place(tmp_path, "mean", model, config=config)
    running = serve(tmp_path)
    metadata = httpx.get(f"{running.url}/v2/models/mean").json()
    assert metadata["inputs"] == [{"name": "x", "datatype": "UINT8", "shape": [1, 4, 4, 3]}]
    item = {"name": "x", "shape": [1, 4, 4, 3], "datatype": "UINT8", "data": [9] * 48}
    answer = httpx.post(f"{running.url}/v2/models/mean/infer", json={"inputs": [item]})
    assert np.allclose(values(answer), [[4, 3.5, 3]])
    assert "2 on CPU" in httpx.get(running.url).text


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ("[]", "expected an object"),
        ("{", "config.json"),
        ('{"max_batch": 3}', "max_batch: no such field"),
        ('{"max_batch_size": "3"}', "expected int"),
        ('{"max_batch_size": -3}', "expected a count"),
        ('{"dynamic_batching": {}}', "needs a max_batch_size"),
        ('{"instance_group": [{"count": 0}]}', "1 to 64"),
        ('{"instance_group": [{"kind": "KIND_TPU"}]}', "instance_group.kind: no such field"),
        ('{"preprocessing": {"spin": 1}}', "preprocessing"),
        ('{"preprocessing": {"resize": "up"}}', "expected one of"),
        ('{"version_policy": {"specific": {"versions": [7]}}}', "there are [1]"),
        ('{"version_policy": {"specific": {"versions": ["a"]}}}', "expected numbers"),
        ('{"version_policy": {"specific": {"version": [1]}}}', "specific.version: no such field"),
        ('{"version_policy": {"all": {}, "latest": {}}}', "one of all, latest"),
        ('{"properties": {"NUM_STREAM": 1}}', "NUM_STREAM"),
    ],
)
def test_a_configuration_that_is_wrong_says_where(tmp_path, cache, config, says, monkeypatch):
    place(tmp_path, "dense", dense_model())
    (tmp_path / "dense" / "config.json").write_text(config)
    with pytest.raises(ClinferError, match=re.escape(says)), serving(tmp_path, cache):
        pass


def test_a_model_that_the_repository_lacks_is_named(tmp_path, cache):
    place(tmp_path, "dense", dense_model())
    with (
        pytest.raises(ClinferError, match="no model 'other'"),
        serving(tmp_path, cache, models=("other",)),
    ):
        pass


def test_a_repository_that_is_gone_leaves_what_is_loaded(serve, tmp_path):
    root = tmp_path / "repository"
    place(root, "dense", dense_model())
    running = serve(root)
    root.rename(tmp_path / "elsewhere")
    assert right(values(ask(running)))
    answer = httpx.post(f"{running.url}/v2/repository/index")
    assert answer.status_code == 503
    assert answer.json()["error"] == "the repository cannot be read: No such file or directory"


def test_tritons_own_configuration_is_not_passed_over(tmp_path, cache):
    place(tmp_path, "dense", dense_model())
    (tmp_path / "dense" / "config.pbtxt").write_text("max_batch_size: 8")
    with pytest.raises(ClinferError, match=r"config\.pbtxt is not read"), serving(tmp_path, cache):
        pass


def test_settings_that_do_not_fit(tmp_path):
    with pytest.raises(ModelError, match="no folder"):
        Server(Settings(repository=tmp_path / "nothing"))
    with pytest.raises(PropertyError, match="both a certificate and its key"):
        Settings(repository=tmp_path, tls_certificate=tmp_path / "x")
    with pytest.raises(PropertyError, match="cannot be used"):
        Server(Settings(tmp_path, tls_certificate=tmp_path / "x", tls_key=tmp_path / "y"))


def test_cache_only_compiles_nothing(tmp_path, cache, monkeypatch):
    place(tmp_path, "dense", dense_model(77))
    only = {"properties": {"CACHE_MODE": "cache-only"}}
    with pytest.raises(ClinferError, match="loading dense"), serving(tmp_path, cache, **only):
        pass
    with serving(tmp_path, cache) as running:
        expected = ask(running).json()["outputs"]
    with serving(tmp_path, cache, **only) as running:
        assert ask(running).json()["outputs"] == expected
        text = httpx.get(f"{running.url}/metrics").text
        assert 'clinfer_model_programs_built{model="dense",version="1"} 0.0' in text
        assert re.search(r"clinfer_cache_hits_total\{cache=\S+\} [1-9]", text)


def test_keep_going_serves_what_loads(serve, tmp_path):
    place(tmp_path, "dense", dense_model())
    place(tmp_path, "broken", dense_model()).write_bytes(b"")
    running = serve(tmp_path, keep_going=True)
    assert right(values(ask(running)))
    answer = ask(running, path="broken")
    assert answer.status_code == 503
    assert "is not ready" in answer.json()["error"]
    assert httpx.get(f"{running.url}/v2/models/broken/ready").status_code == 503


def test_the_key(serve, tmp_path):
    place(tmp_path, "dense", dense_model())
    running = serve(tmp_path, api_key="s3cret")
    basic = base64.b64encode(b"me:s3cret").decode()
    for path in ("/v2", "/metrics", "/", "/v2/models/dense"):
        assert httpx.get(running.url + path).status_code == 401
        for headers in (
            {"authorization": "Bearer s3cret"},
            {"authorization": f"Basic {basic}"},
            {"x-api-key": "s3cret"},
        ):
            assert httpx.get(running.url + path, headers=headers).status_code == 200
        for headers in (
            {"authorization": "Bearer s3cre"},
            {"authorization": "Basic !"},
            {"authorization": "Basic \u00e9".encode("latin-1").decode("latin-1")},
            {"x-api-key": ""},
        ):
            encoded = {k: v.encode("latin-1") for k, v in headers.items()}
            assert httpx.get(running.url + path, headers=encoded).status_code == 401
    assert httpx.get(f"{running.url}/v2/health/live").status_code == 200
    assert ask(running).status_code == 401

    grpc = pytest.importorskip("grpc")
    from clinfer.serve.messages import SERVICE

    with grpc.insecure_channel(f"127.0.0.1:{running.grpc_port}") as channel:
        assert channel.unary_unary(f"/{SERVICE}/ServerLive")(b"", timeout=LIMIT)
        call = channel.unary_unary(f"/{SERVICE}/ServerMetadata")
        with pytest.raises(grpc.RpcError) as found:
            call(b"", timeout=LIMIT)
        assert found.value.code().name == "UNAUTHENTICATED"
        assert call(b"", timeout=LIMIT, metadata=(("authorization", "Bearer s3cret"),))


def test_control_can_be_off(serve, tmp_path):
    place(tmp_path, "dense", dense_model())
    running = serve(tmp_path, control=False)
    for word in ("load", "unload"):
        answer = httpx.post(f"{running.url}/v2/repository/models/dense/{word}")
        assert answer.status_code == 403
    assert right(values(ask(running)))
    assert not Settings(tmp_path, host="0.0.0.0").may_control
    assert Settings(tmp_path, host="0.0.0.0", api_key="k").may_control


def test_uploaded_models_are_refused(serve, tmp_path):
    place(tmp_path, "dense", dense_model())
    running = serve(tmp_path)
    answer = httpx.post(
        f"{running.url}/v2/repository/models/dense/load",
        json={"parameters": {"file:1/model.onnx": "AAAA"}},
    )
    assert answer.status_code == 400
    assert "file:1/model.onnx" in answer.json()["error"]


def test_tls(serve, tmp_path):
    grpc = pytest.importorskip("grpc")
    certificate, key = certified(tmp_path)
    place(tmp_path / "models", "dense", dense_model())
    running = serve(tmp_path / "models", tls_certificate=certificate, tls_key=key)
    import ssl

    trusting = ssl.create_default_context(cafile=str(certificate))
    with httpx.Client(verify=trusting) as client:
        assert client.get(f"https://localhost:{running.port}/v2").status_code == 200
    from clinfer.serve.messages import SERVICE

    credentials = grpc.ssl_channel_credentials(certificate.read_bytes())
    with grpc.secure_channel(f"localhost:{running.grpc_port}", credentials) as channel:
        assert channel.unary_unary(f"/{SERVICE}/ServerLive")(b"", timeout=LIMIT)


def certified(folder):
    """A certificate for localhost, signed by itself, and its key."""
    from datetime import datetime, timedelta, timezone

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(timezone.utc)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    (folder / "cert.pem").write_bytes(made.public_bytes(pem))
    plain = serialization.NoEncryption()
    (folder / "key.pem").write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain)
    )
    return folder / "cert.pem", folder / "key.pem"


def test_metrics_tell_stages_codes_and_queues(serve, tmp_path):
    place(tmp_path, "dense", dense_model())
    running = serve(tmp_path)
    values(ask(running))
    ask(running, np.zeros((1, 23), np.float32))
    ask(running, path="unknown-to-all")
    text = httpx.get(f"{running.url}/metrics").text
    labels = 'model="dense",version="1"'
    for stage in ("decode", "queue", "run", "encode", "total"):
        assert f'clinfer_request_seconds_count{{{labels},stage="{stage}"}}' in text or (
            f'stage="{stage}"' in text
        )
    assert re.search(r'clinfer_requests_total\{code="OK",[^}]*protocol="rest"[^}]*\} 1\.0', text)
    assert 'code="INVALID_ARGUMENT"' in text
    assert f"clinfer_queue_requests{{{labels}}} 0.0" in text
    assert 'clinfer_device_memory_bytes{device="CPU"}' in text
    assert "unknown-to-all" not in text


def test_a_request_is_a_span_of_its_callers_trace(serve, tmp_path):
    pytest.importorskip("opentelemetry.sdk")
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    spans = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    trace.set_tracer_provider(provider)
    place(tmp_path, "dense", dense_model())
    running = serve(tmp_path)
    number = "0af7651916cd43dd8448eb211c80319c"
    values(ask(running, headers={"traceparent": f"00-{number}-b7ad6b7169203331-01"}))
    (span,) = [s for s in spans.get_finished_spans() if s.name == "infer dense"]
    assert f"{span.context.trace_id:032x}" == number
    assert span.attributes["clinfer.protocol"] == "rest"


class Command:
    """`clinfer serve` in a process of its own."""

    def __init__(self, *words: object) -> None:
        command = [sys.executable, "-m", "clinfer", "serve", *map(str, words), "--json"]
        self.process = subprocess.Popen(
            [*command, "--port", "0", "--grpc-port", "0", "--device", "CPU"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )

    def started(self) -> str:
        """The address, when all models are loaded."""
        lines = ""
        while not lines.endswith("}\n"):
            line = self.process.stdout.readline()
            assert line, self.process.stderr.read()
            lines += line
        url = f"http://127.0.0.1:{json.loads(lines)['port']}"
        end = time.monotonic() + LIMIT
        while httpx.get(f"{url}/v2/health/ready").status_code != 200:
            assert time.monotonic() < end
            time.sleep(0.05)
        return url

    def ended(self) -> tuple[int, list[dict]]:
        """The exit code and what was logged."""
        _, text = self.process.communicate(timeout=LIMIT)
        return self.process.returncode, [json.loads(line) for line in text.splitlines()]


def test_the_command_serves_drains_and_ends(tmp_path, cache):
    place(tmp_path, "dense", dense_model())
    command = Command(tmp_path, "--cache-dir", cache, "--access-log")
    url = command.started()
    answer = httpx.post(
        f"{url}/v2/models/dense/infer",
        json={
            "inputs": [{"name": "x", "shape": [1, 24], "datatype": "FP32", "data": GIVEN.tolist()}]
        },
        headers={"x-request-id": "first"},
    )
    assert right(values(answer))
    # a request that is under way when the end comes
    host, _, port = url.rpartition("//")[2].partition(":")
    content = answer.request.content
    with socket.create_connection((host, int(port)), timeout=LIMIT) as connection:
        start = f"POST /v2/models/dense/infer HTTP/1.1\r\nhost: {host}\r\n"
        connection.sendall(f"{start}content-length: {len(content)}\r\n\r\n".encode() + content[:9])
        time.sleep(0.2)
        command.process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        connection.sendall(content[9:])
        got = b""
        while piece := connection.recv(65536):
            got += piece
    assert got.startswith(b"HTTP/1.1 200")
    code, lines = command.ended()
    assert code == 0
    events = [line["event"] for line in lines]
    for event in ("listening", "loaded", "ready", "request", "draining", "stopped"):
        assert event in events
    assert any(line.get("request_id") == "first" for line in lines)


def test_the_command_fails_where_a_model_does(tmp_path, cache):
    place(tmp_path, "dense", dense_model(78))
    command = Command(tmp_path, "--cache-dir", cache, "--cache-only")
    _, err = command.process.communicate(timeout=LIMIT)
    assert command.process.returncode == 1
    assert "loading dense" in err.splitlines()[-1]


def test_warming_a_repository(tmp_path, monkeypatch):
    place(tmp_path / "models", "dense", dense_model(), config={
        "max_batch_size": 4, "dynamic_batching": {}})  # fmt: skip
    words = [tmp_path / "models", "--cache-dir", tmp_path / "cache", "--device", "CPU", "--json"]

    def run(*more: str):
        done = subprocess.run(
            [sys.executable, "-m", "clinfer", "serve", *map(str, words), *more],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        return json.loads(done.stdout)

    assert run("--warm")[0]["programs_built"] > 0
    assert run("--warm", "--cache-only")[0]["programs_built"] == 0


def test_an_address_in_use_is_said_to_be(tmp_path, cache, serve):
    place(tmp_path, "dense", dense_model())
    running = serve(tmp_path)
    taken = {"port": running.port}
    with pytest.raises(PropertyError, match="cannot listen"), serving(tmp_path, cache, **taken):
        pass
    taken = {"grpc_port": running.grpc_port}
    with pytest.raises(PropertyError, match="gRPC cannot"), serving(tmp_path, cache, **taken):
        pass
    assert right(values(ask(running)))


def test_import_clinfer_loads_nothing_of_it():
    names = "starlette", "uvicorn", "grpc", "prometheus_client", "clinfer.serve"
    code = f"import clinfer, clinfer.core, sys; print(set({names!r}) & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"

"""The adapters with their platforms' own servers, where those are installed.

`python tools/try_adapters.py` installs each in an environment of its own and runs this there.
Triton comes with PyTriton; without it the module that it gives to Python models has a stand-in.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
import sysconfig
import time
import types
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
import pytest

from api.conftest import prepare
from api.made import dense_answer, dense_model, save
from serve.conftest import LIMIT, place, serving

GIVEN = np.arange(48, dtype=np.float32).reshape(2, 24) / 48
ITEM = {"name": "x", "shape": [2, 24], "datatype": "FP32", "data": GIVEN.reshape(-1).tolist()}


@pytest.fixture
def model(tmp_path, cache, monkeypatch):
    """The dense model's file; servers that are started use the tests' cache."""
    prepare("CPU", monkeypatch)
    monkeypatch.setenv("CLINFER_CACHE_DIR", str(cache))
    return save(dense_model(), tmp_path / "model.onnx")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return found.getsockname()[1]


@contextmanager
def process(command, ready, cwd, **more):
    """A server in a process, once `ready` is answered with 200."""
    log = (cwd / "log.txt").open("w+")
    with log, subprocess.Popen(
        [str(word) for word in command], cwd=cwd, stdout=log, stderr=log,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **more},
    ) as running:  # fmt: skip
        try:
            end = time.monotonic() + LIMIT
            while True:
                try:
                    if httpx.get(ready).status_code == 200:
                        break
                except httpx.TransportError:
                    pass
                log.seek(0)
                assert running.poll() is None and time.monotonic() < end, log.read()
                time.sleep(0.2)
            yield
        finally:
            running.terminate()
            try:
                running.wait(LIMIT)
            except subprocess.TimeoutExpired:
                running.kill()


def check(values, shape=(2, 10)):
    found = np.array(values, np.float32).reshape(shape)
    np.testing.assert_allclose(found, dense_answer(GIVEN), rtol=1e-5, atol=1e-5)


def test_kserves_model_server(model, tmp_path):
    pytest.importorskip("kserve")
    port = free_port()
    script = tmp_path / "server.py"
    script.write_text(
        "from kserve import ModelServer\n"
        "from clinfer.serve.adapters.kserve import ClinferModel\n"
        f"server = ModelServer(http_port={port}, enable_grpc=False)\n"
        f"server.start([ClinferModel('dense', {str(model)!r}, 'CPU')])\n"
    )
    url = f"http://127.0.0.1:{port}"
    ready = f"{url}/v2/models/dense/ready"
    with process([sys.executable, script], ready, tmp_path):
        answer = httpx.post(f"{url}/v2/models/dense/infer", json={"inputs": [ITEM]})
        assert answer.status_code == 200, answer.text
        (output,) = answer.json()["outputs"]
        assert (output["name"], output["shape"]) == ("y", [2, 10])
        check(output["data"])
        answer = httpx.post(f"{url}/v1/models/dense:predict", json={"instances": GIVEN.tolist()})
        check(answer.json()["predictions"])
        metadata = httpx.get(f"{url}/v2/models/dense").json()
        assert metadata["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 24]}]
        wrong = {**ITEM, "shape": [48], "name": "z"}
        answer = httpx.post(f"{url}/v2/models/dense/infer", json={"inputs": [wrong]})
        assert answer.status_code == 400
        assert "no input 'z'" in answer.text


def test_kserves_clients_against_the_server(tmp_path, cache, monkeypatch):
    kserve = pytest.importorskip("kserve")
    import asyncio

    prepare("CPU", monkeypatch)
    place(tmp_path, "dense", dense_model())

    def request():
        given = kserve.InferInput("x", [2, 24], "FP32")
        given.set_data_from_numpy(GIVEN, binary_data=False)
        return kserve.InferRequest("dense", [given])

    async def ask(running):
        rest = kserve.InferenceRESTClient(kserve.RESTConfig(protocol="v2"))
        assert await rest.is_server_ready(running.url)
        assert await rest.is_model_ready(running.url, "dense")
        found = await rest.infer(running.url, request(), model_name="dense")
        check(found.outputs[0].as_numpy())
        calls = kserve.InferenceGRPCClient(f"127.0.0.1:{running.grpc_port}")
        assert await calls.is_server_ready()
        assert await calls.is_model_ready("dense")
        found = await calls.infer(request())
        check(found.outputs[0].as_numpy())
        await rest.close()
        await calls.close()

    with serving(tmp_path, cache) as running:
        asyncio.run(ask(running))


def test_mlserver(model, tmp_path):
    pytest.importorskip("mlserver")
    ports = {name: free_port() for name in ("http_port", "grpc_port", "metrics_port")}
    (tmp_path / "settings.json").write_text(json.dumps({**ports, "parallel_workers": 0}))
    implementation = "clinfer.serve.adapters.mlserver.ClinferModel"
    parameters = {"uri": str(model), "version": "1", "extra": {"device": "CPU"}}
    settings = {"name": "dense", "implementation": implementation, "parameters": parameters}
    (tmp_path / "model-settings.json").write_text(json.dumps(settings))
    url = f"http://127.0.0.1:{ports['http_port']}"
    command = [sys.executable, "-m", "mlserver.cli", "start", tmp_path]
    if importlib.util.find_spec("mlserver.cli.main"):
        command = [sys.executable, "-c", "from mlserver.cli import main; main()", "start", tmp_path]
    with process(command, f"{url}/v2/models/dense/ready", tmp_path):
        answer = httpx.post(f"{url}/v2/models/dense/infer", json={"inputs": [ITEM]})
        assert answer.status_code == 200, answer.text
        (output,) = answer.json()["outputs"]
        assert (output["name"], output["shape"], output["datatype"]) == ("y", [2, 10], "FP32")
        check(output["data"])
        metadata = httpx.get(f"{url}/v2/models/dense").json()
        assert metadata["inputs"][0]["shape"] == [-1, 24]
        wrong = {**ITEM, "name": "z"}
        answer = httpx.post(f"{url}/v2/models/dense/infer", json={"inputs": [wrong]})
        assert answer.status_code in (400, 422)
        assert "no input 'z'" in answer.text


def test_bentoml(model, tmp_path):
    pytest.importorskip("bentoml")
    port = free_port()
    (tmp_path / "service.py").write_text(
        "from clinfer.serve.adapters.bentoml import service\n"
        f"Dense = service('Dense', {str(model)!r}, 'CPU')\n"
    )
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "bentoml", "serve", "service:Dense", "--port", port]
    with process(command, f"{url}/readyz", tmp_path, BENTOML_DO_NOT_TRACK="True"):
        answer = httpx.post(f"{url}/infer", json={"x": GIVEN.tolist()}, timeout=LIMIT)
        assert answer.status_code == 200, answer.text
        check(answer.json()["y"])
        answer = httpx.post(f"{url}/infer", json={"x": [[1.0]]}, timeout=LIMIT)
        assert answer.status_code == 400
        assert "expected [batch, 24]" in answer.text


class Stand:
    """What Triton's `triton_python_backend_utils` has, as far as a model uses it."""

    class Tensor:
        def __init__(self, name, array):
            self.name, self.array = name, array

        def as_numpy(self):
            return self.array

    class TritonError(Exception):
        pass

    class InferenceResponse:
        def __init__(self, output_tensors=(), error=None):
            self.output_tensors, self.error = output_tensors, error

    class Request:
        def __init__(self, **arrays):
            self.tensors = {n: Stand.Tensor(n, a) for n, a in arrays.items()}

        def requested_output_names(self):
            return ["y"]

    @staticmethod
    def get_input_tensor_by_name(request, name):
        return request.tensors.get(name)


def test_tritons_python_backend(model, tmp_path, monkeypatch):
    stand = types.ModuleType("triton_python_backend_utils")
    for name in ("Tensor", "TritonError", "InferenceResponse", "get_input_tensor_by_name"):
        setattr(stand, name, getattr(Stand, name))
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", stand)
    place(tmp_path / "models", "dense", dense_model(), 3)
    triton = importlib.import_module("clinfer.serve.adapters.triton")
    made = triton.TritonPythonModel()
    made.initialize(
        {
            "model_config": json.dumps({"parameters": {"device": {"string_value": "CPU"}}}),
            "model_repository": str(tmp_path / "models" / "dense"),
            "model_version": "3",
            "model_instance_kind": "GPU",
            "model_instance_device_id": "0",
        }
    )
    good, short, without = made.execute(
        [Stand.Request(x=GIVEN), Stand.Request(x=GIVEN[:, 1:]), Stand.Request()]
    )
    assert good.error is None
    assert good.output_tensors[0].name == "y"
    check(good.output_tensors[0].as_numpy())
    assert "shape [2, 23]" in str(short.error)
    assert "no value for input 'x'" in str(without.error)
    made.finalize()
    del sys.modules["clinfer.serve.adapters.triton"]


def test_tritons_server(model, tmp_path):
    """Triton as PyTriton brings it, with the backend for this version of Python beside it."""
    found = importlib.util.find_spec("pytriton")
    if found is None:
        pytest.skip("could not import 'pytriton'")
    triton = Path(found.origin).parent / "tritonserver"
    backend = tmp_path / "backends" / "python"
    shutil.copytree(triton / "backends" / "python", backend)
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    stub = "triton_python_backend_stub"
    shutil.copy(triton / "python_backend_stubs" / version / stub, backend)
    (backend / stub).chmod(0o755)
    place(tmp_path / "models", "dense", dense_model())
    (tmp_path / "models" / "dense" / "1" / "model.py").write_text(
        f"import sys; sys.path[:0] = {sys.path}\n"  # Triton does not look at PYTHONPATH
        "from clinfer.serve.adapters.triton import TritonPythonModel\n"
    )
    (tmp_path / "models" / "dense" / "config.pbtxt").write_text(
        'backend: "python"\n'
        'input [{name: "x" data_type: TYPE_FP32 dims: [-1, 24]}]\n'
        'output [{name: "y" data_type: TYPE_FP32 dims: [-1, 10]}]\n'
        "instance_group [{kind: KIND_CPU}]\n"
    )
    port, server = free_port(), triton / "bin" / "tritonserver"
    command = [server, "--model-repository", tmp_path / "models", "--http-port", port]
    command += ["--backend-directory", backend.parent, "--allow-grpc=0", "--allow-metrics=0"]
    libraries = [triton.parents[1] / "nvidia_pytriton.libs", sysconfig.get_config_var("LIBDIR")]
    paths = {
        "LD_LIBRARY_PATH": os.pathsep.join(map(str, libraries)),
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
    }
    url = f"http://127.0.0.1:{port}/v2"
    with process(command, f"{url}/health/ready", tmp_path, **paths):
        answer = httpx.post(f"{url}/models/dense/infer", json={"inputs": [ITEM]})
        assert answer.status_code == 200, answer.text
        check(answer.json()["outputs"][0]["data"])
        wrong = {**ITEM, "shape": [2, 23], "data": ITEM["data"][2:]}
        answer = httpx.post(f"{url}/models/dense/infer", json={"inputs": [wrong]})
        assert answer.status_code >= 400
        assert answer.json()["error"]

"""Servers in threads of the test's process, and the repositories that they serve."""

from __future__ import annotations

import asyncio
import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import onnx
import pytest

from api.conftest import prepare
from api.made import save
from clinfer.serve.server import Server
from clinfer.serve.settings import Settings

LIMIT = 120
ROOT = Path(__file__).resolve().parents[2]


def place(root: Path, name: str, model: Any, version: int = 1, config: Any = None) -> Path:
    """Puts a model, a ModelProto or a file, into a repository."""
    folder = root / name / str(version)
    folder.mkdir(parents=True, exist_ok=True)
    if isinstance(model, onnx.ModelProto):
        save(model, folder / "model.onnx")
    else:
        shutil.copy(model, folder / "model.onnx")
    if config is not None:
        (root / name / "config.json").write_text(json.dumps(config))
    return folder / "model.onnx"


class Running:
    """A server that runs in a thread."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.port, self.grpc_port = server.port, server.grpc_port
        scheme = "http" if server.settings.tls_certificate is None else "https"
        self.url = f"{scheme}://127.0.0.1:{self.port}"

    def is_ready(self) -> bool:
        """Whether all models are loaded."""
        try:
            answer = httpx.get(f"{self.url}/v2/health/ready", verify=False)
        except httpx.TransportError:
            return False
        return answer.status_code == 200


@contextmanager
def serving(root: Path, cache: Path, **settings: Any) -> Iterator[Running]:
    """A server of a repository, ready; drained at the end."""
    wanted = {"port": 0, "grpc_port": 0, "device": "CPU", **settings}
    wanted["properties"] = {"CACHE_DIR": str(cache), **wanted.get("properties", {})}
    server = Server(Settings(repository=root, **wanted))
    opened, failures = threading.Event(), []

    def work() -> None:
        try:
            asyncio.run(server.serve(lambda _: opened.set()))
        except BaseException as error:
            failures.append(error)
        finally:
            opened.set()

    thread = threading.Thread(target=work)
    thread.start()
    assert opened.wait(LIMIT)
    try:
        running, end = Running(server), time.monotonic() + LIMIT
        while not running.is_ready():
            if failures:
                raise failures[0]
            assert time.monotonic() < end, "never ready"
            time.sleep(0.02)
        yield running
    finally:
        server.stop()
        thread.join(LIMIT)
    assert not thread.is_alive(), "the server does not end"
    if failures:
        raise failures[0]


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache for all these tests, so that each model is compiled once."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def serve(tmp_path, cache, monkeypatch) -> Iterator[Callable[..., Running]]:
    """Starts servers of a repository; they end with the test."""
    from contextlib import ExitStack

    prepare("CPU", monkeypatch)
    with ExitStack() as stack:

        def start(root: Path, **settings: Any) -> Running:
            return stack.enter_context(serving(root, settings.pop("cache", cache), **settings))

        yield start

"""The server: both fronts in one event loop, from the first address until it has drained."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import uvicorn

from clinfer.errors import ClinferError, PropertyError
from clinfer.serve.connections import protocol
from clinfer.serve.loading import prepare
from clinfer.serve.logs import LOG
from clinfer.serve.metrics import Metrics
from clinfer.serve.models import Models
from clinfer.serve.repository import Repository
from clinfer.serve.service import Service
from clinfer.serve.settings import Settings

if TYPE_CHECKING:
    import grpc.aio

    from clinfer.core import Core

_KEEP_ALIVE = 30
_SIGNALS = (signal.SIGTERM, signal.SIGINT)

Started = Callable[["Server"], None]


def _nothing(server: Server) -> None:
    pass


class _Web(uvicorn.Server):
    """Uvicorn, which leaves signals to `Server`."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class Server:
    """A server of one repository. `run` in the main thread; `serve` in an event loop of one's own.

    `port` and `grpc_port` are those in use, and `models` is there, once `serve` has told `started`.
    """

    def __init__(self, settings: Settings, core: Core | None = None) -> None:
        """Raises `ModelError` where there is no repository, `PropertyError` for TLS and keys."""
        from clinfer.core import Core

        self.settings = settings
        self.repository = Repository(settings.repository)
        self.core = core or Core()
        self.core.set_property(dict(settings.properties))
        self._tls = settings.tls()
        self._stop: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self.models: Models
        self.port = settings.port
        self.grpc_port = settings.grpc_port

    def run(self, started: Started = _nothing) -> None:
        """Serves until SIGTERM or Ctrl-C; then drains. A second signal ends it at once.

        `started` is called when the addresses are open, before models are loaded. Raises
        `ClinferError` where a model cannot be loaded and the settings say not to keep going.
        """
        before = {number: signal.getsignal(number) for number in _SIGNALS}
        try:
            asyncio.run(self.serve(started, signals=True))
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def stop(self) -> None:
        """Asks a server, from any thread, to drain and end."""
        if self._loop is not None and self._stop is not None:
            with suppress(RuntimeError):  # it has ended already
                self._loop.call_soon_threadsafe(self._stop.set)

    async def serve(self, started: Started = _nothing, signals: bool = False) -> None:
        """As `run`, in an event loop that is there; without `signals` it ends with `stop`."""
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        preparing = self._loop.run_in_executor(None, prepare)
        metrics = Metrics()
        self.models = models = Models(self.repository, self.core, self.settings, metrics)
        service = Service(self.settings, models, metrics)
        try:
            with _listening(self.settings) as address:
                await self._serve(service, address, preparing, started, signals)
        finally:
            await models.close()
        LOG.info("stopped")

    async def _serve(
        self,
        service: Service,
        address: socket.socket,
        preparing: asyncio.Future[None],
        started: Started,
        signals: bool,
    ) -> None:
        assert self._stop is not None
        self.port = address.getsockname()[1]
        web = self._web(service)
        calls = await self._calls(service)
        serving = asyncio.ensure_future(web.serve(sockets=[address]))
        stopping = asyncio.ensure_future(self._stop.wait())
        await preparing  # beside the fronts, with which loading would take turns
        loading = asyncio.ensure_future(service.models.load_all(self.settings.models))
        failure: ClinferError | None = None
        with self._signals(signals):
            try:
                self._tell_address()
                started(self)
                ends: set[asyncio.Future[Any]] = {loading, stopping, serving}
                await asyncio.wait(ends, return_when="FIRST_COMPLETED")
                if loading.done():
                    failure = self._failure(service.models, loading.result())
                if failure is None and not self._stop.is_set():
                    LOG.info("ready", extra={"ready": service.models.is_ready})
                    await asyncio.wait(ends - {loading}, return_when="FIRST_COMPLETED")
                LOG.info("draining")
            finally:
                service.models.is_ready = False
                web.should_exit = True
                stopping.cancel()
                loading.cancel()
                if calls is not None:
                    await calls.stop(self.settings.drain)
                await serving
        if failure is not None:
            raise failure

    def _failure(self, models: Models, failed: list[str]) -> ClinferError | None:
        if not failed or self.settings.keep_going:
            return None
        reasons = "; ".join(f"{failure.where}: {failure.what}" for failure in models.failures)
        return ClinferError(f"{reasons}; --keep-going serves the others all the same")

    def _web(self, service: Service) -> _Web:
        from clinfer.serve.rest import application

        settings = self.settings
        config = uvicorn.Config(
            application(service),
            http=protocol(settings),
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=_KEEP_ALIVE,
            timeout_graceful_shutdown=max(1, round(settings.drain)),
            ssl_certfile=settings.tls_certificate,
            ssl_keyfile=settings.tls_key,
        )
        return _Web(config)

    async def _calls(self, service: Service) -> grpc.aio.Server | None:
        """The gRPC server, listening; None where there is to be none. Raises `PropertyError`."""
        if self.settings.grpc_port is None:
            return None
        import grpc

        from clinfer.serve.grpc_front import server

        made = server(service)
        host = f"[{self.settings.host}]" if ":" in self.settings.host else self.settings.host
        address = f"{host}:{self.settings.grpc_port}"
        try:
            if self._tls is None:
                self.grpc_port = made.add_insecure_port(address)
            else:
                credentials = grpc.ssl_server_credentials([self._tls])
                self.grpc_port = made.add_secure_port(address, credentials)
        except RuntimeError as error:
            raise PropertyError(f"gRPC cannot listen on {address}: {error}") from error
        await made.start()
        return made

    def _tell_address(self) -> None:
        extra: dict[str, Any] = {"host": self.settings.host, "port": self.port}
        LOG.info("listening", extra={**extra, "grpc_port": self.grpc_port})
        if not self.settings.is_local and not self.settings.api_key:
            LOG.warning("other machines can reach this server, and no API key is asked for")

    @contextmanager
    def _signals(self, wanted: bool) -> Iterator[None]:
        assert self._loop is not None and self._stop is not None
        loop, stop = self._loop, self._stop

        def received(number: int) -> None:
            if stop.is_set():
                _end_by(number)
            stop.set()

        numbers = _SIGNALS if wanted else ()
        for number in numbers:
            loop.add_signal_handler(number, received, number)
        try:
            yield
        finally:
            for number in numbers:
                loop.remove_signal_handler(number)
                signal.signal(number, signal.SIG_DFL)  # a thread may be loading still


def _end_by(number: int) -> None:
    """Ends the process by a signal, at once."""
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


@contextmanager
def _listening(settings: Settings) -> Iterator[socket.socket]:
    """The socket of REST. Raises `PropertyError` where the address cannot be had."""
    try:
        family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
        made = socket.create_server((settings.host, settings.port), family=family, backlog=1024)
    except OSError as error:
        where = f"{settings.host}:{settings.port}"
        raise PropertyError(f"cannot listen on {where}: {error.strerror or error}") from error
    with made:
        yield made

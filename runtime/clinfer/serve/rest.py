"""The protocol over REST: Starlette's routes, and around them keys, ids, limits and errors."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from time import perf_counter
from typing import Any
from urllib.parse import urlsplit

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from clinfer import __version__
from clinfer.serve import rest_tensors, status
from clinfer.serve.logs import LOG
from clinfer.serve.metrics import CONTENT_TYPE
from clinfer.serve.refusals import (
    FORBIDDEN,
    INTERNAL,
    INVALID,
    NOT_FOUND,
    SLOW,
    TOO_LARGE,
    UNAUTHENTICATED,
    UNAVAILABLE,
    Kind,
    RefusedError,
    kind_of,
    words_of,
)
from clinfer.serve.service import EXTENSIONS, Caller, Service, request_id
from clinfer.serve.statistics import statistics

_PATIENCE = 0.05
"""Seconds after which it is asked whether the client is still there."""
_OPEN = frozenset(["/v2/health/live", "/v2/health/ready"])
"""What needs no key: the probes of a cluster."""
_OTHER_METHOD = Kind(405, "UNIMPLEMENTED")
_LOCAL_NAMES = frozenset(["localhost", "127.0.0.1", "::1"])

Handler = Callable[[Request], Awaitable[Response]]


def application(service: Service) -> ASGIApp:
    """The application for uvicorn."""
    front = _Front(service)
    model = "/v2/models/{model}"
    routes: list[tuple[str, str, Handler]] = [
        ("POST", f"{model}/infer", front.infer),
        ("POST", f"{model}/versions/{{version}}/infer", front.infer),
        ("GET", "/v2/health/live", front.live),
        ("GET", "/v2/health/ready", front.ready),
        ("GET", "/v2", front.server),
        ("GET", f"{model}/versions/{{version}}", front.model),
        ("GET", f"{model}/ready", front.model_ready),
        ("GET", f"{model}/versions/{{version}}/ready", front.model_ready),
        ("GET", "/v2/models/stats", front.statistics),
        ("GET", f"{model}/stats", front.statistics),
        ("GET", f"{model}/versions/{{version}}/stats", front.statistics),
        ("GET", model, front.model),
        ("POST", "/v2/repository/index", front.index),
        ("POST", "/v2/repository/models/{model}/load", front.load),
        ("POST", "/v2/repository/models/{model}/unload", front.unload),
        ("GET", "/metrics", front.metrics),
        ("GET", "/", front.status),
    ]
    known = [_Route(path, handler, methods=[method]) for method, path, handler in routes]
    return _Around(Router(known, redirect_slashes=False, default=_unknown), service)


class _Route(Route):
    """A path with one method."""

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] not in (self.methods or ()):
            raise RefusedError(_OTHER_METHOD, f"{scope['path']} takes {min(self.methods or ())}")
        await self.app(scope, receive, send)


async def _unknown(scope: Scope, receive: Receive, send: Send) -> None:
    raise RefusedError(NOT_FOUND, f"there is nothing at {scope['path']}")


class _Around:
    """Around every request: its id, the key, the page it comes from, and errors as JSON."""

    def __init__(self, inner: ASGIApp, service: Service) -> None:
        self._inner = inner
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = {k.decode("latin-1"): v.decode("latin-1") for k, v in scope["headers"]}
        number = request_id(headers)
        scope["clinfer"] = Caller("rest", headers, number)
        begun = False

        async def sending(message: Any) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                message["headers"] = [*message["headers"], (b"x-request-id", number.encode())]
            await send(message)

        try:
            self._require_own_page(headers)
            if scope["path"] not in _OPEN:
                self._service.require_key(headers)
            await self._inner(scope, receive, sending)
        except ClientDisconnect:
            return
        except asyncio.CancelledError:  # the time to drain is over
            if not begun:
                await _refusal(RefusedError(UNAVAILABLE, "the server ends"), UNAVAILABLE)(
                    scope, receive, sending
                )
        except Exception as error:
            kind = kind_of(error)
            if not begun:
                await _refusal(error, kind)(scope, receive, sending)
            if kind is INTERNAL and not scope["path"].endswith("/infer"):
                self._service.models.failed(scope["path"], error, request_id=number)
            elif kind is not INTERNAL:
                extra = {"request_id": number, "path": scope["path"], "error": words_of(error)}
                LOG.info("refused", extra={**extra, "code": kind.http})

    def _require_own_page(self, headers: Mapping[str, str]) -> None:
        """Refuses what pages of other sites send by a browser on this machine (docs/server.md)."""
        host, origin = headers.get("host", ""), headers.get("origin")
        try:
            name = urlsplit(f"//{host}").hostname if host else None
            page = None if origin is None else urlsplit(origin).netloc
        except ValueError:
            raise RefusedError(INVALID, "Host or Origin is no address") from None
        local = self._service.settings.is_local and not self._service.settings.api_key
        if local and name is not None and name not in _LOCAL_NAMES:
            raise RefusedError(FORBIDDEN, f"the host {host!r} is not this machine's own name")
        if page is not None and page != host:
            raise RefusedError(FORBIDDEN, "requests from pages of other sites are not served")


class _Front:
    """The handlers of the routes."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._models = service.models
        self._settings = service.settings

    async def infer(self, request: Request) -> Response:
        caller: Caller = request.scope["clinfer"]
        model, version = request.path_params["model"], request.path_params.get("version", "")
        self._models.find(model, version)  # before anything of the body is read
        body = await self._body(request)
        begin = perf_counter()
        asked = rest_tensors.read(model, version, body, caller.headers)
        work = asyncio.ensure_future(self._service.infer(asked.call, caller))
        try:
            await asyncio.wait({work}, timeout=_PATIENCE)
            if not work.done():
                await self._while_there(request, work)
            answer = work.result()
        finally:
            work.cancel()
        begin = perf_counter()
        content, headers = rest_tensors.write(asked, answer)
        answer.version.counts.observe("encode", perf_counter() - begin)
        return Response(content, headers=headers)

    async def _while_there(self, request: Request, work: asyncio.Future[Any]) -> None:
        """Waits for the work; raises `ClientDisconnect` where the client leaves before."""
        gone = asyncio.ensure_future(_gone(request))
        try:
            await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                raise ClientDisconnect
        finally:
            gone.cancel()

    async def _body(self, request: Request) -> bytes:
        """The body, within the limits of size and time."""
        most = self._settings.max_body
        if int(request.headers.get("content-length", 0)) > most:
            raise RefusedError(TOO_LARGE, f"the body has more than {most} bytes")
        try:
            body = await asyncio.wait_for(_read(request, most), self._settings.body_timeout)
        except asyncio.TimeoutError:
            raise RefusedError(SLOW, "the body did not arrive in time") from None
        encoding = request.headers.get("content-encoding", "").strip().lower()
        return rest_tensors.unpacked(body, encoding, most)

    async def live(self, request: Request) -> Response:
        return _json({"live": True})

    async def ready(self, request: Request) -> Response:
        ready = self._models.is_ready
        return _json({"ready": ready, "live": True}, 200 if ready else 503)

    async def server(self, request: Request) -> Response:
        return _json({"name": "clinfer", "version": __version__, "extensions": EXTENSIONS})

    async def model(self, request: Request) -> Response:
        return _json(self._models.metadata(**_named(request)))

    async def model_ready(self, request: Request) -> Response:
        try:
            self._models.find(**_named(request))
        except RefusedError as error:
            if error.kind is not UNAVAILABLE:
                raise
            return _json({"name": _named(request)["name"], "ready": False}, 503)
        return _json({"name": _named(request)["name"], "ready": True})

    async def statistics(self, request: Request) -> Response:
        named = request.path_params
        return _json(statistics(self._models.chosen(named.get("model"), named.get("version", ""))))

    async def index(self, request: Request) -> Response:
        asked = await self._parameters(request)
        return _json(self._models.index(asked.get("ready") is True))

    async def load(self, request: Request) -> Response:
        self._service.require_control((await self._parameters(request)).get("parameters") or {})
        await self._models.load(request.path_params["model"])
        return _json({})

    async def unload(self, request: Request) -> Response:
        self._service.require_control((await self._parameters(request)).get("parameters") or {})
        await self._models.unload(request.path_params["model"])
        return _json({})

    async def metrics(self, request: Request) -> Response:
        text = await asyncio.to_thread(self._service.metrics.text)
        return Response(text, headers={"content-type": CONTENT_TYPE})

    async def status(self, request: Request) -> Response:
        page = await status.page(self._models)
        return Response(page, headers=status.HEADERS)

    async def _parameters(self, request: Request) -> dict[str, Any]:
        body = await self._body(request)
        try:
            found = json.loads(body or b"{}")
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict) or not isinstance(found.get("parameters", {}), dict):
            raise RefusedError(INVALID, "the body is no JSON object")
        return found


def _named(request: Request) -> dict[str, str]:
    return {
        "name": request.path_params["model"],
        "version": request.path_params.get("version", ""),
    }


async def _read(request: Request, most: int) -> bytes:
    pieces, size = [], 0
    async for piece in request.stream():
        size += len(piece)
        if size > most:
            raise RefusedError(TOO_LARGE, f"the body has more than {most} bytes")
        pieces.append(piece)
    return b"".join(pieces)


async def _gone(request: Request) -> None:
    """Ends when the client has left."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _json(document: Any, code: int = 200) -> Response:
    return Response(json.dumps(document), code, {"content-type": "application/json"})


def _refusal(error: BaseException, kind: Kind) -> Response:
    response = _json({"error": words_of(error)}, kind.http)
    if kind in (SLOW, TOO_LARGE):  # what is left of the body is not waited for
        response.headers["connection"] = "close"
    if kind is UNAVAILABLE:
        response.headers["retry-after"] = "1"
    if kind is UNAUTHENTICATED:
        response.headers["www-authenticate"] = 'Basic realm="clinfer"'
    return response

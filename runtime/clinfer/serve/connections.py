"""Uvicorn's connections with limits that it has not.

They are of how long and how large the head of a request is, of a body that nobody reads any more,
and of a client that takes no answer. And a client that has sent all it has to say may close its
side, and still gets the answer.
"""

from __future__ import annotations

import asyncio
import json
from http import HTTPStatus
from socket import IPPROTO_TCP, TCP_NODELAY
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from clinfer.serve.settings import Settings

_LEAST_TAKEN = 4096
"""Bytes of an answer that a client takes in the time that a body may need."""
_ON_ITS_WAY = 0.25
"""Seconds that a connection without a request stays when the server ends."""
_REFUSALS = {
    400: "this is no whole request of HTTP",
    408: "the head of the request did not arrive in time",
    431: "the head of the request is too large",
    503: "there are as many connections as there may be",
}


def protocol(settings: Settings) -> type[HttpToolsProtocol]:
    """The class of connections with the limits of a configuration."""

    class Connection(HttpToolsProtocol):
        _piece = 0  # bytes that came last
        _head_bytes = 0
        _in_body = False
        _is_last = False  # no request after this one
        _deadline: asyncio.TimerHandle | None = None  # of a head, or of what is left of a body
        _untaken: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            # An answer is two writes; the second must not wait for the client's acknowledgement.
            transport.get_extra_info("socket").setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)
            self._await_head()

        def _await_head(self) -> None:
            if self._deadline is None:
                self._head_bytes = self._piece
                self._deadline = self.loop.call_later(settings.header_timeout, self._refuse, 408)

        def _stop_waiting(self) -> None:
            if self._deadline is not None:
                self._deadline.cancel()
                self._deadline = None

        def on_message_begin(self) -> None:
            super().on_message_begin()
            self._await_head()

        def on_header(self, name: bytes, value: bytes) -> None:
            if not self._in_body:  # what follows a body in pieces is of no use here
                super().on_header(name, value)

        def on_headers_complete(self) -> None:
            self._stop_waiting()
            self._in_body = True
            is_full = len(self.connections) > settings.max_connections
            self.app = _full if is_full else self.config.loaded_app
            super().on_headers_complete()
            if self._is_last and self.cycle is not None:
                self.cycle.keep_alive = False

        def on_message_complete(self) -> None:
            super().on_message_complete()
            self._in_body = False
            self._stop_waiting()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            if self._in_body and self._deadline is None:
                after = self.loop.call_later(settings.body_timeout, self.transport.abort)
                self._deadline = after

        def data_received(self, data: bytes) -> None:
            self._piece = len(data)
            if self._deadline is not None:
                self._head_bytes += self._piece
            super().data_received(data)
            waits_for_head = self._deadline is not None and not self._in_body
            if waits_for_head and self._head_bytes > settings.max_header:
                self._refuse(431)

        def pause_writing(self) -> None:
            super().pause_writing()
            self._await_taking()

        def _await_taking(self) -> None:
            left = self.transport.get_write_buffer_size()
            self._untaken = self.loop.call_later(settings.body_timeout, self._taken, left)

        def _taken(self, before: int) -> None:
            if before - self.transport.get_write_buffer_size() < _LEAST_TAKEN:
                self.transport.abort()
            else:
                self._await_taking()

        def resume_writing(self) -> None:
            self._stop_taking()
            super().resume_writing()

        def _stop_taking(self) -> None:
            if self._untaken is not None:
                self._untaken.cancel()
                self._untaken = None

        def _refuse(self, code: int) -> None:
            """Ends the connection; says why where a request has begun that nobody answers yet."""
            self._stop_waiting()
            if self.transport.is_closing():
                return
            if self._head_bytes and not self._answers():
                said = json.dumps({"error": _REFUSALS[code]})
                self.transport.write(
                    f"HTTP/1.1 {code} {HTTPStatus(code).phrase}\r\n"
                    "content-type: application/json\r\nconnection: close\r\n"
                    f"content-length: {len(said)}\r\n\r\n{said}".encode()
                )
            self.transport.close()

        def _answers(self) -> bool:
            return self.cycle is not None and not self.cycle.response_complete

        def send_400_response(self, msg: str) -> None:
            self._head_bytes = 1
            self._leave()
            self._refuse(400)

        def _leave(self) -> None:
            """Tells whoever reads a body that no more of it comes."""
            if self._answers() and not self.cycle.response_started:
                self.cycle.disconnected = True
                self.cycle.message_event.set()
                self.cycle = None  # type: ignore[assignment]
                self._head_bytes = 1

        def eof_received(self) -> bool:  # type: ignore[override]
            if self._answers() and not self.cycle.more_body:
                self.cycle.keep_alive = False
                return True
            self._leave()
            self._refuse(400)
            return False

        def shutdown(self) -> None:
            """A request that is on its way is still answered."""
            self._is_last = True
            if self._answers():
                super().shutdown()
            else:
                self.loop.call_later(_ON_ITS_WAY, self._end)

        def _end(self) -> None:
            if self._answers():
                return
            if self.transport.get_write_buffer_size():
                self.transport.close()
            else:  # TLS would wait for a word from a client that has nothing to say
                self.transport.abort()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_waiting()
            self._stop_taking()
            super().connection_lost(exc)

    return Connection


async def _full(scope: Scope, receive: Receive, send: Send) -> None:
    """The answer where too many are connected."""
    headers = {"connection": "close", "retry-after": "1", "content-type": "application/json"}
    response = Response(json.dumps({"error": _REFUSALS[503]}), 503, headers)
    await response(scope, receive, send)

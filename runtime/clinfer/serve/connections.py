"""Uvicorn's connections with two limits more: how long, and how large, the head of a request is.

And a client that has sent all it has to say may close its side, and still gets the answer.
"""

from __future__ import annotations

import asyncio
import json
from http import HTTPStatus
from socket import IPPROTO_TCP, TCP_NODELAY
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from clinfer.serve.settings import Settings

_REFUSALS = {
    400: "this is no whole request of HTTP",
    408: "the head of the request did not arrive in time",
    431: "the head of the request is too large",
}


def protocol(settings: Settings) -> type[HttpToolsProtocol]:
    """The class of connections with the limits of a configuration."""

    class Connection(HttpToolsProtocol):
        _piece = 0  # bytes that came last
        _head_bytes = 0
        _deadline: asyncio.TimerHandle | None = None

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

        def on_headers_complete(self) -> None:
            self._stop_waiting()
            super().on_headers_complete()

        def data_received(self, data: bytes) -> None:
            self._piece = len(data)
            if self._deadline is not None:
                self._head_bytes += self._piece
            super().data_received(data)
            if self._deadline is not None and self._head_bytes > settings.max_header:
                self._refuse(431)

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
            self._refuse(400)

        def eof_received(self) -> bool:  # type: ignore[override]
            if self._answers() and not self.cycle.more_body:
                self.cycle.keep_alive = False
                return True
            if self._answers() and not self.cycle.response_started:
                self.cycle.disconnected = True
                self.cycle.message_event.set()
                self.cycle = None  # type: ignore[assignment]
                self._head_bytes = 1
            self._refuse(400)
            return False

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_waiting()
            super().connection_lost(exc)

    return Connection

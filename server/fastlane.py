"""The fast lane: a pair of uvicorn protocol classes. The only file that touches uvicorn's internals.

``HttpProtocol`` takes the upgrade from the HTTP parser's own result instead of replaying it through a second parser;
``FastConnection`` speaks ASGI to any application and offers itself in ``scope["extensions"]["roomcast"]``. An endpoint
that finds it there may accept and then call :meth:`FastConnection.hand_off`: the ASGI callable returns, and the
connection lives on as callbacks, without a task and without a queue. Under any other ASGI server the same endpoint uses
plain ``receive`` and ``send`` (server/plainlane.py).

Pinned to uvicorn 0.54: ``HttpToolsProtocol`` is not a public API.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import unquote

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.server import ServerState

from server import closing, frames, handshake
from server.connection import CONGESTED_BYTES, INBOX
from server.heartbeat import Heartbeat
from server.wire import Wire

logger = logging.getLogger("server.fastlane")

EXTENSION = "roomcast"
HEAD_TIMEOUT_S = 5.0
"""From the connection, or the first byte of a further request, to the end of the request's head."""
LINGER_S = 2.0
"""How long a peer that was turned away may take to read why."""
MAX_HEAD_BYTES = 32 * 1024
MAX_HEADERS = 100
USER_TIMEOUT_MS = 15_000
"""After so long without an acknowledgement of what was sent the kernel gives the peer up (TCP_USER_TIMEOUT); left to
itself it takes a quarter of an hour."""

_Event = dict[str, Any]
_App = Callable[[Any, Any, Any], Awaitable[object]]


class FastLane:
    """Makes the connections of one node; give it to uvicorn as ``http=``."""

    def __init__(self, wheel: Heartbeat, max_message_bytes: int, outbound_bytes: int) -> None:
        self.wheel = wheel
        self.max_message_bytes = max_message_bytes
        self.outbound_bytes = outbound_bytes

    def __call__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> HttpProtocol:
        return HttpProtocol(self, config, server_state, app_state, _loop)


class HttpProtocol(HttpToolsProtocol):
    """uvicorn's HTTP/1.1 protocol with bounds on the request's head, and our own step over to WebSocket."""

    def __init__(
        self,
        lane: FastLane,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.lane = lane
        self._in_head = False
        self._head_bytes = 0
        self._timer: asyncio.TimerHandle | None = None
        self._turned_away = False
        self._key = b""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._head_due()
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT_MS)

    def connection_lost(self, exc: Exception | None) -> None:
        self._head_done()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        if self._turned_away:
            return
        if self.cycle is None or self.cycle.response_complete:
            self._head_due()
        began_earlier = self._in_head
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            if self._should_upgrade():
                self._step_over(data[upgrade.args[0] :])
            else:
                self._unsupported_upgrade_warning()
        except httptools.HttpParserError as error:
            refused = error.__context__
            self._turn_away(refused.response if isinstance(refused, handshake.Refused) else _INVALID)
        else:
            if began_earlier and self._in_head:
                self._head_bytes += len(data)
                if self._head_bytes > MAX_HEAD_BYTES:
                    self._turn_away(_TOO_LARGE)

    def on_message_begin(self) -> None:
        self._head_due()
        self._in_head = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._head_done()
        size = len(self.url) + sum([len(name) + len(value) for name, value in self.headers])
        if len(self.headers) > MAX_HEADERS or size > MAX_HEAD_BYTES:
            raise handshake.Refused(_TOO_LARGE)  # comes out of feed_data as the context of its error
        super().on_headers_complete()
        if self.parser.should_upgrade() and self._should_upgrade():
            self._key = handshake.check(self.scope["method"], self.scope["http_version"], self.headers)
            if self._busy():
                raise handshake.Refused(_INVALID)

    def _busy(self) -> bool:
        """An earlier request of this connection has not been answered in full."""
        return self.cycle is not None and not self.cycle.response_complete

    def _head_due(self) -> None:
        if self._timer is None:
            self._timer = self.loop.call_later(HEAD_TIMEOUT_S, self._head_overdue)

    def _head_done(self) -> None:
        self._in_head = False
        self._head_bytes = 0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _head_overdue(self) -> None:
        if self._in_head:
            self._turn_away(_OVERDUE)
        else:
            self.transport.close()  # it asked for nothing: browsers open connections in advance

    def _turn_away(self, response: bytes) -> None:
        """Say why, and discard what still comes, lest a reset overtakes the answer."""
        self._turned_away = True
        self._head_done()
        if self._busy():
            self.transport.abort()  # in the middle of another response there is no place for this one
            return
        self.transport.write(response)
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._timer = self.loop.call_later(LINGER_S, self.transport.abort)

    def _step_over(self, rest: bytes) -> None:
        """The request head asks for a WebSocket; ``rest`` is what came after it."""
        raw_path, _, query = self.url.partition(b"?")
        scope: dict[str, Any] = self.scope  # type: ignore[assignment]  # the parser's own dict becomes ours
        del scope["method"]
        scope["type"] = "websocket"
        scope["asgi"] = {"version": self.asgi_version, "spec_version": "2.4"}
        scope["scheme"] = "wss" if self.scheme == "https" else "ws"
        scope["path"] = self.root_path + unquote(raw_path.decode("ascii", "replace"))
        scope["raw_path"] = self.root_path.encode("ascii") + raw_path
        scope["query_string"] = query
        scope["subprotocols"] = [
            token.strip()
            for name, value in self.headers
            if name == b"sec-websocket-protocol"
            for token in value.decode("latin-1").split(",")
        ]
        connection = FastConnection(self.transport, self.lane, self.server_state, self._key)
        scope["extensions"] = {"websocket.http.response": {}, EXTENSION: {"connection": connection}}
        self.connections.discard(self)
        self.connections.add(connection)  # type: ignore[arg-type]  # uvicorn only calls shutdown() on it
        self.transport.set_protocol(connection)
        task = self.loop.create_task(connection.run(self.app, scope))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        self.parser = None  # type: ignore[assignment]  # it knows this object: gone now, not when cycles are collected
        if rest:
            connection.data_received(rest)


_INVALID = handshake.response(400, [], b"Invalid HTTP request received.\n")
_TOO_LARGE = handshake.response(431, [], b"The head of the request is too large.\n")
_OVERDUE = handshake.response(408, [], b"The head of the request took too long.\n")


class _Asgi:
    """What a connection needs only as long as an ASGI application is at its other end."""

    __slots__ = ("accepted", "closed", "denial", "inbox", "inbox_bytes", "key", "waiter", "writable")

    def __init__(self, key: bytes) -> None:
        self.key = key
        self.accepted = False
        self.closed = False
        """The application has said its last word."""
        self.denial: tuple[int, list[tuple[bytes, bytes]], list[bytes]] | None = None
        self.inbox: deque[_Event] = deque([{"type": "websocket.connect"}])
        self.inbox_bytes = 0
        self.waiter: asyncio.Future[None] | None = None
        self.writable: asyncio.Future[None] | None = None


class FastConnection(Wire):
    __slots__ = ("_asgi", "_server_state")

    def __init__(self, transport: asyncio.Transport, lane: FastLane, server_state: ServerState, key: bytes) -> None:
        super().__init__(transport, lane.wheel, lane.max_message_bytes, lane.outbound_bytes)
        self._server_state = server_state
        self._asgi: _Asgi | None = _Asgi(key)
        self.hold(INBOX)  # frames before the 101 wait

    # For endpoints.

    def owns(self, receive: object, send: object) -> bool:
        """Whether these are this connection's own, not wrapped by some middleware that wants to see every event."""
        return receive == self.receive_event and send == self.send_asgi

    def hand_off(self) -> None:
        """From here on messages go to ``listener`` and the ASGI callable may return. Call in the same turn of the loop
        as the accept: in the next one frames are read, for an application that may neither receive nor send."""
        asgi = self._asgi
        assert asgi is not None and asgi.accepted and self.listener is not None, "accept and attach first"
        assert not any(event["type"] == "websocket.receive" for event in asgi.inbox), "hand off at the accept"
        self._asgi = None
        self.release(INBOX)

    # From the wire.

    def message(self, data: bytes, text: bool) -> None:
        listener = self.listener
        if listener is not None:
            listener.received(self, data, text)
        else:
            self.to_application(data, text)

    def to_application(self, data: bytes, text: bool) -> None:
        """Put a message into the inbox of the ASGI application. Over 64 KiB of them, reading is held."""
        asgi = self._asgi
        if asgi is None:
            return
        event: _Event = {"type": "websocket.receive"}
        if text:
            try:
                event["text"] = data.decode()
            except UnicodeDecodeError as error:
                self.fail(closing.INVALID_DATA, f"invalid UTF-8 at byte {error.start}")
                return
        else:
            event["bytes"] = data
        asgi.inbox_bytes += len(data) + 256
        if asgi.inbox_bytes > CONGESTED_BYTES:
            self.hold(INBOX)
        _put(asgi, event)

    def resume_writing(self) -> None:
        self._wake_sender()
        super().resume_writing()

    def _wake_sender(self) -> None:
        asgi = self._asgi
        if asgi is not None and asgi.writable is not None and not asgi.writable.done():
            asgi.writable.set_result(None)

    def ended(self, code: int, reason: str) -> None:
        self._server_state.connections.discard(self)
        self._wake_sender()  # a lost transport never resumes writing
        if self._asgi is not None:
            _put(self._asgi, {"type": "websocket.disconnect", "code": code, "reason": reason})
        if self.listener is not None:
            self.listener.lost(self, code)

    def shutdown(self) -> None:
        """uvicorn is leaving."""
        if self._asgi is not None and not self._asgi.accepted:
            self._refuse(503, [], b"The server is shutting down.\n")
        else:
            self.close(closing.RESTART, "server restart")

    # ASGI.

    async def run(self, app: _App, scope: dict[str, Any]) -> None:
        try:
            await app(scope, self.receive_event, self.send_asgi)
        except ClientDisconnected:
            self._finish(closing.INTERNAL_ERROR, "")
        except Exception:
            logger.exception("the application failed on %s", scope["path"])
            self._finish(closing.INTERNAL_ERROR, "internal error")
        else:
            self._finish(closing.NORMAL, "")

    def _finish(self, code: int, reason: str) -> None:
        """The ASGI callable is done. Without a hand-off the connection ends with it."""
        asgi = self._asgi
        if asgi is None or self.transport.is_closing():
            return
        if asgi.accepted:
            self.close(code, reason)
        else:
            self._refuse(500, [], b"Internal Server Error")

    def _refuse(self, status: int, headers: handshake.Headers, body: bytes) -> None:
        if not self._closing:
            self.transport.write(handshake.response(status, headers, body))
            self._closing = 1006
            self.transport.close()

    async def receive_event(self) -> _Event:
        """After the end every call gives ``websocket.disconnect``."""
        asgi = self._asgi
        assert asgi is not None, "receive() after hand_off()"
        while not asgi.inbox:
            asgi.waiter = asyncio.get_running_loop().create_future()
            await asgi.waiter
        event = asgi.inbox[0]
        if event["type"] != "websocket.disconnect":
            asgi.inbox.popleft()
            if not asgi.inbox and asgi.accepted:
                asgi.inbox_bytes = 0
                self.release(INBOX)
        return event

    async def send_asgi(self, event: _Event) -> None:
        asgi = self._asgi
        assert asgi is not None, "send() after hand_off()"
        kind = event["type"]
        if asgi.closed:
            raise RuntimeError(f"{kind!r} after the connection was closed or refused")
        if self._closing or self.transport.is_closing():
            raise ClientDisconnected
        if not asgi.accepted:
            self._answer_handshake(asgi, kind, event)
        elif kind == "websocket.send":
            text, data = event.get("text"), event.get("bytes")
            if data is not None:
                self.transport.write(frames.binary_frame(data))
            elif text is not None:
                self.transport.write(frames.text_frame(text.encode()))
            await self._drained(asgi)
        elif kind == "websocket.close":
            asgi.closed = True
            code, reason = event.get("code", closing.NORMAL), event.get("reason") or ""
            self.close(code, reason)
            _put(asgi, {"type": "websocket.disconnect", "code": code, "reason": reason})
        else:
            raise RuntimeError(f"expected websocket.send or websocket.close, got {kind!r}")

    async def _drained(self, asgi: _Asgi) -> None:
        while self.transport.get_write_buffer_size() > CONGESTED_BYTES and not self.transport.is_closing():
            asgi.writable = asyncio.get_running_loop().create_future()
            await asgi.writable

    def _answer_handshake(self, asgi: _Asgi, kind: str, event: _Event) -> None:
        """What an application may say before it has accepted. ValueError for headers that cannot be sent."""
        if asgi.denial is not None:
            if kind != "websocket.http.response.body":
                raise RuntimeError(f"expected websocket.http.response.body, got {kind!r}")
            status, headers, body = asgi.denial
            body.append(event.get("body", b""))
            if not event.get("more_body"):
                asgi.closed = True
                self._refuse(status, headers, b"".join(body))
        elif kind == "websocket.accept":
            headers = [(name.lower(), value) for name, value in event.get("headers") or ()]
            self.transport.write(handshake.accept(asgi.key, event.get("subprotocol"), headers))
            asgi.accepted = True
            self.open()
            asyncio.get_running_loop().call_soon(self.release, INBOX)
        elif kind == "websocket.close":
            asgi.closed = True
            self._refuse(403, [], b"")
        elif kind == "websocket.http.response.start":
            asgi.denial = (event["status"], list(event.get("headers") or ()), [])
        else:
            raise RuntimeError(f"expected websocket.accept, websocket.close or a denial response, got {kind!r}")


def _put(asgi: _Asgi, event: _Event) -> None:
    if asgi.inbox and asgi.inbox[-1]["type"] == "websocket.disconnect":
        return  # the end comes once
    asgi.inbox.append(event)
    if asgi.waiter is not None and not asgi.waiter.done():
        asgi.waiter.set_result(None)

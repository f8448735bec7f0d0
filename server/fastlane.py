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
import base64
import binascii
import hashlib
import http
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import unquote

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.server import ServerState

from server import frames
from server.connection import CONGESTED_BYTES, INBOX
from server.heartbeat import Heartbeat
from server.wire import Wire

logger = logging.getLogger("server.fastlane")

EXTENSION = "roomcast"
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 §1.3
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
    """uvicorn's HTTP/1.1 protocol, with our own step over to WebSocket."""

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

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            if self._should_upgrade():
                self._step_over(data[upgrade.args[0] :])
            else:
                self._unsupported_upgrade_warning()
        except httptools.HttpParserError:
            self.send_400_response("Invalid HTTP request received.")

    def _step_over(self, rest: bytes) -> None:
        """The request head asks for a WebSocket; ``rest`` is what came after it."""
        key, refusal = _check_handshake(self.scope["method"], self.scope["http_version"], self.headers)
        if refusal is not None:
            self.transport.write(refusal)
            self.transport.close()
            return
        raw_path, _, query = self.url.partition(b"?")
        scope: dict[str, Any] = self.scope  # type: ignore[assignment]  # the parser's own dict becomes ours
        scope["type"] = "websocket"
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
        connection = FastConnection(self.transport, self.lane, self.server_state, key)
        scope["extensions"] = {"websocket.http.response": {}, EXTENSION: {"connection": connection}}
        self.connections.discard(self)
        self.connections.add(connection)  # type: ignore[arg-type]  # uvicorn only calls shutdown() on it
        self.transport.set_protocol(connection)
        task = self.loop.create_task(connection.run(self.app, scope))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        if rest:
            connection.data_received(rest)


def _check_handshake(method: str, version: str, headers: list[tuple[bytes, bytes]]) -> tuple[bytes, bytes | None]:
    """RFC 6455 §4.2.1. Returns the key, and the refusal to send if it is not a handshake we speak."""
    keys = [value for name, value in headers if name == b"sec-websocket-key"]
    versions = [value for name, value in headers if name == b"sec-websocket-version"]
    hosts = sum(1 for name, _ in headers if name == b"host")
    if versions != [b"13"]:
        return b"", _response(426, [(b"sec-websocket-version", b"13")], b"Use WebSocket version 13 (RFC 6455).")
    try:
        good_key = len(keys) == 1 and len(base64.b64decode(keys[0], validate=True)) == 16
    except binascii.Error:
        good_key = False
    if method != "GET" or version != "1.1" or hosts != 1 or not good_key:
        text = b"A WebSocket handshake is a GET over HTTP/1.1 with one Host and one 16-byte Sec-WebSocket-Key."
        return b"", _response(400, [], text)
    return keys[0], None


def _response(status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> bytes:
    lines = [f"HTTP/1.1 {status} {http.HTTPStatus(status).phrase}".encode()]
    names = {name.lower() for name, _ in headers}
    if b"content-type" not in names:
        headers = [*headers, (b"content-type", b"text/plain; charset=utf-8")]
    headers = [h for h in headers if h[0].lower() not in (b"content-length", b"connection")]
    headers += [(b"content-length", str(len(body)).encode()), (b"connection", b"close")]
    lines += [name + b": " + value for name, value in headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


class _Asgi:
    """What a connection needs only as long as an ASGI application is at its other end."""

    __slots__ = ("accepted", "denial", "inbox", "inbox_bytes", "key", "waiter", "writable")

    def __init__(self, key: bytes) -> None:
        self.key = key
        self.accepted = False
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
        """From here on messages go to ``listener`` and the ASGI callable may return. Call after the accept."""
        asgi = self._asgi
        assert asgi is not None and asgi.accepted and self.listener is not None, "accept and attach first"
        self._asgi = None
        early, listener = asgi.inbox, self.listener
        for event in early:
            if event["type"] == "websocket.receive":
                text = event.get("text")
                listener.received(self, text.encode() if text is not None else event["bytes"], text is not None)
        self.release(INBOX)

    # From the wire.

    def message(self, data: bytes, text: bool) -> None:
        asgi = self._asgi
        if asgi is None:
            self.listener.received(self, data, text)  # type: ignore[union-attr]  # hand_off asserted it
        elif self.listener is None:
            self.to_application(data, text)
        else:
            self.listener.received(self, data, text)

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
                self._fail(1007, frames.close_frame(1007, f"invalid UTF-8 at byte {error.start}"))
                return
        else:
            event["bytes"] = data
        asgi.inbox_bytes += len(data) + 64
        if asgi.inbox_bytes > CONGESTED_BYTES:
            self.hold(INBOX)
        self._put(event)

    def _put(self, event: _Event) -> None:
        asgi = self._asgi
        if asgi is not None:
            asgi.inbox.append(event)
            if asgi.waiter is not None and not asgi.waiter.done():
                asgi.waiter.set_result(None)

    def resume_writing(self) -> None:
        asgi = self._asgi
        if asgi is not None and asgi.writable is not None and not asgi.writable.done():
            asgi.writable.set_result(None)
        super().resume_writing()

    def ended(self, code: int) -> None:
        self._server_state.connections.discard(self)
        asgi = self._asgi
        if asgi is not None and asgi.writable is not None and not asgi.writable.done():
            asgi.writable.set_result(None)  # a lost transport never resumes writing
        self._put({"type": "websocket.disconnect", "code": code, "reason": ""})
        if self.listener is not None:
            self.listener.lost(self, code)

    def shutdown(self) -> None:
        """uvicorn is leaving."""
        self.close(1012, "server restart")

    # ASGI.

    async def run(self, app: _App, scope: dict[str, Any]) -> None:
        try:
            await app(scope, self.receive_event, self.send_asgi)
        except ClientDisconnected:
            pass
        except Exception:
            logger.exception("the application failed on %s", scope["path"])
            self._finish(1011, "internal error")
        else:
            self._finish(1000, "")

    def _finish(self, code: int, reason: str) -> None:
        """The ASGI callable is done. Without a hand-off the connection ends with it."""
        asgi = self._asgi
        if asgi is None or self.transport.is_closing():
            return
        if asgi.accepted:
            self.close(code, reason)
        elif not self.closed:
            self._refuse(500, [], b"Internal Server Error")

    def _refuse(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
        self._closing = 1006
        self.transport.write(_response(status, headers, body))
        self.transport.close()

    async def receive_event(self) -> _Event:
        asgi = self._asgi
        assert asgi is not None, "receive() after hand_off()"
        while not asgi.inbox:
            asgi.waiter = asyncio.get_running_loop().create_future()
            await asgi.waiter
        event = asgi.inbox.popleft()
        if not asgi.inbox and asgi.accepted:
            asgi.inbox_bytes = 0
            self.release(INBOX)
        return event

    async def send_asgi(self, event: _Event) -> None:
        asgi = self._asgi
        assert asgi is not None, "send() after hand_off()"
        kind = event["type"]
        if self.transport.is_closing() or (self._closing and kind != "websocket.close"):
            raise ClientDisconnected
        if not asgi.accepted:
            self._answer(asgi, kind, event)
            return
        if kind == "websocket.send":
            text, data = event.get("text"), event.get("bytes")
            if text is not None:
                self.transport.write(frames.text_frame(text.encode()))
            elif data is not None:
                self.transport.write(frames.binary_frame(data))
            await self._drained(asgi)
        elif kind == "websocket.close":
            self.close(event.get("code", 1000), event.get("reason") or "")
        else:
            raise RuntimeError(f"expected websocket.send or websocket.close, got {kind!r}")

    async def _drained(self, asgi: _Asgi) -> None:
        while self.transport.get_write_buffer_size() > CONGESTED_BYTES and not self.transport.is_closing():
            asgi.writable = asyncio.get_running_loop().create_future()
            await asgi.writable

    def _answer(self, asgi: _Asgi, kind: str, event: _Event) -> None:
        """What an application may say before it has accepted."""
        if kind == "websocket.accept":
            accept = base64.b64encode(hashlib.sha1(asgi.key + _GUID, usedforsecurity=False).digest())
            lines = [
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Accept: " + accept
            ]
            if event.get("subprotocol"):
                lines.append(b"Sec-WebSocket-Protocol: " + event["subprotocol"].encode("latin-1"))
            lines += [name + b": " + value for name, value in event.get("headers") or ()]
            self.transport.write(b"\r\n".join(lines) + b"\r\n\r\n")
            asgi.accepted = True
            self.open()
            if not asgi.inbox:
                self.release(INBOX)
        elif kind == "websocket.close":
            self._refuse(403, [], b"")
        elif kind == "websocket.http.response.start":
            asgi.denial = (event["status"], list(event.get("headers") or ()), [])
        elif kind == "websocket.http.response.body" and asgi.denial is not None:
            asgi.denial[2].append(event.get("body", b""))
            if not event.get("more_body"):
                self._refuse(asgi.denial[0], asgi.denial[1], b"".join(asgi.denial[2]))
        else:
            raise RuntimeError(f"expected websocket.accept, websocket.close or a denial response, got {kind!r}")

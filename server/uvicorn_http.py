"""The fast lane's way in: uvicorn's HTTP protocol with bounds of our own and our own step over to WebSocket.

The only file that touches uvicorn's internals. ``HttpProtocol`` takes the upgrade from the HTTP parser's own result
instead of replaying it through a second parser. Pinned to uvicorn 0.54: ``HttpToolsProtocol`` is not a public API.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterable
from typing import Any
from urllib.parse import unquote

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from server import handshake
from server.fastlane import EXTENSION, FastConnection
from server.heartbeat import Heartbeat

HEAD_TIMEOUT_S = 5.0
"""From the connection, or the first byte of a further request, to the end of the request's head."""
SECOND_LOOK_S = 1.0
"""Nobody is turned away by a timer that itself was late, but so much later: what a node did not get round to read
(it was frozen, or there is a storm) may be the whole head."""
BODY_LOOK_S = 15.0
"""A body that is being read brings ``MIN_BODY_BYTES`` in this time, or comes to its end."""
MIN_BODY_BYTES = 4096
MAX_PIPELINED = 8
"""Requests that wait for the answer to one before them. Each costs some 2 KiB as objects and 35 bytes to send."""
LINGER_S = 2.0
"""How long a peer that was turned away may take to read why."""
MAX_HEAD_BYTES = 32 * 1024
MAX_HEADERS = 100
USER_TIMEOUT_MS = 15_000
"""After so long without an acknowledgement of what was sent the kernel gives the peer up (TCP_USER_TIMEOUT); left to
itself it takes a quarter of an hour."""

UNSENT_BYTES = 256 * 1024
"""So much does the kernel take that it cannot send yet (TCP_NOTSENT_LOWAT). Left to itself it takes up to 4 MiB for a
peer that reads nothing (net.ipv4.tcp_wmem), and only then would we notice."""


def limit_connections(listening: Iterable[socket.socket]) -> None:
    """Set the kernel's limits on these sockets: connections inherit them (tcp(7)), which spares each of them two calls.
    Those that came already go without."""
    for sock in listening:
        if sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT_MS)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)


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
        self._in_body = False
        self._body_came = False
        self._head_bytes = 0
        self._timer: asyncio.TimerHandle | None = None
        self._due_s = 0.0
        self._turned_away = False
        self._websocket = False
        """What the present request asks for."""
        self._key = b""
        self._unanswered: list[RequestResponseCycle] = []
        self._body_timer: asyncio.TimerHandle | None = None
        self._body_bytes = 0
        self._body_due_s = 0.0
        self._body_held = False
        """Since the last look the application has let the body wait, not the peer."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """In place of uvicorn's own, which has the loop make a socket object for each address that it asks for."""
        self.connections.add(self)
        self.transport = transport
        self.flow = FlowControl(transport)
        self.server = _address(transport, "sockname")
        self.client = _address(transport, "peername")
        self.scheme = "https" if transport.get_extra_info("sslcontext") else "http"
        self._head_due()

    def connection_lost(self, exc: Exception | None) -> None:
        self._head_done()
        self._body_done()
        for cycle in self._unanswered:  # uvicorn tells the latest only, and the others write to what is closed
            cycle.disconnected = True
            cycle.message_event.set()
        self._unanswered.clear()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        if self._turned_away:
            return
        if self.cycle is None or self.cycle.response_complete:
            self._head_due()
        began_earlier = self._in_head or self._in_body
        self._body_came = False
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._step_over(data[upgrade.args[0] :])
        except httptools.HttpParserError as error:
            refused = error.__context__
            self._turn_away(refused.response if isinstance(refused, handshake.Refused) else _INVALID)
        else:
            if self._body_came:
                self._head_bytes = 0
            elif began_earlier and (self._in_head or self._in_body):
                self._head_bytes += len(data)  # of a head, or after a body: trailers and extensions of chunks
                if self._head_bytes > MAX_HEAD_BYTES:
                    self._turn_away(_TOO_LARGE)

    def on_message_begin(self) -> None:
        self._head_due()
        self._in_head = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._head_done()
        size = len(self.url) + sum([len(name) + len(value) for name, value in self.headers])
        if size > MAX_HEAD_BYTES:
            raise handshake.Refused(_TOO_LARGE)
        asks = self.parser.should_upgrade()
        version = self.parser.get_http_version()
        self._websocket = asks and super()._should_upgrade()
        if self._websocket:  # of this uvicorn need not know more
            self._key = handshake.check(self.parser.get_method(), version, self.headers)
            if self._busy():
                raise handshake.Refused(_INVALID)
            return
        handshake.check_plain(version, self.headers, asks)
        if len(self._unanswered) > MAX_PIPELINED:
            raise handshake.Refused(_INVALID)
        super().on_headers_complete()
        self._unanswered.append(self.cycle)
        self._in_body = True
        if self._body_timer is None:
            self._body_due()

    def _should_upgrade(self) -> bool:
        """uvicorn asks three times; once it is looked up in the headers."""
        return self._websocket

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._in_head:
            return  # a trailer, which nobody asked for: an application must not take it for a header
        if len(self.headers) == MAX_HEADERS:
            self.headers.clear()  # a chunk holds 40,000 of the shortest, which are 6 MiB as objects
            raise handshake.Refused(_TOO_LARGE)  # comes out of feed_data as the context of its error
        super().on_header(name, value)

    def on_body(self, body: bytes) -> None:
        self._body_came = True
        self._body_bytes += len(body)
        super().on_body(body)
        self._body_held |= self.flow.read_paused

    def on_message_complete(self) -> None:
        self._in_body = False
        self._body_done()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        if self._unanswered:
            del self._unanswered[0]
        super().on_response_complete()

    def _busy(self) -> bool:
        """An earlier request of this connection has not been answered in full."""
        return self.cycle is not None and not self.cycle.response_complete

    def _head_due(self) -> None:
        if self._timer is None:
            self._timer = self.loop.call_later(HEAD_TIMEOUT_S, self._head_overdue)
            self._due_s = self.loop.time() + HEAD_TIMEOUT_S

    def _head_done(self) -> None:
        self._in_head = False
        self._head_bytes = 0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _head_overdue(self) -> None:
        now_s = self.loop.time()
        if now_s - self._due_s > SECOND_LOOK_S / 10:
            self._due_s = now_s + SECOND_LOOK_S
            self._timer = self.loop.call_later(SECOND_LOOK_S, self._head_overdue)
        elif self._in_head:
            self._turn_away(_OVERDUE)
        else:
            self.transport.close()  # it asked for nothing: browsers open connections in advance

    def _body_due(self) -> None:
        self._body_bytes = 0
        self._body_held = self.flow.read_paused
        self._body_due_s = self.loop.time() + BODY_LOOK_S
        self._body_timer = self.loop.call_later(BODY_LOOK_S, self._look_at_body)

    def _body_done(self) -> None:
        if self._body_timer is not None:
            self._body_timer.cancel()
            self._body_timer = None

    def _look_at_body(self) -> None:
        late = self.loop.time() - self._body_due_s > SECOND_LOOK_S / 10
        waits = self._body_held or self.cycle.waiting_for_100_continue
        if late or waits or self._body_bytes >= MIN_BODY_BYTES:
            self._body_due()
        else:
            self._turn_away(_OVERDUE)

    def _turn_away(self, response: bytes) -> None:
        """Say why, and discard what still comes, lest a reset overtakes the answer."""
        self._turned_away = True
        self._head_done()
        self._body_done()
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
        lane = self.lane
        siblings = self.server_state.connections
        connection = FastConnection(
            self.transport, lane.wheel, lane.max_message_bytes, lane.outbound_bytes, self._key, siblings
        )
        scope["extensions"] = {"websocket.http.response": {}, EXTENSION: {"connection": connection}}
        self.connections.discard(self)
        self.transport.set_protocol(connection)
        task = self.loop.create_task(connection.run(self.app, scope))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        self.parser = None  # type: ignore[assignment]  # it knows this object: gone now, not when cycles are collected
        if rest:
            connection.data_received(rest)


def _address(transport: asyncio.Transport, name: str) -> tuple[str, int] | None:
    """``sockname`` or ``peername`` as ASGI has it."""
    try:
        found = transport.get_extra_info(name)
    except OSError:
        return None  # the peer has gone already
    return found[:2] if isinstance(found, tuple) else None


_INVALID = handshake.response(400, [], b"Invalid HTTP request received.\n")
_TOO_LARGE = handshake.response(431, [], b"The head of the request is too large.\n")
_OVERDUE = handshake.response(408, [], b"The head of the request took too long.\n")

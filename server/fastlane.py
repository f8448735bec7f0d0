"""The fast lane: a WebSocket that speaks ASGI to any application and can leave it behind.

It offers itself in ``scope["extensions"]["roomcast"]``. An endpoint that finds it there may accept and then call
:meth:`FastConnection.hand_off`: the ASGI callable returns, and the connection lives on as callbacks, without a task and
without a queue. Under any other ASGI server the same endpoint uses plain ``receive`` and ``send``
(server/plainlane.py). server/uvicorn_http.py makes these connections.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

from server import closing, frames, handshake
from server.connection import CONGESTED_BYTES, INBOX
from server.heartbeat import Heartbeat
from server.limits import Rates
from server.pacing import read_on_later
from server.wire import Wire

logger = logging.getLogger("server.fastlane")

EXTENSION = "roomcast"

_Event = dict[str, Any]
App = Callable[[Any, Any, Any], Awaitable[object]]


class _Asgi:
    """What a connection needs only as long as an ASGI application is at its other end."""

    __slots__ = ("accepted", "closed", "denial", "inbox", "inbox_bytes", "key", "rates", "waiter", "writable")

    def __init__(self, key: bytes) -> None:
        self.key = key
        self.rates: Rates | None = None
        """At which messages are let in, as long as the hub does not know the connection."""
        self.accepted = False
        self.closed = False
        """The application has said its last word."""
        self.denial: tuple[int, list[tuple[bytes, bytes]], list[bytes]] | None = None
        self.inbox: deque[_Event] = deque([{"type": "websocket.connect"}])
        self.inbox_bytes = 0
        self.waiter: asyncio.Future[None] | None = None
        self.writable: asyncio.Future[None] | None = None


class Disconnected(OSError):
    """What an application gets for sending to a peer that is gone, as ASGI wants it."""


class FastConnection(Wire):
    """``siblings`` are all that the server has open: this one is in there from its making to its end."""

    __slots__ = ("_asgi", "_siblings")

    def __init__(
        self,
        transport: asyncio.Transport,
        wheel: Heartbeat,
        max_message_bytes: int,
        outbound_bytes: int,
        key: bytes,
        siblings: set[Any],
    ) -> None:
        super().__init__(transport, wheel, max_message_bytes, outbound_bytes)
        self._siblings = siblings
        siblings.add(self)
        self._asgi: _Asgi | None = _Asgi(key)
        self.hold(INBOX)  # frames before the 101 wait

    # For endpoints.

    def owns(self, receive: object, send: object) -> bool:
        """Whether these are this connection's own, not wrapped by some middleware that wants to see every event."""
        return receive == self.receive_event and send == self.send_asgi

    def limit(self, rates: Rates) -> None:
        """Let messages in at these rates, if it is not handed to the hub, which has limits of its own."""
        if self._asgi is not None:
            self._asgi.rates = rates

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
            if self._asgi is not None and self._asgi.rates is not None:
                read_on_later(self, len(data), self._asgi.rates)

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
        self._siblings.discard(self)
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

    async def run(self, app: App, scope: dict[str, Any]) -> None:
        try:
            await app(scope, self.receive_event, self.send_asgi)
        except Disconnected:
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
            raise Disconnected
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

"""The plain lane with an application at its end: PlainConnection, and ``receive`` and ``send`` for a handler."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

from server import closing
from server.connection import CONGESTED_BYTES, INBOX
from server.plainlane import PlainConnection, Receive, Send


class PlainHandlerConnection(PlainConnection):
    __slots__ = ("_inbox", "_inbox_bytes", "_send", "_waiter")

    def __init__(self, outbound_limit: int, send: Send) -> None:
        super().__init__(outbound_limit)
        self._send = send
        self._inbox: deque[dict[str, Any]] = deque()
        self._inbox_bytes = 0
        self._waiter: asyncio.Future[None] | None = None

    async def run(self, receive: Receive, send: Send) -> None:
        try:
            await super().run(receive, send)
        finally:
            self._tell({"type": "websocket.disconnect", "code": self._closing, "reason": ""})

    def to_application(self, data: bytes, text: bool) -> None:
        try:
            event: dict[str, Any] = {"type": "websocket.receive"}
            event |= {"text": data.decode()} if text else {"bytes": data}
        except UnicodeDecodeError as error:
            self.close(closing.INVALID_DATA, f"invalid UTF-8 at byte {error.start}")
            return
        self._inbox_bytes += len(data) + 256
        if self._inbox_bytes > CONGESTED_BYTES:
            self.hold(INBOX)
        self._tell(event)

    def _tell(self, event: dict[str, Any]) -> None:
        self._inbox.append(event)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def receive_event(self) -> dict[str, Any]:
        """After the end every call gives ``websocket.disconnect``."""
        while not self._inbox:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        if self._inbox[0]["type"] == "websocket.disconnect":
            return self._inbox[0]
        event = self._inbox.popleft()
        if not self._inbox:
            self._inbox_bytes = 0
            self.release(INBOX)
        return event

    async def send_asgi(self, event: dict[str, Any]) -> None:
        """Raises OSError after the end, as ASGI servers do."""
        if self.closed:
            raise ConnectionError("the peer has left, or a close was sent")
        if event["type"] == "websocket.close":
            self.close(event.get("code", closing.NORMAL), event.get("reason") or "")
        else:
            await self._send(event)

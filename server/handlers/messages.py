"""Messages of a handler's connection: text, JSON or bytes, by name or by the type that was agreed on.

Starlette's ``send`` and ``receive`` carry ASGI events; here they carry messages, and the events have methods of their
own, so that nothing a client says can turn into an event.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any, Literal, cast

from starlette.types import Message, Receive, Scope, Send
from starlette.websockets import WebSocket as StarletteWebSocket
from starlette.websockets import WebSocketState

from server import closing
from server.handlers.threads import from_threads_too

MessageType = Literal["text", "json", "bytes"]


class BadMessage(ValueError):
    """The client sent what the handler cannot read. Where nobody catches it, the connection closes with 1003."""


class MessageSocket(StarletteWebSocket):
    def __init__(
        self, scope: Scope, receive: Receive, send: Send, *, receive_type: MessageType, send_type: MessageType
    ) -> None:
        super().__init__(scope, receive, send)
        self.loop = asyncio.get_running_loop()
        self.receive_type = receive_type
        self.send_type = send_type
        self.close_code: int | None = None
        """With what it ended, whoever closed it."""

    async def receive_event(self) -> Message:
        """One raw ASGI event."""
        event = await super().receive()
        if event["type"] == "websocket.disconnect":
            self.close_code = self.close_code or event.get("code") or 1005
        return event

    async def send_event(self, event: Message) -> None:
        """One raw ASGI event. Raises WebSocketDisconnect if the client has left."""
        if event["type"] == "websocket.close":
            self.close_code = self.close_code or event.get("code", closing.NORMAL)
        await super().send(event)

    @from_threads_too
    async def receive(self) -> Any:
        """The next message, of the kind ``receive_type`` says. Raises WebSocketDisconnect when the client has left."""
        if self.receive_type == "json":
            return await self.receive_json()
        return await (self.receive_bytes() if self.receive_type == "bytes" else self.receive_text())

    @from_threads_too
    async def send(self, message: Any) -> None:
        """One message, of the kind ``send_type`` says."""
        if self.send_type == "json":
            await self.send_json(message)
        elif self.send_type == "bytes":
            await self.send_bytes(message)
        else:
            await self.send_text(message)

    @from_threads_too
    async def receive_text(self) -> str:
        """Raises :class:`BadMessage` for a binary frame that is not UTF-8."""
        data = await self._received()
        if isinstance(data, str):
            return data
        try:
            return data.decode()
        except UnicodeDecodeError:
            raise BadMessage("text is expected here") from None

    @from_threads_too
    async def receive_bytes(self) -> bytes:
        data = await self._received()
        return data.encode() if isinstance(data, str) else data

    @from_threads_too
    async def receive_json(self, mode: str = "text") -> Any:
        """From a text or binary frame, whatever the ``mode``. Raises :class:`BadMessage`."""
        data = await self._received()
        try:
            return json.loads(data)
        except (ValueError, RecursionError):
            raise BadMessage("JSON is expected here") from None

    async def _received(self) -> str | bytes:
        if self.application_state is not WebSocketState.CONNECTED:
            raise RuntimeError("not connected: accept first, and receive nothing after a close")
        event = await self.receive_event()
        self._raise_on_disconnect(event)
        text: str | None = event.get("text")
        return text if text is not None else cast(bytes, event["bytes"])

    async def __aiter__(self) -> AsyncIterator[Any]:
        """``while True: yield await receive()``: it ends as :meth:`receive` does, with WebSocketDisconnect."""
        while True:
            yield await self.receive()

    @from_threads_too
    async def send_text(self, data: str) -> None:
        await self.send_event({"type": "websocket.send", "text": data})

    @from_threads_too
    async def send_bytes(self, data: bytes) -> None:
        await self.send_event({"type": "websocket.send", "bytes": data})

    @from_threads_too
    async def send_json(self, data: Any, mode: str = "text") -> None:
        text = json.dumps(data, separators=(",", ":"), ensure_ascii=False)
        await (self.send_text(text) if mode == "text" else self.send_bytes(text.encode()))

    @from_threads_too
    async def write_message(self, message: str | bytes | Mapping[str, Any]) -> None:
        """Text or bytes as they are, a mapping as JSON."""
        if isinstance(message, str):
            await self.send_text(message)
        else:
            await (self.send_bytes(message) if isinstance(message, bytes) else self.send_json(message))

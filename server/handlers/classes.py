"""Handler classes: one object per endpoint, whose methods are the steps of a connection's life.

Instances are ASGI applications, so they stand in Starlette's own routes: ``WebSocketRoute("/ws/chat", ChatHandler())``.
One instance serves all connections of its route: what belongs to one connection lives in ``websocket.state``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, ClassVar

from starlette.types import Receive, Scope, Send

from server import closing
from server.handlers.connection import WebSocket, current
from server.handlers.lifecycle import Options, converse, serve
from server.handlers.messages import BadMessage
from server.handlers.threads import call, positional_count


class WebSocketHandler:
    """Accepts, then calls ``on_connect``, ``on_receive`` per message (text) and ``on_disconnect`` once at the end. To
    reject, close inside ``on_connect``."""

    receive_timeout: ClassVar[float | None] = 300
    """Seconds without a message after which the connection is closed with 1000; None waits for ever."""
    auth: ClassVar[bool | None] = None
    """True: without a user the connection is closed with 4001 before ``on_connect``."""
    origins: ClassVar[Sequence[str] | None] = None
    """Pages that may connect, in place of the node's ROOMCAST_ORIGINS."""

    async def on_connect(self, websocket: WebSocket) -> None:
        """After the accept."""

    async def on_receive(self, websocket: WebSocket, data: Any) -> None:
        """One message."""

    async def on_disconnect(self, websocket: WebSocket, close_code: int) -> None:
        """The end, whoever brought it about; called exactly once, also after an error."""

    @property
    def options(self) -> Options:
        return Options(auth=self.auth, origins=self.origins)

    async def session(self, websocket: WebSocket) -> None:
        await websocket.accept()
        await converse(
            websocket,
            lambda ws: call(self.on_connect, ws),
            self.received,
            lambda ws, code: call(self.on_disconnect, ws, code),
            receive_timeout_s=self.receive_timeout,
        )

    async def received(self, websocket: WebSocket, message: Any) -> None:
        await call(self.on_receive, websocket, message)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await serve(scope, receive, send, self.session, self.options)


class JsonWebSocketHandler(WebSocketHandler):
    """The same with JSON objects: override ``on_receive_json``, or ``on_receive``, which gets a dict here, too. What is
    no JSON object closes the connection with 1003."""

    async def on_receive_json(self, websocket: WebSocket, data: dict[str, Any]) -> None:
        """One message, parsed."""

    async def on_receive(self, websocket: WebSocket, data: Any) -> None:
        await call(self.on_receive_json, websocket, data)

    async def received(self, websocket: WebSocket, message: Any) -> None:
        try:
            data = json.loads(message)
        except (ValueError, RecursionError):
            raise BadMessage("JSON is expected here") from None
        if not isinstance(data, dict):
            raise BadMessage("a JSON object is expected here")
        await call(self.on_receive, websocket, data)


class WebSocketEndpoint:
    """A controller that accepts by itself: ``on_connect(websocket)``, then ``on_receive``. An ``on_receive`` that takes
    the connection alone runs once and reads its messages itself; one that takes ``data`` as well is called for each.

    ``self.send_text`` and its like speak to the connection whose method runs.
    """

    path: ClassVar[str | None] = None
    """Where ``add_ws_route(Controller())`` puts it."""

    async def on_connect(self, websocket: WebSocket) -> None:
        await websocket.accept()

    async def on_receive(self, websocket: WebSocket) -> None:
        """All of the conversation, or with a second parameter one message."""

    async def on_disconnect(self, websocket: WebSocket, close_code: int) -> None:
        """The end, whoever brought it about."""

    async def send_text(self, data: str) -> None:
        await current.get().send_text(data)

    async def send_json(self, data: Any) -> None:
        await current.get().send_json(data)

    async def send_bytes(self, data: bytes) -> None:
        await current.get().send_bytes(data)

    async def close(self, code: int = closing.NORMAL, reason: str | None = None) -> None:
        await current.get().close(code, reason)

    async def session(self, websocket: WebSocket) -> None:
        await controller_session(self)(websocket)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await serve(scope, receive, send, self.session, Options())


def controller_session(controller: Any) -> Any:
    """The session of any object with such methods, whether or not it is a :class:`WebSocketEndpoint`."""

    async def session(websocket: WebSocket) -> None:
        async def connect(websocket: WebSocket) -> None:
            await call(controller.on_connect, websocket)
            if websocket.is_open and positional_count(controller.on_receive) == 1:
                await call(controller.on_receive, websocket)
                await websocket.ensure_closed()

        async def receive(websocket: WebSocket, message: Any) -> None:
            await call(controller.on_receive, websocket, message)

        async def disconnect(websocket: WebSocket, code: int) -> None:
            if hasattr(controller, "on_disconnect"):
                await call(controller.on_disconnect, websocket, code)

        await converse(websocket, connect, receive, disconnect)

    return session

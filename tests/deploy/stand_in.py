"""Something in the place of a node, which shows what nginx sends it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.http11 import Request, Response

from tests.support.node import lasting_port


class StandIn:
    """A node that shows what nginx sends it: HTTP bodies and first WebSocket messages are the request's headers."""

    def __init__(self) -> None:
        self.port = lasting_port()
        self.requests: list[str] = []
        self.status = 200

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[Server]:
        async with serve(self._websocket, "127.0.0.1", self.port, process_request=self._http) as server:
            yield server

    def _http(self, connection: ServerConnection, request: Request) -> Response | None:
        self.requests.append(request.path)
        if request.headers.get("Upgrade") == "websocket":
            return None
        return connection.respond(self.status, _headers(request))

    async def _websocket(self, connection: ServerConnection) -> None:
        assert connection.request is not None
        await connection.send(_headers(connection.request))
        async for message in connection:
            await connection.send(message)


def _headers(request: Request) -> str:
    return json.dumps([[name.lower(), value] for name, value in request.headers.raw_items()])

"""The plain loop that tutorials show: a set of connections, one task that hears Redis and awaits each send."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from loadtests.peers.offered import offered

connections: set[WebSocket] = set()


async def member(websocket: WebSocket) -> None:
    await websocket.accept()
    connections.add(websocket)
    try:
        await websocket.send_text("joined")
        async for _ in websocket.iter_text():
            pass
    finally:
        connections.discard(websocket)


async def fan_out() -> None:
    async for text in offered():
        for websocket in list(connections):
            try:
                await websocket.send_text(text)
            except (RuntimeError, WebSocketDisconnect):
                connections.discard(websocket)


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    task = asyncio.create_task(fan_out())
    yield
    task.cancel()


app = Starlette(routes=[WebSocketRoute("/ws", member)], lifespan=lifespan)

"""Starlette with broadcaster: each connection has a subscriber, a queue of its own, that it sends from."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from broadcaster import Broadcast
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from loadtests.peers.offered import REDIS_URL, ROOM

broadcast = Broadcast(REDIS_URL)


async def member(websocket: WebSocket) -> None:
    await websocket.accept()
    async with broadcast.subscribe(channel=ROOM) as subscriber:
        try:
            await websocket.send_text("joined")
            async for event in subscriber:
                await websocket.send_text(event.message)
        except (RuntimeError, WebSocketDisconnect):
            pass  # the client has gone


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    async with broadcast:
        yield


app = Starlette(routes=[WebSocketRoute("/ws", member)], lifespan=lifespan)

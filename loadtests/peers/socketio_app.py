"""python-socketio on ASGI with its Redis manager."""

from __future__ import annotations

import socketio

from loadtests.peers.offered import REDIS_URL

server = socketio.AsyncServer(
    async_mode="asgi", client_manager=socketio.AsyncRedisManager(REDIS_URL), transports=["websocket"]
)
app = socketio.ASGIApp(server)


async def join(session: str, room: str) -> str:
    await server.enter_room(session, room)
    return room


server.on("join", join)

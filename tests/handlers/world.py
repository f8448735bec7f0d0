"""Hubs that run in this process under a real uvicorn, and clients through the ``websockets`` library."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlencode

import itsdangerous
import uvicorn
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from roomcast import Hub, Settings
from server.app import Node
from server.serve import uvicorn_config
from tests.support.served import IN_TIME_S, Served, serving

LANES = ("fast", "plain")
SECRET = "a secret of at least thirty-two characters"


class Client:
    def __init__(self, ws: ClientConnection) -> None:
        self.ws = ws

    async def say(self, message: Any) -> None:
        await self.ws.send(message if isinstance(message, (str, bytes)) else json.dumps(message))

    async def hear(self) -> Any:
        """The next frame as it is. ConnectionClosed when there is none."""
        async with asyncio.timeout(IN_TIME_S):
            return await self.ws.recv()

    async def frame(self) -> Any:
        """The next frame as JSON."""
        return json.loads(await self.hear())

    async def ask(self, op: str, **fields: Any) -> dict[str, Any]:
        """The reply to a request; what comes before it is dropped."""
        await self.say({"op": op, "id": 7, **fields})
        while True:
            frame: dict[str, Any] = await self.frame()
            if frame.get("id") == 7:
                return frame

    async def closed(self) -> tuple[int, str]:
        """Code and reason of the close, after whatever is still said."""
        async with asyncio.timeout(IN_TIME_S):
            try:
                while True:
                    await self.ws.recv()
            except ConnectionClosed as error:
                assert error.rcvd is not None, "the connection broke off without a close"
                return error.rcvd.code, error.rcvd.reason


@asynccontextmanager
async def connected(url: str, **options: Any) -> AsyncIterator[Client]:
    async with connect(url, compression=None, ping_interval=None, proxy=None, **options) as ws:
        yield Client(ws)


def session_cookie(session: dict[str, Any], secret: str = SECRET) -> dict[str, str]:
    """The header of a browser that Starlette's SessionMiddleware has given this session."""
    signed = itsdangerous.TimestampSigner(secret).sign(base64.b64encode(json.dumps(session).encode()))
    return {"cookie": f"session={signed.decode()}"}


class Running:
    def __init__(self, node: Node, served: Served, under: str = "") -> None:
        self.node = node
        self.served = served
        self.port = served.port
        self.url = served.url + under

    @asynccontextmanager
    async def client(self, path: str, headers: dict[str, str] | None = None, **query: Any) -> AsyncIterator[Client]:
        """Options for the handshake: ``headers``, ``origin=``, ``subprotocols=``; the rest is the query."""
        options = {name: query.pop(name) for name in ("origin", "subprotocols") if name in query}
        url = self.url + path + ("?" + urlencode(query) if query else "")
        async with connected(url, additional_headers=headers, **options) as client:
            yield client

    @asynccontextmanager
    async def member(self, user: int | str, *rooms: str) -> AsyncIterator[Client]:
        """A client on /ws, welcomed and in these rooms (dev mode)."""
        async with self.client("/ws", user=user) as client:
            assert (await client.frame())["op"] == "welcome"
            for room in rooms:
                assert (await client.ask("join", room=room))["ok"]
            yield client


@asynccontextmanager
async def running(
    hub: Hub, *, lane: str = "fast", app: Any = None, under: str = "", **settings: Any
) -> AsyncIterator[Running]:
    """The hub's node, in dev mode unless the settings say who may come. ``app``: another application around it. Nodes
    with the same ``broker="memory://name"`` are a cluster."""
    given = {"dev": "secret" not in settings, "presence_broadcast": "none", "linger_s": 0.05, **settings}
    node = hub.node(Settings(**given))
    config: uvicorn.Config = uvicorn_config(node, fast=lane == "fast")
    if app is not None:
        config.app = app
    async with serving(config) as served:
        yield Running(node, served, under)

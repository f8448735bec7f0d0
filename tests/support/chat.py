"""Nodes in this process under a real uvicorn, and clients that talk to them through the ``websockets`` library."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgpack
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from broker.memory import MemoryBroker
from broker.memory_bus import MemoryBus
from server.app import Node, create_app
from server.auth import Authenticate
from server.serve import uvicorn_config
from server.settings import Settings
from tests.support.served import IN_TIME_S, Served, raw_client, serving

Frame = dict[str, Any]

UNLIMITED: dict[str, Any] = {
    "requests_per_s": 1e9,
    "requests_burst": 10**9,
    "inbound_bytes_per_s": 2**40,
    "inbound_bytes_burst": 2**40,
}

_ids = itertools.count(1)


class Chatter:
    """One connection. ``ask`` returns the reply to a request; all else that comes is kept, in order, for ``event``."""

    def __init__(self, ws: ClientConnection) -> None:
        self.ws = ws
        self.kept: deque[Frame] = deque()
        self.packed = ws.subprotocol == "roomcast.msgpack.v1"

    async def frame(self) -> Frame:
        """The next frame of any kind. ``ConnectionClosed`` when there is none."""
        async with asyncio.timeout(IN_TIME_S):
            data = await self.ws.recv()
        assert isinstance(data, bytes if self.packed else str)
        frame: Frame = msgpack.unpackb(data) if isinstance(data, bytes) else json.loads(data)
        return frame

    async def event(self) -> Frame:
        """The next frame that ``ask`` did not take."""
        return self.kept.popleft() if self.kept else await self.frame()

    async def events(self, count: int) -> list[Frame]:
        return [await self.event() for _ in range(count)]

    async def send(self, op: str, **fields: Any) -> None:
        request = {"op": op, **fields}
        await self.ws.send(msgpack.packb(request) if self.packed else json.dumps(request))

    async def ask(self, op: str, **fields: Any) -> Frame:
        """Send a request with an id and return what answers it, without the id."""
        id = next(_ids)
        await self.send(op, id=id, **fields)
        while (frame := await self.frame()).get("id") != id:
            self.kept.append(frame)
        del frame["id"]
        return frame

    async def ok(self, op: str, **fields: Any) -> Frame:
        """``ask`` for what must succeed; the reply without ``op`` and ``ok``."""
        reply = await self.ask(op, **fields)
        assert reply.pop("op") == "reply" and reply.pop("ok") is True, reply
        return reply

    async def refused(self, op: str, **fields: Any) -> str:
        """``ask`` for what must fail; the error code."""
        reply = await self.ask(op, **fields)
        assert reply["op"] == "reply" and reply["ok"] is False and reply["message"], reply
        assert reply.keys() == {"op", "ok", "code", "message"}
        code: str = reply["code"]
        return code

    async def quiet(self) -> None:
        """Nothing was kept, and nothing comes before the answer to a ping sent now."""
        assert await self.ask("ping") == {"op": "pong"}
        assert not self.kept, self.kept

    async def closed(self) -> int:
        """Read on until the server closes; its code. What came is kept."""
        try:
            while True:
                self.kept.append(await self.frame())
        except ConnectionClosed:
            assert self.ws.close_code is not None
            return self.ws.close_code


class NodeHere:
    def __init__(self, node: Node, served: Served) -> None:
        self.node = node
        self.hub = node.hub
        self.served = served

    @asynccontextmanager
    async def connected(self, query: str = "user=alice", **options: Any) -> AsyncIterator[Chatter]:
        """A client on ``/ws``; its welcome is still to be read."""
        url = f"{self.served.url}/ws?{query}"
        async with connect(url, compression=None, ping_interval=None, proxy=None, **options) as ws:
            yield Chatter(ws)

    @asynccontextmanager
    async def client(self, user: str = "alice", *rooms: str, query: str = "", **options: Any) -> AsyncIterator[Chatter]:
        """A welcomed client, in these rooms."""
        async with self.connected(f"user={user}{query}", **options) as chatter:
            assert (await chatter.frame())["op"] == "welcome"
            for room in rooms:
                await chatter.ok("join", room=room)
            yield chatter

    async def get(self, path: str) -> tuple[int, bytes]:
        """One HTTP GET: status and body."""
        request = f"GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode()
        async with raw_client(self.served.port, request) as client:
            status, _ = await client.head()
            return status, await client.rest()


@asynccontextmanager
async def node_here(
    lane: str,
    *,
    broker: Any = None,
    wrap: Callable[[Node], Any] | None = None,
    authenticate: Authenticate | None = None,
    **settings: Any,
) -> AsyncIterator[NodeHere]:
    """A node on the lane ``fast`` or ``plain``, in dev mode unless settings say who may come; presence events are off
    and rates unlimited unless asked for. ``wrap`` puts middleware around the application."""
    given = {"dev": "secret" not in settings, "presence_broadcast": "none", "linger_s": 0.05, **UNLIMITED, **settings}
    broker = broker or MemoryBroker(node_id="here", bus=MemoryBus())
    node = create_app(Settings(**given), broker, authenticate)
    config = uvicorn_config(node, fast=lane == "fast")
    if wrap is not None:
        config.app = wrap(node)
    async with serving(config) as served:
        yield NodeHere(node, served)

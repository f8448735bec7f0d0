"""A node that is none: hears the room in Redis, sends it to its clients, and (if told to) loses or doubles a message.

python standin_node.py PORT REDIS_PORT CHANNEL ok|lose|double
"""

from __future__ import annotations

import asyncio
import http
import json
import sys

import redis.asyncio
from redis.asyncio.client import PubSub
from websockets.asyncio.server import Server, ServerConnection, broadcast, serve
from websockets.datastructures import Headers
from websockets.http11 import Request, Response

from broker.base import Entry
from broker.envelope import decode

FAULTY = 7
"""The offset that is lost or doubled."""


async def join(connection: ServerConnection) -> None:
    async for text in connection:
        await connection.send(
            json.dumps({"op": "reply", "id": json.loads(text)["id"], "ok": True}, separators=(",", ":"))
        )


def page(connection: ServerConnection, request: Request) -> Response | None:
    return Response(http.HTTPStatus.NOT_FOUND, "Not Found", Headers()) if request.path == "/readyz" else None


async def relay(subscription: PubSub, server: Server, fault: str) -> None:
    async for event in subscription.listen():
        if event["type"] != "message":
            continue
        entry = decode(event["data"])
        assert isinstance(entry, Entry)
        copies = 1 if entry.offset != FAULTY else {"ok": 1, "lose": 0, "double": 2}[fault]
        for _ in range(copies):
            broadcast(server.connections, (b"{" + entry.payload[1:]).decode())


async def main(port: str, redis_port: str, channel: str, fault: str) -> None:
    async with redis.asyncio.Redis(port=int(redis_port), protocol=2) as client, client.pubsub() as subscription:
        await subscription.subscribe(channel)
        while await subscription.get_message(timeout=None) is None:
            pass  # the answer: from here on nothing is missed
        async with serve(join, "127.0.0.1", int(port), process_request=page, compression=None) as server:
            await relay(subscription, server, fault)


asyncio.run(main(*sys.argv[1:]))

"""A node that is none: hears the room in Redis, sends it to its clients and answers pings. If told to, it loses or
doubles a message, and a pong of each client.

python standin_node.py PORT REDIS_PORT CHANNEL ok|lose|double
"""

from __future__ import annotations

import asyncio
import http
import json
import sys
from functools import partial

import redis.asyncio
from redis.asyncio.client import PubSub
from websockets.asyncio.server import Server, ServerConnection, broadcast, serve
from websockets.datastructures import Headers
from websockets.http11 import Request, Response

from broker.base import Entry
from broker.envelope import decode

FAULTY = 7
"""The offset, and the ping of a client, whose message is lost or doubled."""
COPIES = {"ok": 1, "lose": 0, "double": 2}


async def answer(connection: ServerConnection, fault: str) -> None:
    pings = 0
    async for text in connection:
        request = json.loads(text)
        pings += request["op"] == "ping"
        reply = {"op": "pong", "id": request["id"]} if request["op"] == "ping" else {"op": "reply", "ok": True}
        for _ in range(COPIES[fault] if pings == FAULTY and request["op"] == "ping" else 1):
            await connection.send(json.dumps(reply, separators=(",", ":")))


def page(connection: ServerConnection, request: Request) -> Response | None:
    return Response(http.HTTPStatus.NOT_FOUND, "Not Found", Headers()) if request.path == "/readyz" else None


async def relay(subscription: PubSub, server: Server, fault: str) -> None:
    async for event in subscription.listen():
        if event["type"] != "message":
            continue
        entry = decode(event["data"])
        assert isinstance(entry, Entry)
        copies = COPIES[fault] if entry.offset == FAULTY else 1
        for _ in range(copies):
            broadcast(server.connections, (b"{" + entry.payload[1:]).decode())


async def main(port: str, redis_port: str, channel: str, fault: str) -> None:
    async with redis.asyncio.Redis(port=int(redis_port), protocol=2) as client, client.pubsub() as subscription:
        await subscription.subscribe(channel)
        while await subscription.get_message(timeout=None) is None:
            pass  # the answer: from here on nothing is missed
        async with serve(
            partial(answer, fault=fault), "127.0.0.1", int(port), process_request=page, compression=None
        ) as server:
            await relay(subscription, server, fault)


asyncio.run(main(*sys.argv[1:]))

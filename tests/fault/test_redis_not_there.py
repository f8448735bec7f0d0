"""A node that starts before its Redis: it lives, says why it is not ready, tells its clients, and begins by itself."""

from __future__ import annotations

import asyncio
import json

import pytest
from websockets.asyncio.client import connect

from tests.support.node import NodeServer
from tests.support.redis_server import RedisServer
from tests.support.waiting import eventually


def status(node: NodeServer, path: str) -> tuple[int, bytes]:
    try:
        return node.get(path)
    except OSError:
        return 0, b""


@pytest.mark.redis
@pytest.mark.system
async def test_a_node_starts_without_redis_and_begins_when_it_comes() -> None:
    redis = RedisServer()
    node = NodeServer(broker=redis.tcp_url, heartbeat_s=0.4, lease_s=1.6, grace_s=1)
    try:
        node.launch()
        await eventually(lambda: status(node, "/healthz")[0] == 200, 20)
        await eventually(lambda: b"cannot connect to Redis" in status(node, "/readyz")[1], 10)
        assert status(node, "/readyz")[0] == 503
        async with connect(f"{node.ws_url}?user=alice") as client, asyncio.timeout(30):
            assert json.loads(await client.recv())["op"] == "welcome"
            assert json.loads(await client.recv())["op"] == "degraded"
            await client.send('{"op":"join","room":"r","id":1}')
            while (reply := json.loads(await client.recv())).get("op") != "reply":
                pass
            assert (reply["ok"], reply["code"]) == (False, "unavailable")
            await asyncio.to_thread(redis.start)
            while json.loads(await client.recv())["op"] != "restored":
                pass
            await client.send('{"op":"join","room":"r","id":2}')
            while (reply := json.loads(await client.recv())).get("op") != "reply":
                pass
            assert reply["ok"] and reply["offset"] == 0
        assert status(node, "/readyz")[0] == 200
    finally:
        node.__exit__(None, None, None)
        redis.__exit__(None, None, None)

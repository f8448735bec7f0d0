"""The live move from one Redis to a cluster (docs/operations.md): nodes of both kinds, and what clients see.

Also what an operator sees: the commands of the console work on a cluster as on one server.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Iterator
from typing import Any

import pytest
from roomcast_client import Message, Reset, Room, Roomcast

from tests.fault.test_presence_console import roomcast
from tests.support.cluster import SCALED
from tests.support.figures import note
from tests.support.node import NodeServer
from tests.support.redis_cluster import RedisCluster
from tests.support.redis_server import RedisServer
from tests.support.waiting import eventually

pytestmark = [pytest.mark.system, pytest.mark.redis]

ROOM = "lobby"
CLIENTS = 6


@pytest.fixture(scope="module")
def redis_cluster() -> Iterator[RedisCluster]:
    with RedisCluster(replicas=False) as redis_cluster:
        yield redis_cluster


class Listener:
    """One client in the room and what it was told, epoch by epoch."""

    def __init__(self, room: Room) -> None:
        self.room = room
        self.seen: list[Message | Reset] = []

    async def listen(self) -> None:
        async for event in self.room.events():
            if isinstance(event, Message | Reset):
                self.seen.append(event)

    @property
    def resets(self) -> int:
        return sum(isinstance(event, Reset) for event in self.seen)

    def data(self) -> list[Any]:
        return [event.data for event in self.seen if isinstance(event, Message)]

    def check(self) -> None:
        """Contiguous, but where it was told to start again."""
        for before, after in zip(self.seen, self.seen[1:], strict=False):
            if isinstance(after, Message):
                here = before.position
                assert (after.epoch, after.offset) == (here.epoch, here.offset + 1), (before, after)


async def test_clients_of_a_drained_node_start_again_on_the_cluster_and_are_told_so(
    redis_cluster: RedisCluster,
) -> None:
    async with contextlib.AsyncExitStack() as stack:
        redis_server = stack.enter_context(RedisServer())
        old = [NodeServer(broker=redis_server.url, **SCALED) for _ in range(2)]
        new = [NodeServer(broker=redis_cluster.url, **SCALED) for _ in range(2)]
        for node in (*old, *new):
            stack.push(node.__exit__)
            node.launch()
        await asyncio.gather(*(node.wait_ready() for node in (*old, *new)))
        listeners = []
        for number in range(CLIENTS):
            urls = [old[number % 2].ws_url, new[number % 2].ws_url]  # a proxy would choose among those that are ready
            client = await stack.enter_async_context(Roomcast(urls, user=f"u{number}", open_timeout_s=20))
            listeners.append(Listener(await client.join(ROOM)))
        tasks = [asyncio.create_task(listener.listen()) for listener in listeners]
        for number in range(10):
            await listeners[number % CLIENTS].room.send(f"old:{number}")
        await eventually(lambda: all(len(one.data()) == 10 for one in listeners))
        began_s = asyncio.get_running_loop().time()
        for node in old:
            node.terminate()
        await eventually(lambda: all(one.resets == 1 for one in listeners), 20)
        note("live move: all clients on the cluster after", asyncio.get_running_loop().time() - began_s, "s")
        for number in range(10):
            await listeners[number % CLIENTS].room.send(f"new:{number}")
        await eventually(lambda: all(one.data()[-1:] == ["new:9"] for one in listeners))
        for listener in listeners:
            listener.check()
            assert listener.resets == 1
            assert listener.data() == [f"{kind}:{number}" for kind in ("old", "new") for number in range(10)]
            assert {*await listener.room.members()} == {f"u{number}" for number in range(CLIENTS)}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_the_console_works_on_a_cluster(redis_cluster: RedisCluster) -> None:
    await asyncio.to_thread(redis_cluster.flush)
    url = redis_cluster.url
    with NodeServer(broker=url, **SCALED) as node:
        async with Roomcast(node.ws_url, user="alice") as client:
            room = await client.join(ROOM)
            await client.join("other")
            for number in range(3):
                await roomcast("publish", ROOM, json.dumps(number), "--broker", url)
            assert [message.data for message in await room.history()] == [0, 1, 2]
            history = (await roomcast("history", ROOM, "--json", "--broker", url)).splitlines()
            tail = (
                await roomcast("tail", ROOM, "--since", "0", "--count", "3", "--json", "--broker", url)
            ).splitlines()
            assert [json.loads(line)["data"] for line in history] == [0, 1, 2]
            assert [json.loads(line)["data"] for line in tail] == [0, 1, 2]
            rooms = [json.loads(line) for line in (await roomcast("rooms", "--json", "--broker", url)).splitlines()]
            assert sorted(one["room"] for one in rooms) == [ROOM, "other"]
            assert json.loads(await roomcast("presence", ROOM, "--json", "--broker", url))["count"] == 1
            assert json.loads(await roomcast("presence", "--json", "--broker", url))["count"] == 1
            assert len((await roomcast("nodes", "--json", "--broker", url)).splitlines()) == 1
            await roomcast("disconnect", "alice", "--broker", url)
            await eventually(lambda: not client.connected)

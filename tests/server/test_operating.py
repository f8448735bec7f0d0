"""``roomcast rooms``, ``history`` and ``disconnect`` beside two nodes over a real Redis."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from broker.options import BrokerOptions
from broker.redis.broker import RedisBroker
from tests.server.test_cli import roomcast
from tests.support.chat import NodeHere, node_here
from tests.support.redis_server import RedisServer
from tests.support.waiting import eventually

pytestmark = pytest.mark.redis


class Cluster:
    def __init__(self, nodes: list[NodeHere], environ: dict[str, str]) -> None:
        self.nodes = nodes
        self.environ = environ

    async def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return await asyncio.to_thread(roomcast, *arguments, environ=self.environ)

    async def lines(self, *arguments: str) -> list[Any]:
        result = await self.run(*arguments, "--json")
        assert result.returncode == 0, result.stderr
        return [json.loads(line) for line in result.stdout.splitlines()]


@asynccontextmanager
async def cluster(server: RedisServer, prefix: str) -> AsyncIterator[Cluster]:
    def broker(name: str) -> RedisBroker:
        return RedisBroker(f"unix://{server.socket}", node_id=name, options=BrokerOptions(prefix=prefix))

    many: dict[str, Any] = {"max_rooms": 5000}
    async with node_here("fast", broker=broker("a"), **many) as a, node_here("fast", broker=broker("b"), **many) as b:
        for node in (a, b):
            await node.hub.broker.wait_ready()

        async def announced() -> bool:
            return len(await a.hub.broker.nodes()) == 2

        assert await eventually(announced)
        yield Cluster([a, b], {"ROOMCAST_BROKER": server.url, "ROOMCAST_PREFIX": prefix})


async def test_rooms_are_listed_with_their_connections(redis_server: RedisServer, prefix: str) -> None:
    async with cluster(redis_server, prefix) as here:
        a, b = here.nodes
        assert await here.lines("rooms") == []
        async with a.client("alice", "chat:x", "game:y"), b.client("bob", "chat:x"):
            chat, game = {"room": "chat:x", "connections": 2}, {"room": "game:y", "connections": 1}
            assert await here.lines("rooms") == [chat, game]
            assert await here.lines("rooms", "game:*") == [game]
            assert (await here.run("rooms")).stdout.split() == ["room", "connections", "chat:x", "2", "game:y", "1"]
            census: Any = b.hub.cluster.census
            census.asked = lambda question: None
            result = await here.run("rooms", "chat:*", "--json")
            assert (result.returncode, json.loads(result.stdout)["connections"]) == (1, 1)
            assert result.stderr == "roomcast: no answer from b: what they hold is not counted\n"


async def test_more_rooms_than_fit_a_page_are_all_listed(redis_server: RedisServer, prefix: str) -> None:
    async with cluster(redis_server, prefix) as here:
        names = [f"r{number:04}" for number in range(1003)]
        a, b = here.nodes
        async with a.client("alice") as alice, b.client("bob") as bob:
            for client in (alice, bob):
                for name in names:
                    await client.send("join", room=name)
                assert await client.ask("ping") == {"op": "pong"}
            assert [(each["room"], each["connections"]) for each in await here.lines("rooms")] == [
                (n, 2) for n in names
            ]


async def test_the_history_of_a_room_is_shown(redis_server: RedisServer, prefix: str) -> None:
    async with cluster(redis_server, prefix) as here:
        a, _ = here.nodes
        assert await here.lines("history", "r") == []
        assert await a.hub.broker.tops(["r"]) == [None], "looking opens no log"
        async with a.client("42", "r") as client:
            for number in range(250):
                await client.ok("message", room="r", data=number)
        shown = await here.lines("history", "r", "--limit", "220")
        assert [message["offset"] for message in shown] == [*range(31, 251)]
        assert (shown[0]["user_id"], shown[0]["data"], shown[0]["room"]) == (42, 30, "r")
        (line,) = (await here.run("history", "r", "--limit", "1")).stdout.splitlines()
        assert line.split()[0] == "250" and line.split()[-2:] == ["42", "249"]


async def test_users_are_disconnected_by_the_type_of_their_id(redis_server: RedisServer, prefix: str) -> None:
    async with cluster(redis_server, prefix) as here:
        a, b = here.nodes
        async with a.client("42") as one, b.client("42") as two, b.client("alice") as other:
            result = await here.run("disconnect", "42")
            assert (result.returncode, result.stdout) == (0, "sent to all nodes\n")
            assert (await one.closed(), await two.closed()) == (4004, 4004)
            await other.quiet()
            (connection,) = b.hub.users.members('"alice"')
            assert await here.lines("disconnect", "--session", connection.session) == [{"sent": True}]
            assert await other.closed() == 4004


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["disconnect"], "say whom to disconnect"),
        (["disconnect", "__x"], "'__x': not a user id"),
        (["history", "__x"], "'__x' is no room name"),
        (["history", "r", "--limit", "0"], "Invalid value for '--limit'"),
        (["rooms"], "memory:// lives inside one node"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(arguments: list[str], said: str) -> None:
    result = roomcast(*arguments)
    assert result.returncode == 2 and result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert said in line

"""It does not matter which node of a cluster is asked: two nodes over a real Redis, and Redis gone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from broker.options import BrokerOptions
from broker.redis.broker import RedisBroker
from tests.api.calls import KEYS, SECRETS, Caller
from tests.support.chat import NodeHere, node_here
from tests.support.node import NodeServer
from tests.support.redis_server import RedisServer
from tests.support.waiting import eventually

pytestmark = pytest.mark.redis


@asynccontextmanager
async def node_on(server: RedisServer, prefix: str, name: str, **settings: Any) -> AsyncIterator[NodeHere]:
    options = BrokerOptions(prefix=prefix, heartbeat_s=0.2, lease_s=0.8, grace_s=0.3)
    broker = RedisBroker(f"unix://{server.socket}", node_id=name, options=options)
    async with node_here("fast", broker=broker, api_keys=KEYS, **settings) as node:
        await broker.wait_ready()
        yield node


@asynccontextmanager
async def two_nodes(server: RedisServer, prefix: str) -> AsyncIterator[tuple[NodeHere, NodeHere, Caller, Caller]]:
    async with node_on(server, prefix, "a") as a, node_on(server, prefix, "b") as b:
        yield a, b, Caller(a.served.port), Caller(b.served.port)


async def test_what_is_sent_at_one_node_arrives_at_the_other(redis_server: RedisServer, prefix: str) -> None:
    async with two_nodes(redis_server, prefix) as (_, b, api, _), b.client("alice", "r") as alice:
        await api.post("/publish", room="r", data=1)
        await api.post("/broadcast", path="/ws", data=2)
        await api.post("/send", user_id="alice", data=3)
        assert {(await alice.event())["data"] for _ in range(3)} == {1, 2, 3}


async def test_a_retry_on_another_node_is_the_same_message(redis_server: RedisServer, prefix: str) -> None:
    async with two_nodes(redis_server, prefix) as (_, b, one, two), b.client("alice", "r") as alice:
        key = {"Idempotency-Key": "5d1a8a7e-4b43-4ac5-a1b6-6d6a5a2f4d4e"}
        first, again = await asyncio.gather(
            one.post("/publish", key, room="r", data=1), two.post("/publish", key, room="r", data=1)
        )
        assert first.ok == again.ok
        assert (await alice.event())["offset"] == 1
        await alice.quiet()
        assert (await two.get("/history", room="r")).ok["top"] == 1


async def test_presence_and_nodes_are_those_of_the_cluster(redis_server: RedisServer, prefix: str) -> None:
    async with two_nodes(redis_server, prefix) as (a, b, api, _), a.client("alice", "r"), b.client("42", "r"):

        async def all_here() -> bool:
            return bool((await api.get("/presence", room="r")).ok["users"] == ["alice", 42])

        assert await eventually(all_here)
        assert (await api.get("/presence/user", user_id="42")).ok["online"] is True

        async def both() -> bool:
            return [node["node"] for node in (await api.get("/nodes")).ok["nodes"]] == ["a", "b"]

        assert await eventually(both)


async def test_who_is_sent_away_at_one_node_is_closed_and_refused_at_the_other(
    redis_server: RedisServer, prefix: str
) -> None:
    async with two_nodes(redis_server, prefix) as (_, b, api, _), b.client("alice") as alice, b.client("bob") as bob:
        await api.post("/disconnect", user_id="bob")
        assert await bob.closed() == 4004
        await api.post("/revoke", user_id="alice", for_s=60)
        assert await alice.closed() == 4004
        async with b.connected("user=alice") as refused:
            assert await refused.closed() == 4001
        async with b.client("bob") as again:
            await again.quiet()


async def test_rooms_are_those_of_the_cluster_and_a_node_that_hangs_is_missing(
    redis_server: RedisServer, prefix: str
) -> None:
    async with (
        two_nodes(redis_server, prefix) as (a, b, api, _),
        a.client("alice", "r", "s"),
        b.client("bob", "r", "t"),
    ):

        async def counted() -> bool:  # both nodes have announced themselves
            found = (await api.get("/rooms")).ok
            return [(each["room"], each["connections"]) for each in found["rooms"]] == [("r", 2), ("s", 1), ("t", 1)]

        assert await eventually(counted)
        pages = [(await api.get("/rooms", limit=1, **after)).ok for after in ({}, {"after": "r"}, {"after": "s"})]
        assert [(page["rooms"][0]["room"], page["next"]) for page in pages[:2]] == [("r", "r"), ("s", "s")]
        assert pages[2]["rooms"] == [{"room": "t", "connections": 1}]
        census: Any = b.hub.cluster.census
        census.asked = lambda question: None
        found = (await api.get("/rooms")).ok
        assert found["missing"] == ["b"] and [each["room"] for each in found["rooms"]] == ["r", "s"]


async def test_a_user_is_put_into_a_room_and_forgotten_on_every_node(redis_server: RedisServer, prefix: str) -> None:
    async with (
        two_nodes(redis_server, prefix) as (a, b, api, _),
        b.client("alice") as alice,
        b.client("bob", "r") as bob,
    ):
        await api.post("/subscribe", user_id="alice", room="r")
        assert (await alice.event())["type"] == "joined"
        await a.hub.cluster.publish("r", 1)
        assert (await alice.event())["data"] == 1 == (await bob.event())["data"]
        await alice.ok("receipt", room="r", message_id=1, status="read")
        assert (await bob.event())["type"] == "receipt"
        assert [mark["user_id"] for mark in (await bob.ok("join", room="r"))["receipts"]] == ["alice"]
        assert (await api.post("/forget", user_id="alice")).ok == {"rooms": 1}
        assert await alice.closed() == 4004

        async def forgotten() -> bool:
            return not (await bob.ok("join", room="r"))["receipts"]

        assert await eventually(forgotten)
        assert (await api.delete("/history", room="r")).status == 200
        assert (await bob.ok("history", room="r", limit=5))["messages"] == []


async def test_redis_away_is_told_in_time_and_heals(prefix: str) -> None:
    with RedisServer() as server:
        async with node_on(server, prefix, "a") as node:
            api = Caller(node.served.port)
            assert (await api.post("/publish", room="r", data=1)).status == 200
            server.kill()
            await eventually(lambda: not node.hub.ready)
            for answer in await asyncio.gather(
                api.post("/publish", room="r", data=2),
                api.post("/send", user_id=1, data=2),
                api.get("/history", room="r"),
                api.get("/presence"),
                api.get("/nodes"),
                api.get("/rooms"),
                api.delete("/history", room="r"),
                api.post("/forget", user_id=1),
                api.post("/subscribe", user_id=1, room="r"),
                api.post("/revoke", user_id=1),
            ):
                assert answer.problem == (503, "unavailable")
            server.restart()
            await eventually(lambda: node.hub.ready, 15)
            assert (await api.post("/publish", room="r", data=3)).status == 200


async def test_a_frozen_redis_leaves_the_outcome_open_and_a_retry_settles_it(prefix: str) -> None:
    with RedisServer() as server:
        async with node_on(server, prefix, "a") as node:
            api = Caller(node.served.port)
            assert (await api.post("/publish", room="r", data=1)).status == 200
            server.pause()
            try:
                open_end = await api.post("/publish", {"Idempotency-Key": "k"}, room="r", data=2)
            finally:
                server.resume()
            assert open_end.problem in ((504, "outcome_unknown"), (503, "unavailable"))
            await eventually(lambda: node.hub.ready, 15)
            assert (await api.post("/publish", {"Idempotency-Key": "k"}, room="r", data=2)).ok["offset"] == 2
            assert (await api.get("/history", room="r")).ok["top"] == 2


@pytest.mark.system
async def test_a_node_of_its_own_takes_keys_from_the_environment_and_tells_nobody() -> None:
    with NodeServer(api_keys=KEYS, log_level="debug") as node:
        api = Caller(node.port)
        assert (await api.post("/publish", room="r", data=1)).ok["offset"] == 1
        assert (await api.post("/disconnect", user_id=1)).status == 200
        assert (await Caller(node.port, "wrong" * 8).get("/nodes")).problem == (401, "unauthorized")
        assert not [name for name, secret in SECRETS.items() if secret in node.log]
        assert "/disconnect by the key ops" in node.log

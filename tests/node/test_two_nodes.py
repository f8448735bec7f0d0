"""Clients of different nodes see the same: over a bus in memory, and over one real Redis."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from tests.support.brokers import Backend
from tests.support.chat import NodeHere, node_here
from tests.support.waiting import eventually

Nodes = Callable[..., Any]


@pytest.fixture(params=["memory", pytest.param("redis", marks=pytest.mark.redis)])
def backend(request: pytest.FixtureRequest, prefix: str) -> Backend:
    """What the nodes of a test share."""
    if request.param == "memory":
        return Backend(None, prefix)
    return Backend(request.getfixturevalue("redis_server"), prefix)


@asynccontextmanager
async def two_nodes(backend: Backend, lane: str, **settings: Any) -> AsyncIterator[list[NodeHere]]:
    """``one`` on the lane, ``two`` on the fast one; both ready."""
    async with AsyncExitStack() as stack:
        nodes = []
        for name, its_lane in (("one", lane), ("two", "fast")):
            broker = backend.broker(name)
            nodes.append(await stack.enter_async_context(node_here(its_lane, broker=broker, **settings)))
        for node in nodes:
            async with asyncio.timeout(30):
                await node.hub.broker.wait_ready()
        yield nodes


async def test_messages_cross_in_one_order_for_all(backend: Backend, lane: str) -> None:
    count = 100
    async with two_nodes(backend, lane) as (one, two):
        async with one.client("alice", "r") as alice, two.client("bob", "r") as bob:
            for index in range(count):
                await alice.send("message", room="r", data=f"a{index}")
                await bob.send("message", room="r", data=f"b{index}")
            seen = await alice.events(2 * count)
            assert await bob.events(2 * count) == seen
            assert [frame["offset"] for frame in seen] == list(range(1, 2 * count + 1))
            for user in "ab":
                own = [frame["data"] for frame in seen if frame["data"].startswith(user)]
                assert own == [f"{user}{index}" for index in range(count)]


async def test_acks_of_both_nodes_name_the_same_log(backend: Backend, lane: str) -> None:
    async with two_nodes(backend, lane) as (one, two):
        async with one.client("alice", "r") as alice, two.client("bob", "r") as bob:
            first = await alice.ok("message", room="r", data=1)
            second = await bob.ok("message", room="r", data=2)
            assert (first["epoch"], first["offset"]) == (second["epoch"], second["offset"] - 1)
            for each in (alice, bob):
                assert [frame["tag"] for frame in await each.events(2)] == [first["tag"], second["tag"]]


async def test_typing_and_receipts_cross_and_spare_only_their_sender(backend: Backend, lane: str) -> None:
    async with two_nodes(backend, lane) as (one, two):
        # The first connection of each node: their numbers are the same, the nodes are not.
        async with one.client("alice", "r") as alice, two.client("bob", "r") as bob:
            await alice.ok("typing", room="r", typing=True)
            assert (await bob.event())["user_id"] == "alice"
            await bob.ok("receipt", room="r", message_id=7, status="read")
            receipt = await alice.event()
            assert (receipt["type"], receipt["user_id"], receipt["message_id"]) == ("receipt", "bob", 7)
            await alice.ok("message", room="r", data="marker")
            for each in (alice, bob):
                frames = [await each.event()]
                while frames[-1].get("data") != "marker":
                    frames.append(await each.event())
                # The typing ends with the message; nobody heard himself.
                assert [f["type"] for f in frames if f.get("user_id") != "alice" or f["type"] == "message"] == [
                    "message"
                ]


async def test_broadcasts_direct_messages_and_disconnects_cross(backend: Backend, lane: str) -> None:
    async with two_nodes(backend, lane) as (one, two):
        async with one.client("alice") as alice, two.client("bob") as bob, two.client("alice") as alice_too:
            await bob.ok("broadcast", data="all")
            for each in (alice, bob, alice_too):
                frame = await each.event()
                assert (frame["type"], frame["user_id"], frame["data"]) == ("broadcast", "bob", "all")
            await two.hub.cluster.send_to_user('"alice"', "you")
            for each in (alice, alice_too):
                assert await each.event() == {"op": "broadcast", "type": "direct", "data": "you"}
            await one.hub.cluster.disconnect('"alice"')
            assert await alice.closed() == await alice_too.closed() == 4004
            await bob.quiet()


async def test_echo_false_spares_the_session_on_every_node(backend: Backend, lane: str) -> None:
    async with two_nodes(backend, lane) as (one, two):
        async with one.connected("user=alice") as alice:
            session = (await alice.frame())["session"]
            await alice.ok("join", room="r")
            async with two.client("alice", "r", query=f"&session={session}") as same, two.client("bob", "r") as bob:
                await alice.ok("message", room="r", data="x", echo=False)
                assert (await bob.event())["type"] == "message"
                assert (await alice.event())["type"] == (await same.event())["type"] == "position"


async def test_a_client_resumes_on_the_other_node(backend: Backend, lane: str) -> None:
    async with two_nodes(backend, lane) as (one, two), two.client("bob", "r") as bob:
        async with one.client("alice") as alice:
            position = await alice.ok("join", room="r")
        for index in range(3):
            await bob.ok("message", room="r", data=index)
        async with two.client("alice") as alice:
            resume = {name: position[name] for name in ("epoch", "offset", "tag")}
            resumed = await alice.ok("join", room="r", resume=resume)
            assert resumed["recovered"] is True
            assert [frame["data"] for frame in resumed["messages"]] == [0, 1, 2]


async def test_a_retry_on_the_other_node_is_the_same_entry(backend: Backend, lane: str) -> None:
    async with two_nodes(backend, lane) as (one, two):
        async with one.connected("user=alice") as alice:
            session = (await alice.frame())["session"]
            await alice.ok("join", room="r")
            first = await alice.ok("message", room="r", data=1, key="k")
            async with two.client("alice", "r", query=f"&session={session}") as again:
                assert await again.ok("message", room="r", data=1, key="k") == first
            async with two.client("bob", "r") as other:
                assert (await other.ok("message", room="r", data=1, key="k"))["offset"] == 2


async def test_a_room_without_members_costs_its_node_nothing(backend: Backend, lane: str) -> None:
    """Leaving stops the delivery at once, and after the linger the node gives the channel up."""
    async with two_nodes(backend, lane) as (one, two):
        async with one.client("alice", "r") as alice, two.client("bob", "r") as bob:
            assert backend.subscribers("room:r") == 2
            await alice.ok("leave", room="r")
            await bob.ok("message", room="r", data=1)
            assert (await bob.event())["data"] == 1
            await alice.quiet()
            await eventually(lambda: backend.subscribers("room:r") == 1)
            received = one.hub.broker.stats.deliveries
            for index in range(5):
                await bob.ok("message", room="r", data=index)
            await alice.quiet()
            assert one.hub.broker.stats.deliveries == received
            # Back again: nothing of the time between is lost from the log.
            page = await alice.ok("join", room="r", history=10)
            assert page["offset"] == 6 and len(page["messages"]) == 6
        await eventually(lambda: backend.subscribers("room:r") == 0)

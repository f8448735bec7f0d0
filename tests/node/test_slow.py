"""A reader that is too slow: what gives way, what it is told afterwards, and how it ends, on both lanes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest
from websockets.asyncio.client import connect

from server import plainlane, wire
from server.backlog import MAX_BYTES
from server.connection import CONGESTED, Connection
from server.payload import Origin, TypingSignal, encode_signal
from tests.support.chat import Chatter, NodeHere, node_here
from tests.support.waiting import eventually

BULK = "x" * 30_000


def connection_of(node: NodeHere, user: str) -> Connection:
    [connection] = node.hub.users.members(json.dumps(user))
    return connection


@contextlib.asynccontextmanager
async def slow_client(
    node: NodeHere, user: str, *rooms: str, query: str = "", **options: Any
) -> AsyncIterator[Chatter]:
    """One that reads when it is asked to, through the smallest window, and is in the rooms with their presence."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    await asyncio.to_thread(sock.connect, ("127.0.0.1", node.served.port))
    url = f"{node.served.url}/ws?user={user}{query}"
    options = {"compression": None, "ping_interval": None, "max_queue": 1, "close_timeout": 0.1, **options}
    async with connect(url, sock=sock, **options) as ws:
        chatter = Chatter(ws)
        assert (await chatter.frame())["op"] == "welcome"
        for room in rooms:
            await chatter.ok("join", room=room, presence=True)
            if node.hub.settings.presence_broadcast == "rooms":
                await told(chatter, "presence", user_id=user)
        yield chatter
        ws.transport.abort()


async def congest(node: NodeHere, reader: Chatter, room: str = "r") -> int:
    """Publish until the user ``slow`` owes too much; the offset reached. ``reader`` follows."""
    connection = connection_of(node, "slow")
    offset = 0
    while not connection.held & CONGESTED:
        offset = (await node.hub.cluster.publish(room, BULK)).offset
        while (await reader.event()).get("offset") != offset:
            pass
        assert offset < 1000
    return offset


async def told(chatter: Chatter, kind: str, **fields: object) -> dict[str, Any]:
    """The next event of this type with these fields."""
    while True:
        event = await chatter.event()
        if event.get("type") == kind and fields.items() <= event.items():
            return event


async def test_typing_presence_and_receipts_give_way_and_the_latest_is_told(lane: str) -> None:
    async with (
        node_here(lane, presence_broadcast="rooms", outbound_bytes=2**20) as node,
        node.client("alice", "r") as alice,
        node.client("bob", "r") as bob,
        slow_client(node, "slow", "r") as slow,
    ):
        last = await congest(node, alice)
        connection = connection_of(node, "slow")
        owed = connection.outbound_bytes()
        await bob.send("typing", room="r", typing=True)
        await told(alice, "typing", typing=True)
        for offset in (1, 2, 3):
            await bob.send("receipt", room="r", message_id=offset, status="read")
            await told(alice, "receipt", message_id=offset)
        async with node.client("carol", "r"), node.client("dave", "r"):
            await eventually(lambda: len(connection.backlog.parts()) == 4 if connection.backlog else False)
            assert connection.outbound_bytes() <= owed, "nothing of it is in the buffer"
            await bob.ok("message", room="r", data="said")  # ends the typing
            await told(alice, "typing", typing=False)
            assert not connection.closed
            drops = node.hub.counts.drops
            assert drops == {("slow_reader", "typing"): 1, ("slow_reader", "receipt"): 2}
            assert node.hub._slow_connections() == 1
            offsets: list[int] = []
            others: list[tuple[object, ...]] = []
            while len(others) < 4:
                event = await slow.event()
                kind = event["type"]
                if kind == "message":
                    offsets.append(event["offset"])
                else:
                    assert offsets[-1] == last + 1, "what gave way comes when the reader has caught up"
                    others.append((kind, event["user_id"], event.get("typing", event.get("message_id", "online"))))
            assert offsets == list(range(1, last + 2)), "no message is missing"
            assert others == [
                ("presence", "carol", "online"),
                ("presence", "dave", "online"),
                ("receipt", "bob", 3),
                ("typing", "bob", False),
            ]
            await slow.quiet()
            assert connection.backlog is None and not connection.held


async def test_presence_beyond_the_backlog_is_told_as_a_list(lane: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.backlog.MAX_BYTES", 1000)
    async with (
        node_here(lane, presence_broadcast="rooms", outbound_bytes=2**20) as node,
        node.client("alice", "r") as alice,
        slow_client(node, "slow", "r", query="&x=1") as slow,
    ):
        last = await congest(node, alice)
        async with contextlib.AsyncExitStack() as stack:
            bob = await stack.enter_async_context(node.client("bob"))
            await bob.ok("join", room="r", presence=True)
            for index in range(10):
                await stack.enter_async_context(node.client(f"u{index}", "r"))
            await told(bob, "presence", user_id="u9")  # until then it is not known who is here
            backlog = connection_of(node, "slow").backlog
            assert backlog is not None
            await eventually(lambda: backlog.lists == {"r"})
            events = [await slow.event() for _ in range(last + 1)]
            assert [event["type"] for event in events] == ["message"] * last + ["presence_list"]
            assert events[-1]["users"] == sorted(["alice", "bob", "slow", *(f"u{index}" for index in range(10))])
            assert (events[-1]["room"], events[-1]["count"]) == ("r", 13)
            await slow.quiet()


async def test_of_a_room_it_was_taken_out_of_it_is_told_nothing_more(lane: str) -> None:
    async with (
        node_here(lane, presence_broadcast="rooms", outbound_bytes=2**20) as node,
        node.client("alice", "r") as alice,
        slow_client(node, "slow", "r") as slow,
    ):
        last = await congest(node, alice)
        await alice.send("typing", room="r", typing=True)
        connection = connection_of(node, "slow")
        await eventually(lambda: connection.backlog is not None)
        node.hub.rooms.leave(connection, "r")  # as a recheck of grants does
        assert [(await slow.event())["type"] for _ in range(last)] == ["message"] * last
        await slow.quiet()


async def test_a_flood_of_typing_never_closes_a_reader_and_messages_do(
    lane: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (wire, plainlane):
        monkeypatch.setattr(module, "STALL_S", 30.0)
    async with (
        node_here(lane, outbound_bytes=64 * 1024) as node,
        node.client("alice", "r") as alice,
        slow_client(node, "slow", "r") as slow,
    ):
        last = await congest(node, alice)
        connection = connection_of(node, "slow")
        while connection.outbound_bytes() <= 64 * 1024:  # at the limit: one message more would close it
            last = (await node.hub.cluster.publish("r", BULK)).offset
            await told(alice, "message", offset=last)
        for number in range(2000):
            typing = TypingSignal(f'"t{number}"', True, Origin("elsewhere", 1))
            node.hub.broker.publish("room:r", encode_signal(typing))
        await told(alice, "typing", user_id="t1999")
        assert not connection.closed
        assert connection.backlog is not None
        assert sum(len(part.payload) for part in connection.backlog.parts()) < MAX_BYTES
        for _ in range(10):
            last = (await node.hub.cluster.publish("r", BULK)).offset
            await told(alice, "message", offset=last)
        assert node.hub.counts.slow_closes == {"limit": 1}
        assert node.hub.counts.drops["slow_reader", "message"] == 1
        assert node.hub.counts.drops["slow_reader", "typing"] > 1000
        assert await slow.closed() == 4008
        offsets = [event["offset"] for event in slow.kept]
        assert offsets == list(range(1, len(offsets) + 1)), "a resume from here misses nothing"

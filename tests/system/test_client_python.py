"""The Python client against real nodes: one with the memory broker, two on one Redis."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import jwt
import pytest
from roomcast_client import (
    Connected,
    Disconnected,
    Draining,
    Joined,
    Lost,
    Message,
    Presence,
    Receipt,
    Refused,
    Reset,
    Room,
    Roomcast,
    Typing,
)

from tests.support.node import NodeServer
from tests.support.redis_server import RedisServer

pytestmark = pytest.mark.system

SECRET = "a secret for tests, of 32 bytes or more"


@pytest.fixture(scope="module")
def memory_node() -> Iterator[NodeServer]:
    with NodeServer(requests_per_s=100_000, requests_burst=100_000) as node:
        yield node


@pytest.fixture
def two_nodes(redis_server: RedisServer, prefix: str) -> Iterator[tuple[NodeServer, NodeServer]]:
    with (
        NodeServer(broker=redis_server.url, prefix=f"client-{prefix}", drain_s=1) as one,
        NodeServer(broker=redis_server.url, prefix=f"client-{prefix}", drain_s=1) as two,
    ):
        yield one, two


async def take(room: Room, count: int) -> list[Any]:
    """The data of the next messages, which must be one run: same epoch, offsets one by one."""
    messages: list[Message] = []
    async with asyncio.timeout(30):
        async for message in room:
            messages.append(message)
            if len(messages) == count:
                break
    assert {message.epoch for message in messages} == {messages[0].epoch}
    assert [message.offset for message in messages] == list(range(messages[0].offset, messages[0].offset + count))
    return [message.data for message in messages]


async def send_all(room: Room, start: int, stop: int) -> None:
    """Many at once, in this order."""
    await asyncio.gather(*(room.send(n) for n in range(start, stop)))


async def until(rc: Roomcast, kind: type[Any]) -> Any:
    """The next event of this kind."""
    async with asyncio.timeout(30):
        async for event in rc.events():
            if isinstance(event, kind):
                return event
    raise AssertionError("the client ended")


async def test_join_send_read_history_and_leave(memory_node: NodeServer) -> None:
    async with Roomcast(memory_node.ws_url, user="alice") as alice, Roomcast(memory_node.ws_url, user=42) as bob:
        room, hers = await bob.join("talk"), await alice.join("talk")
        acks = [await hers.send({"n": n}) for n in range(3)]
        assert [ack.offset for ack in acks] == [1, 2, 3]
        assert await take(room, 3) == [{"n": 0}, {"n": 1}, {"n": 2}]
        assert [message.offset for message in await room.history(2)] == [2, 3]
        assert [message.offset for message in await room.history(2, before=3)] == [1, 2]
        await room.leave()
        await hers.send("nobody hears this")
        late = await bob.join("talk", history=2)
        assert await take(late, 2) == [{"n": 2}, "nobody hears this"]


async def test_typing_and_receipts_reach_the_others(memory_node: NodeServer) -> None:
    async with Roomcast(memory_node.ws_url, user="alice") as alice, Roomcast(memory_node.ws_url, user=42) as bob:
        hers, room = await alice.join("signs"), await bob.join("signs")
        ack = await hers.send("hi")
        await take(room, 1)
        room.typing()
        room.read()
        events = [event async for event in first(hers, Typing, Receipt)]
        assert events == [Typing("signs", 42, True), Receipt("signs", 42, ack.offset, "read")]


async def first(room: Room, *kinds: type[Any]) -> Any:
    """One event of each kind, in this order."""
    wanted = list(kinds)
    async with asyncio.timeout(30):
        async for event in room.events():
            if isinstance(event, wanted[0]):
                yield event
                wanted.pop(0)
                if not wanted:
                    return


async def test_a_refused_room_is_an_error_with_its_code(memory_node: NodeServer) -> None:
    async with Roomcast(memory_node.ws_url, user="alice") as rc:
        with pytest.raises(Refused) as caught:
            await rc.join("no such name!")
        assert caught.value.code == "invalid_room"
        assert (await (await rc.join("fine")).send("x")).offset == 1


async def test_what_was_said_during_a_cut_is_there_afterwards(memory_node: NodeServer) -> None:
    async with Roomcast(memory_node.ws_url, user="a") as alice, Roomcast(memory_node.ws_url, user="b") as bob:
        hers, room = await alice.join("cut"), await bob.join("cut")
        await hers.send(0)
        for start in range(1, 801, 20):
            if start % 200 == 1:
                bob.reconnect()
            await send_all(hers, start, start + 20)
        assert await take(room, 801) == list(range(801))


async def test_a_position_kept_by_the_application_resumes_in_a_later_client(memory_node: NodeServer) -> None:
    async with Roomcast(memory_node.ws_url, user="a") as alice:
        hers = await alice.join("later")
        async with Roomcast(memory_node.ws_url, user="b") as bob:
            room = await bob.join("later")
            await hers.send(1)
            await take(room, 1)
        await send_all(hers, 2, 606)
        async with Roomcast(memory_node.ws_url, user="b") as bob:
            assert await take(await bob.join("later", resume=room.position), 604) == list(range(2, 606))


async def test_a_node_that_lost_its_memory_is_a_reset(memory_node: NodeServer) -> None:
    with NodeServer() as node:
        async with Roomcast(node.ws_url, user="a") as rc:
            room = await rc.join("r")
            await room.send("before")
            assert await take(room, 1) == ["before"]
            await node.restart()
            await room.send("after")
            reset, joined, message = [event async for event in first(room, Reset, Joined, Message)]
            assert joined.recovered is False
            assert (message.data, message.after_reset) == ("after", True)
            assert reset.position.epoch == message.epoch


async def test_two_nodes_are_one_room(two_nodes: tuple[NodeServer, NodeServer]) -> None:
    one, two = two_nodes
    async with Roomcast(one.ws_url, user="a") as alice, Roomcast(two.ws_url, user="b") as bob:
        hers, his = await alice.join("r"), await bob.join("r")
        for n in range(10):
            await (hers if n % 2 else his).send(n)
        assert await take(hers, 10) == list(range(10)) == await take(his, 10)


async def test_a_killed_node_costs_nothing(two_nodes: tuple[NodeServer, NodeServer]) -> None:
    """The client waits for the same node to come back on its port; meanwhile others talk."""
    one, two = two_nodes
    async with Roomcast(one.ws_url, user="a") as alice, Roomcast(two.ws_url, user="b") as bob:
        hers, his = await alice.join("r"), await bob.join("r")
        await his.send(0)
        one.kill()
        for n in range(1, 6):
            await his.send(n)
        own = asyncio.ensure_future(hers.send(6))
        one.launch()
        await own
        await his.send(7)
        assert await take(hers, 8) == list(range(8)) == await take(his, 8)


async def test_a_killed_node_is_left_for_the_next(two_nodes: tuple[NodeServer, NodeServer]) -> None:
    one, two = two_nodes
    async with Roomcast([one.ws_url, two.ws_url], user="a") as alice, Roomcast(two.ws_url, user="b") as bob:
        hers, his = await alice.join("r"), await bob.join("r")
        assert isinstance(await until(alice, Connected), Connected)
        one.kill()
        await his.send(0)
        await until(alice, Connected)
        await hers.send(1)
        assert await take(hers, 2) == [0, 1] == await take(his, 2)


async def test_a_drained_node_says_when_to_come_back_and_nothing_is_lost(
    two_nodes: tuple[NodeServer, NodeServer],
) -> None:
    one, two = two_nodes
    async with Roomcast([one.ws_url, two.ws_url], user="a") as alice, Roomcast(two.ws_url, user="b") as bob:
        hers, his = await alice.join("r"), await bob.join("r")
        stopping = asyncio.ensure_future(one.stopped())
        for n in range(50):
            await his.send(n)
        draining = await until(alice, Draining)
        lost = await until(alice, Lost)
        assert (lost.code, lost.retry_in_s) == (1012, draining.retry_after_s)
        assert await stopping == 0
        await his.send(50)
        assert await take(hers, 51) == list(range(51))


async def test_a_frozen_node_is_noticed_and_left(two_nodes: tuple[NodeServer, NodeServer]) -> None:
    one, two = two_nodes
    async with (
        Roomcast([one.ws_url, two.ws_url], user="a", ping_s=0.5) as alice,
        Roomcast(two.ws_url, user="b") as bob,
    ):
        hers, his = await alice.join("r"), await bob.join("r")
        one.pause()
        await his.send(0)
        assert (await until(alice, Lost)).code == 1006
        assert await take(hers, 1) == [0]
        one.resume()


async def presence_of(room: Room, wanted: Presence) -> None:
    """Return at the next change of this user, which must be the wanted one; one's own arrival is told, too."""
    async with asyncio.timeout(30):
        async for event in room.events():
            if isinstance(event, Presence) and event.user_id == wanted.user_id:
                assert event == wanted
                return


async def test_who_is_in_a_room_is_told_and_asked(two_nodes: tuple[NodeServer, NodeServer]) -> None:
    one, two = two_nodes
    async with Roomcast(one.ws_url, user="a") as alice:
        hers = await alice.join("r", presence=True)
        async with Roomcast(two.ws_url, user=42) as bob:
            his = await bob.join("r")
            await presence_of(hers, Presence("r", 42, True))
            assert sorted(map(str, await hers.members())) == ["42", "a"]
            assert sorted(map(str, await his.members())) == ["42", "a"]
            await his.leave()
        await presence_of(hers, Presence("r", 42, False))


def token(seconds: float) -> str:
    return jwt.encode({"user_id": 42, "exp": time.time() + seconds}, SECRET, algorithm="HS256")


async def test_a_token_about_to_expire_is_replaced_without_a_reconnect() -> None:
    asked = asyncio.Event()
    lives = iter([5, 3600])

    def next_token() -> str:
        seconds = next(lives)
        if seconds == 3600:
            asked.set()
        return token(seconds)

    with NodeServer(secret=SECRET) as node:
        async with Roomcast(node.ws_url, token=next_token) as rc:
            room = await rc.join("r")
            async with asyncio.timeout(30):
                await asked.wait()
            await room.send("after the new token")  # requests are handled in order: the token was judged before
            connected = await until(rc, Connected)
            assert (connected.user_id, connected.again) == (42, False)
            assert not rc._engine.inbox._events, "neither Trouble nor Lost"


async def test_a_bad_token_is_told_on_entering() -> None:
    with NodeServer(secret=SECRET) as node:
        with pytest.raises(Disconnected) as caught:
            async with Roomcast(node.ws_url, token=token(-3600)):
                pass
        assert caught.value.code == 4001

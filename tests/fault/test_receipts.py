"""Receipts are marks that never go back: row C36. Two tabs of one user on two real nodes say them out of order and
twice, nodes die meanwhile, and whoever comes later is told the maximum.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator

import pytest

from tests.support.peer import Peer
from tests.support.presence import ROOM, Servers, Stage, servers

pytestmark = [pytest.mark.redis, pytest.mark.system]

MESSAGES = 40


@pytest.fixture
def two() -> Iterator[Servers]:
    with servers(2) as started:
        yield started


def receipts(one: Peer, user: str) -> list[tuple[str, int]]:
    """(status, message id), as one was told."""
    return [
        (frame["status"], frame["message_id"])
        for frame in one.frames
        if frame.get("type") == "receipt" and frame["user_id"] == user
    ]


async def say(one: Peer, status: str, message_id: int) -> None:
    reply = await one.ask("receipt", room=ROOM, message_id=message_id, status=status)
    assert reply["ok"], reply


async def joined(stage: Stage, user: str, node: int) -> dict[str, object]:
    """The join reply of one more tab."""
    one = await stage.open(user, stage.nodes[node], join=False)
    return await one.join(ROOM)


def marks(reply: dict[str, object]) -> dict[str, tuple[int, int]]:
    listed = reply["receipts"]
    assert isinstance(listed, list)
    return {mark["user_id"]: (mark["delivered"], mark["read"]) for mark in listed}


async def test_out_of_order_and_twice_from_two_tabs_the_maximum_stays(two: Servers) -> None:
    seed = random.SystemRandom().randrange(10**9)
    print(f"\nseed {seed}")
    chance = random.Random(seed)
    async with Stage(two) as stage:
        writer = await stage.open("writer", stage.nodes[0])
        observer = await stage.watch(stage.nodes[1])
        tabs = [await stage.open("reader", node) for node in stage.nodes]
        for number in range(MESSAGES):
            assert (await writer.ask("message", room=ROOM, data=number))["ok"]
        delivered = [chance.randint(1, MESSAGES) for _ in range(60)]
        read = [chance.randint(1, MESSAGES - 5) for _ in range(60)]
        said = [("delivered", each) for each in delivered * 2] + [("read", each) for each in read * 2]
        chance.shuffle(said)
        await asyncio.gather(*(say(chance.choice(tabs), status, each) for status, each in said))
        await say(tabs[0], "read", max(read))  # behind everything on this node
        await say(tabs[1], "read", 1)
        final = (max(*delivered, *read), max(read))
        # One event for each step forward, so each status only rises, and the last of each is the mark.
        await observer.until(lambda: ("read", max(read)) in receipts(observer, "reader"))
        reply = await joined(stage, "late", 0)
        assert marks(reply)["reader"] == final and marks(await joined(stage, "later", 1))["reader"] == final
        events = receipts(observer, "reader")
        for status in ("delivered", "read"):
            steps = [each for kind, each in events if kind == status]
            assert steps == sorted(set(steps)), f"{status} went back or was told twice: {steps}"
        assert [each for kind, each in events if kind == "read"][-1] == max(read)
        assert len(events) < len(said) / 4, "an event for what was no step forward"
        # The author has read what they wrote; who was never here has not.
        assert marks(reply)["writer"] == (MESSAGES, MESSAGES)
        assert (await joined(stage, "writer", 1))["unread"] == 0
        assert (await joined(stage, "reader", 0))["unread"] == MESSAGES - max(read)
        assert reply["unread"] == MESSAGES


async def test_a_mark_survives_all_nodes(two: Servers) -> None:
    async with Stage(two) as stage:
        writer, reader = await stage.open("writer", stage.nodes[0]), await stage.open("reader", stage.nodes[1])
        for number in range(10):
            assert (await writer.ask("message", room=ROOM, data=number))["ok"]
        await say(reader, "read", 7)
        await say(reader, "delivered", 9)
        for node in stage.nodes:
            stage.lost(node)
            await node.restart()
        for number in (0, 1):
            assert marks(await joined(stage, "late", number))["reader"] == (9, 7)
        again = await stage.open("reader", stage.nodes[0], join=False)
        assert (await again.join(ROOM))["unread"] == 3
        observer = await stage.open("observer", stage.nodes[1])
        await say(again, "read", 5)  # behind the mark: nobody is told
        await say(again, "read", 8)
        await observer.until(lambda: receipts(observer, "reader"))
        assert receipts(observer, "reader") == [("read", 8)]


async def test_one_lost_on_the_way_is_made_good_by_the_next_join(two: Servers) -> None:
    """The event is sent at most once; the mark is kept. Whoever missed it has it with the next join."""
    async with Stage(two) as stage:
        writer, reader = await stage.open("writer", stage.nodes[0]), await stage.open("reader", stage.nodes[0])
        other = await stage.open("other", stage.nodes[1])
        assert (await writer.ask("message", room=ROOM, data="x"))["ok"]
        await other.until(lambda: other.views[ROOM].position.offset == 1)
        two.redis.command("CLIENT", "KILL", "TYPE", "pubsub")
        await say(reader, "read", 1)
        await asyncio.gather(*(node.wait_ready() for node in stage.nodes))
        assert marks(await other.join(ROOM))["reader"] == (1, 1)

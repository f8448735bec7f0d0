"""Typing ends, whatever happens to the typist: row C36, and what protocol.md says of typing. Real nodes, real times
(the six seconds are the protocol's).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import pytest

from server.typists import SAY_EVERY_S, TYPING_S
from tests.support.busy import busy_s
from tests.support.figures import note
from tests.support.peer import Peer
from tests.support.presence import ROOM, SLACK_S, Servers, Stage, servers

pytestmark = [pytest.mark.redis, pytest.mark.system]


@pytest.fixture(scope="module")
def two() -> Iterator[Servers]:
    with servers(2) as started:
        yield started


def typing(one: Peer, user: str) -> list[bool]:
    """What one was told of another's typing."""
    return [frame["typing"] for frame in one.frames if frame.get("type") == "typing" and frame["user_id"] == user]


async def told(one: Peer, user: str, *expected: bool, timeout_s: float = 10.0) -> float:
    """Return once one was told exactly this of a user's typing; the seconds it took."""
    start_s = time.monotonic()
    await one.until(lambda: len(typing(one, user)) >= len(expected), timeout_s)
    assert typing(one, user) == list(expected)
    return time.monotonic() - start_s


async def type_in(one: Peer, says: bool = True) -> None:
    assert (await one.ask("typing", room=ROOM, typing=says))["ok"]


async def test_each_way_to_stop_is_told_at_once_and_once(two: Servers) -> None:
    """RST, leave, a message, the last tab closed: the stop comes when they do that and not before. Half of the typists
    are on the node of who is told, half on the other."""
    async with Stage(two) as stage:
        reader = await stage.watch(stage.nodes[0])
        for node in stage.nodes:
            resets, leaves, sends, closes = [
                await stage.open(f"{how}{stage.nodes.index(node)}", node) for how in ("rst", "leave", "send", "close")
            ]
            tab = await stage.open(closes.user, node)
            everyone = (resets, leaves, sends, closes)
            for one in everyone:
                await type_in(one)
                await told(reader, one.user, True)
            await stage.close(tab)  # one tab less: still typing in the other one
            stopped_s = time.monotonic()
            await stage.vanish(resets)
            assert (await leaves.ask("leave", room=ROOM))["ok"]
            assert (await sends.ask("message", room=ROOM, data="sent"))["ok"]
            for one in (resets, leaves, sends):
                await told(reader, one.user, True, False)
            assert typing(reader, closes.user) == [True]
            await stage.close(closes)
            await told(reader, closes.user, True, False)
            took_s = time.monotonic() - stopped_s
            assert took_s < 1 + SLACK_S + busy_s(), "that was the deadline and not the stop"
            # Nobody hears of oneself, and the stop came before the message that caused it was forgotten.
            assert all(typing(one, one.user) == [] for one in everyone)


async def test_the_typists_node_is_killed_and_every_receiver_ends_it_by_itself(two: Servers) -> None:
    async with Stage(two) as stage:
        dying, other = stage.nodes
        reader = await stage.watch(other)
        typist, lost = await stage.open("typist", dying), await stage.open("lost", dying)
        await type_in(typist)
        await type_in(lost)
        await told(reader, "typist", True)
        await told(reader, "lost", True)
        started_s = time.monotonic()
        dying.kill()
        stage.lost(dying)
        # Who joins now is told who types; the node that joins the room late knows what it has heard.
        late = Peer("late")
        stage.peers.append(late)
        await late.connect(other.ws_url)
        stage.homes[late] = other
        joined = await late.join(ROOM, presence=True)
        assert sorted(joined["members"]["typing"]) == ["lost", "typist"]
        for one in (reader, late):
            expected = (True, False) if one is reader else (False,)
            await told(one, "typist", *expected)
            await told(one, "lost", *expected)
        took_s = time.monotonic() - started_s
        note("C36: typing ends after the typist's node was killed", took_s, "s")
        assert TYPING_S - 0.5 <= took_s <= TYPING_S + SLACK_S + busy_s()


async def test_a_stop_that_is_never_said_comes_after_six_seconds(two: Servers) -> None:
    """C36: and those who keep saying it keep typing."""
    async with Stage(two) as stage:
        typing_on, other = stage.nodes
        reader = await stage.watch(other)
        forgets, refreshes = await stage.open("forgets", typing_on), await stage.open("refreshes", typing_on)
        started_s = time.monotonic()
        await type_in(forgets)
        await type_in(refreshes)
        while time.monotonic() - started_s < TYPING_S:
            await asyncio.sleep(TYPING_S / 3 + 0.1)
            await type_in(refreshes)
        await told(reader, "forgets", True, False)
        assert False not in typing(reader, "refreshes")
        await type_in(refreshes, False)
        await reader.until(lambda: False in typing(reader, "refreshes"))


async def test_a_hundred_keystrokes_are_a_few_events(two: Servers) -> None:
    """Not more than one per second and user, over all tabs of a node, and the last word counts."""
    async with Stage(two) as stage:
        typing_on, other = stage.nodes
        reader = await stage.watch(other)
        tabs = [await stage.open("typist", typing_on) for _ in range(2)]
        started_s = time.monotonic()
        for stroke in range(100):
            await type_in(tabs[stroke % 2])
            await asyncio.sleep(0.02)
        await type_in(tabs[0], False)
        took_s = time.monotonic() - started_s
        await reader.until(lambda: typing(reader, "typist")[-1:] == [False])
        events = typing(reader, "typist")
        note("typing: events of 100 keystrokes", len(events), f"in {took_s:.1f} s")
        assert len(events) <= took_s / SAY_EVERY_S + 2
        assert events[-1] is False and events.count(False) == 1

"""B3: Redis crashes and comes back with an older snapshot, and the log goes on from there. Epoch and offsets look fine;
only the tags tell that the entries are others. Nobody may believe to have seen everything.

Beside the answer of the node stands what a check of epoch and offset alone (as others do it) would have said of the
very same history.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from functools import partial

import pytest
from roomcast_client import Ack, Message, Position, Reset

from tests.support.cluster import Cluster, cluster, reached
from tests.support.figures import note
from tests.support.peer import Peer

pytestmark = [pytest.mark.redis, pytest.mark.system]

ROOMS_PER_CRASH = 5


class History:
    """One room: somebody who stays connected, somebody who leaves before the crash and resumes after it."""

    def __init__(self, room: str, stays: Peer, leaves: Peer, draw: random.Random) -> None:
        self.room = room
        self.stays = stays
        self.leaves = leaves
        self.kept, self.lost, self.new = draw.randrange(20), draw.randrange(1, 101), draw.randrange(1, 151)

    async def publish(self, what: str, count: int) -> None:
        """So many messages, seen by whoever is in the room."""
        posts = [self.stays.post("message", room=self.room, data=f"{what}:{i}") for i in range(count)]
        ack = None
        for reply in [await post for post in posts]:
            assert reply["ok"], reply
            ack = Ack(reply["epoch"], reply["offset"], reply["tag"])
        for one in (self.stays, self.leaves):
            view = one.views[self.room]
            if ack is not None and view.live:
                await one.until(partial(reached, view, ack))

    def check_who_stayed(self) -> None:
        """Told once, and nothing is missing after the place that was told."""
        seen = self.stays.views[self.room].seen
        [told] = [i for i, event in enumerate(seen) if isinstance(event, Reset)]
        new = [event.data for event in seen[told + 1 :] if isinstance(event, Message)]
        assert new == [f"new:{i}" for i in range(seen[told].position.offset - self.kept, self.new)]

    def epoch_and_offset_say(self, world: Cluster, at: Position) -> bool:
        """Recovered, as Centrifugo's isStreamRecovered would judge: same epoch, and all offsets after it are there."""
        top = world.top(self.room)
        offsets = [entry.offset for entry in world.log(self.room) if entry.offset > at.offset]
        return at.epoch == top.epoch and at.offset <= top.offset and offsets == [*range(at.offset + 1, top.offset + 1)]

    def unseen(self, at: Position, seen: set[str], world: Cluster) -> int:
        """Entries up to this position that the one who left has never seen: the hole."""
        return sum(entry.tag not in seen for entry in world.log(self.room) if entry.offset <= at.offset)


async def crash(world: Cluster, number: int, draw: random.Random, counts: Counter[str]) -> None:
    """One crash under several rooms."""
    staying, leaving = [await world.peer(node) for node in world.nodes]
    histories = [History(f"r{number}-{i}", staying, leaving, draw) for i in range(ROOMS_PER_CRASH)]
    for history in histories:
        for one in (staying, leaving):
            assert (await one.join(history.room))["ok"]
        await history.publish("kept", history.kept)
    world.redis.command("SAVE")
    await asyncio.gather(*(history.publish("lost", history.lost) for history in histories))
    await leaving.abort()
    world.redis.restart()
    await world.all_ready()
    for history in histories:
        await history.publish("new", history.new)
        history.check_who_stayed()
    positions = {history.room: leaving.views[history.room].position for history in histories}
    tags = {event.position.tag for view in leaving.views.values() for event in view.seen}
    await leaving.connect(world.nodes[number % 2].ws_url)
    for history in histories:
        at = positions[history.room]
        reply = await leaving.join(history.room, at)
        counts["histories"] += 1
        counts["told"] += reply["recovered"] is False and reply["messages"] == []
        if history.epoch_and_offset_say(world, at):
            counts["silent holes of (epoch, offset)"] += history.unseen(at, tags, world) > 0
    for one in (staying, leaving):
        one.check()
        await one.close()


async def rollbacks(crashes: int, seed: int) -> None:
    draw = random.Random(seed)
    counts: Counter[str] = Counter()
    async with cluster(2, by_log=True) as world:
        for number in range(crashes):
            await crash(world, number, draw, counts)
    silent = counts["histories"] - counts["told"]
    note("B3 rollbacks: forked histories", counts["histories"], "")
    note("B3 rollbacks: silent holes", silent, "")
    note("B3 rollbacks: silent holes of (epoch, offset) alone", counts["silent holes of (epoch, offset)"], "")
    assert silent == 0
    assert counts["silent holes of (epoch, offset)"] > counts["histories"] / 4, "too tame to mean anything"


async def test_twenty_rolled_back_logs_are_all_told() -> None:
    await rollbacks(20 // ROOMS_PER_CRASH, seed=3)


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_five_hundred_rolled_back_logs_are_all_told() -> None:
    await rollbacks(500 // ROOMS_PER_CRASH, seed=33)

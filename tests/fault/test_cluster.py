"""B17 and B18: slots move, masters die or freeze, a master is added, and only the rooms concerned notice.

Publishers and members are in one room on each master, on two nodes; the other masters' rooms are the measure.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from broker.options import BrokerOptions
from broker.redis.broker import RedisBroker
from broker.redis.keys import CLUSTER_SHARDS, Keys
from tests.support.brokers import running
from tests.support.busy import busy_s
from tests.support.cluster import Cluster, Traffic, cluster
from tests.support.figures import note
from tests.support.redis_cluster import NODE_TIMEOUT_MS, RedisCluster
from tests.support.redis_server import RedisServer
from tests.support.waiting import eventually

pytestmark = [pytest.mark.system, pytest.mark.redis, pytest.mark.timeout(240)]

KEYS = Keys(shards=CLUSTER_SHARDS)
NOTICED_S = 5.0
"""After there is a new master. When there is one is the cluster's business."""
PATIENCE_S = 60.0
BLINK_S = 2.0
"""What rooms elsewhere may wait on a machine that is busy with other things. The outage itself takes about 3 s."""
QUIET_S = 2.0
"""For the figures of before."""


@pytest.fixture
def redis_cluster() -> Iterator[RedisCluster]:
    """One of its own: these tests are not gentle."""
    with RedisCluster() as redis_cluster:
        yield redis_cluster


def slot_of_room(room: str) -> int:
    return KEYS.slot(KEYS.shard(room))


def rooms_of_masters(redis_cluster: RedisCluster) -> list[str]:
    """One room on each, in the order of the masters."""
    rooms: dict[RedisServer, str] = {}
    number = 0
    while len(rooms) < len(redis_cluster.masters):
        number += 1
        rooms.setdefault(redis_cluster.owner(slot_of_room(f"room-{number}")), f"room-{number}")
    return [rooms[master] for master in redis_cluster.masters]


@asynccontextmanager
async def busy(world: Cluster, rooms: Sequence[str]) -> AsyncIterator[list[Traffic]]:
    """Traffic in all rooms, each with a member on every node."""
    async with AsyncExitStack() as stack:
        for room in rooms:
            await world.peers_everywhere(room)
        traffics = [await stack.enter_async_context(Traffic(world, room, 0.02).running()) for room in rooms]
        await asyncio.gather(*(traffic.progress() for traffic in traffics))
        yield traffics


def percentile(percent: int, traffics: Sequence[Traffic], since_s: float, until_s: float) -> float:
    took = sorted(seconds for traffic in traffics for at_s, seconds in traffic.took if since_s < at_s <= until_s)
    assert len(took) >= 50, "too few publishes to mean anything"
    return took[len(took) * percent // 100]


def judge_others(row: str, others: Sequence[Traffic], quiet_s: float, fault_s: float) -> None:
    """Rooms elsewhere are as quick as before. (A server that gets too little CPU can miss enough others to refuse
    for a moment, and so a refusal here is a figure and no failure.)"""
    now_s = time.monotonic()
    for percent in (50, 99):
        ratio = percentile(percent, others, fault_s, now_s) / percentile(percent, others, quiet_s, fault_s)
        note(f"{row}: p{percent} of other masters' rooms, ratio to before", ratio, "x")
        assert percent > 50 or ratio < 5
    note(f"{row}: longest time without an ack in other masters' rooms", max(o.outage_s(fault_s) for o in others), "s")
    note(f"{row}: refused in other masters' rooms", sum(len(other.refused) for other in others), "")
    assert max(other.outage_s(fault_s) for other in others) < BLINK_S + busy_s()


async def presence_is_exact(world: Cluster, rooms: Sequence[str]) -> None:
    """Everywhere and in the rooms, exactly those who are connected; as somebody sees it who asks the cluster."""
    assert isinstance(world.beyond, RedisCluster)
    scopes: dict[str | None, set[str]] = {None: {f'"{one.user}"' for one in world.peers}}
    scopes |= {room: {f'"{one.user}"' for one in world.members(room)} for room in rooms}
    looking = RedisBroker(world.beyond.url, node_id="looking", options=BrokerOptions(visitor=True))
    async with running(looking):

        async def exact() -> bool:
            return all([(await looking.presence.roster(room)).users == users for room, users in scopes.items()])

        _: bool = await eventually(exact, PATIENCE_S)


@pytest.mark.parametrize("how", ["killed", pytest.param("frozen", marks=pytest.mark.slow)])
async def test_b18_a_master_that_is_away_costs_its_own_rooms_seconds_and_the_others_nothing(
    redis_cluster: RedisCluster, how: str
) -> None:
    row = f"B18 master {how}"
    hit, *others = await asyncio.to_thread(rooms_of_masters, redis_cluster)
    async with cluster(2, beyond=redis_cluster, by_log=True) as world, busy(world, [hit, *others]) as traffics:
        quiet_s = time.monotonic()
        await asyncio.sleep(QUIET_S)
        master, replica = redis_cluster.masters[0], redis_cluster.replicas[0]
        fault_s = time.monotonic()
        master.kill() if how == "killed" else master.pause()
        await asyncio.to_thread(redis_cluster.promoted, replica)
        promoted_s = time.monotonic() - fault_s
        note(f"{row}: promoted after", promoted_s, "s")
        await traffics[0].progress(20, PATIENCE_S)
        outage_s = traffics[0].outage_s(fault_s)
        note(f"{row}: longest time without an ack in its rooms", outage_s, "s")
        judge_others(row, traffics[1:], quiet_s, fault_s)
        assert NODE_TIMEOUT_MS / 1000 < outage_s < promoted_s + NOTICED_S + busy_s()
        master.resume() if how == "frozen" else master.start()
        await asyncio.to_thread(redis_cluster.settled)
        await world.healed(row, hit, fault_s, PATIENCE_S)
        await presence_is_exact(world, [hit, *others])


async def test_b17_a_hot_room_moves_while_everybody_writes_and_nobody_is_reset(redis_cluster: RedisCluster) -> None:
    hot, *others = await asyncio.to_thread(rooms_of_masters, redis_cluster)
    async with cluster(2, beyond=redis_cluster) as world, busy(world, [hot, *others]) as traffics:
        slot = slot_of_room(hot)
        quiet_s = time.monotonic()
        await asyncio.sleep(QUIET_S)
        fault_s = time.monotonic()
        for target in (1, 2, 0):  # round, and home again
            await asyncio.to_thread(redis_cluster.move_slot, slot, redis_cluster.masters[target])
            await traffics[0].progress(30, PATIENCE_S)
        note("B17 slot of a hot room moves: longest time without an ack", traffics[0].outage_s(fault_s), "s")
        judge_others("B17 slot of a hot room moves", traffics[1:], quiet_s, fault_s)
        assert [traffic.resets.count(0) for traffic in traffics] == [4, 4, 4]


async def test_b17_a_master_is_added_and_takes_slots_under_load(redis_cluster: RedisCluster) -> None:
    rooms = await asyncio.to_thread(rooms_of_masters, redis_cluster)
    async with cluster(2, beyond=redis_cluster) as world, busy(world, rooms) as traffics:
        start_s = time.monotonic()
        new = await asyncio.to_thread(redis_cluster.add_master)
        for room in rooms:
            await asyncio.to_thread(redis_cluster.move_slot, slot_of_room(room), new)
        await asyncio.gather(*(traffic.progress(30, PATIENCE_S) for traffic in traffics))
        assert await asyncio.to_thread(redis_cluster.owner, slot_of_room(rooms[2])) is new
        note("B17 a master is added: longest time without an ack", max(t.outage_s(start_s) for t in traffics), "s")
        assert [traffic.resets.count(0) for traffic in traffics] == [4, 4, 4]

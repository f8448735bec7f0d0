"""A cluster whose slots move and whose masters go away, seen from one broker."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from typing import Any

import pytest

from broker.base import BrokerError, Change, Dedup, History, Position, Unavailable
from broker.options import BrokerOptions
from broker.redis.broker import RedisBroker
from broker.redis.keys import CLUSTER_SHARDS, Keys
from tests.support.brokers import running
from tests.support.redis_cluster import RedisCluster
from tests.support.redis_server import RedisServer
from tests.support.waiting import eventually

pytestmark = pytest.mark.redis

HISTORY = History(max_entries=5000)
HEARTBEAT_S = 1.0
ROOM = "r"


@pytest.fixture(scope="module")
def masters() -> Iterator[RedisCluster]:
    """Without replicas, for what only moves slots."""
    with RedisCluster(replicas=False) as cluster:
        yield cluster


@pytest.fixture
def fragile() -> Iterator[RedisCluster]:
    """One of its own, to break."""
    with RedisCluster(replicas=False) as cluster:
        yield cluster


class Names(Keys):
    def __init__(self, prefix: str) -> None:
        super().__init__(prefix, CLUSTER_SHARDS)

    def slot_of_room(self, room: str = ROOM) -> int:
        return self.slot(self.shard(room))

    def room_elsewhere(self, cluster: RedisCluster, than: str = ROOM) -> str:
        """A room on another master."""
        here = cluster.owner(self.slot_of_room(than))
        rooms = (f"else-{number}" for number in range(1000))
        return next(room for room in rooms if cluster.owner(self.slot_of_room(room)) is not here)


def broker(url: str, prefix: str, node_id: str = "a", **changes: Any) -> RedisBroker:
    scaled: dict[str, Any] = {"heartbeat_s": HEARTBEAT_S, "lease_s": 4, "grace_s": 1, "unavailable_after_s": 5}
    return RedisBroker(url, node_id=node_id, options=BrokerOptions(prefix=prefix, **(scaled | changes)))


def another(cluster: RedisCluster, server: RedisServer) -> RedisServer:
    return next(each for each in cluster.masters if each is not server)


async def moved(cluster: RedisCluster, slot: int) -> int:
    """Move it to another master; the number of keys."""
    target = another(cluster, cluster.owner(slot))
    return await asyncio.to_thread(cluster.move_slot, slot, target, batch=1)


async def test_publishes_keep_their_order_and_none_fails_while_the_slot_moves(
    masters: RedisCluster, prefix: str
) -> None:
    names = Names(prefix)
    async with running(broker(masters.url, prefix)) as a:
        await a.broker.subscribe(f"room:{ROOM}")
        futures: list[asyncio.Future[Position]] = []
        for round_ in range(3):
            moving = asyncio.ensure_future(moved(masters, names.slot_of_room()))
            while not moving.done():
                key = f"{round_}-{len(futures)}"
                futures.append(a.broker.append(ROOM, b"%d" % len(futures), history=HISTORY, dedup=Dedup("s", key)))
                await asyncio.sleep(random.uniform(0, 0.002))
            await moving
            await a.sink.wait_for(lambda: len(a.sink.events) > round_)  # noqa: B023  # waited for in this very round
        positions = await asyncio.gather(*futures)
        assert [position.offset for position in positions] == list(range(1, len(futures) + 1))
        entries = (await a.broker.read(ROOM, 0, 5000)).entries
        assert [entry.payload for entry in entries] == [b"%d" % number for number in range(len(futures))]
        assert a.broker.stats.unavailable == a.broker.stats.outcomes_unknown == 0
        assert a.sink.names() == ["resubscribed"] * 3 and a.broker.stats.reconnects == 0


async def test_only_the_channels_of_the_slot_that_moved_are_doubted(masters: RedisCluster, prefix: str) -> None:
    names = Names(prefix)
    same_shard = next(f"x{n}" for n in range(10_000) if names.shard(f"x{n}") == names.shard(ROOM))
    elsewhere = names.room_elsewhere(masters)
    async with running(broker(masters.url, prefix)) as a, running(broker(masters.url, prefix, "b")) as b:
        for room in (ROOM, same_shard, elsewhere):
            await a.broker.subscribe(f"room:{room}")
        await a.broker.append(ROOM, b"before", history=HISTORY)
        await moved(masters, names.slot_of_room())
        await a.sink.wait_for(lambda: a.sink.events)
        assert a.sink.events == [("resubscribed", sorted([f"room:{ROOM}", f"room:{same_shard}"]))]
        for room in (ROOM, same_shard, elsewhere):
            await b.broker.append(room, b"after", history=HISTORY)
            await a.sink.wait_for(lambda room=room: b"after" in a.sink.payloads(f"room:{room}"))  # type: ignore[misc]
        await a.broker.unsubscribe(f"room:{ROOM}")
        owner = await asyncio.to_thread(masters.owner, names.slot_of_room())
        await eventually(lambda: owner.subscribers(names.channel(f"room:{ROOM}"), sharded=True) == 0)


async def test_subscriptions_that_come_and_go_while_their_slot_moves_confuse_nobody(
    masters: RedisCluster, prefix: str
) -> None:
    names = Names(prefix)
    rooms = [room for room in (f"c{n}" for n in range(5000)) if names.shard(room) == names.shard(ROOM)][:40]
    async with running(broker(masters.url, prefix)) as a:
        over = asyncio.Event()

        async def come_and_go(room: str) -> None:
            while not over.is_set():
                await a.broker.subscribe(f"room:{room}")
                await a.broker.unsubscribe(f"room:{room}")

        changing = [asyncio.ensure_future(come_and_go(room)) for room in rooms]
        for _ in range(15):
            await moved(masters, names.slot_of_room())
            await asyncio.sleep(0.06)
        over.set()
        await asyncio.gather(*changing)
        await a.broker.subscribe(f"room:{ROOM}")
        await a.broker.append(ROOM, b"x", history=HISTORY)
        await a.sink.wait_count(f"room:{ROOM}", 1)
        stats = a.broker.stats
        assert stats.reader_restarts == stats.task_restarts == stats.reconnects == 0


async def test_a_slot_that_hangs_between_two_masters_is_down_for_itself_and_nothing_is_torn(
    masters: RedisCluster, prefix: str
) -> None:
    names = Names(prefix)
    elsewhere = names.room_elsewhere(masters)
    async with running(broker(masters.url, prefix, unavailable_after_s=0.3)) as a:
        await a.broker.subscribe(f"room:{ROOM}")
        before = await a.broker.append(ROOM, b"x", history=HISTORY)
        slot = names.slot_of_room()
        source = masters.owner(slot)
        target = another(masters, source)
        target.command("CLUSTER", "SETSLOT", slot, "IMPORTING", masters.id(source))
        source.command("CLUSTER", "SETSLOT", slot, "MIGRATING", masters.id(target))
        refused = a.broker.append(ROOM, b"y", history=History(max_entries=0))  # would delete the log and go on
        with pytest.raises(Unavailable):
            await refused
        with pytest.raises(Unavailable, match="moving the keys"):
            await a.broker.read(ROOM, 0, 10)
        await a.sink.wait_for(lambda: a.sink.names() == ["interrupted"])
        assert a.broker.ready, "of the other shards"
        assert (await a.broker.append(elsewhere, b"z", history=HISTORY)).offset == 1
        for server in (source, target):
            server.command("CLUSTER", "SETSLOT", slot, "STABLE")
        await a.sink.wait_for(lambda: a.sink.names() == ["interrupted", "restored"])
        page = await a.broker.read(ROOM, 0, 10)
        assert page.top == before and len(page.entries) == 1


async def test_presence_moves_with_its_shard_and_nobody_is_told_anything(masters: RedisCluster, prefix: str) -> None:
    names = Names(prefix)
    users = [str(number) for number in range(200)]
    async with running(broker(masters.url, prefix)) as a, running(broker(masters.url, prefix, "b")) as b:
        await b.broker.subscribe("presence")
        for user in users:
            a.broker.presence.set_count(user, None, 1)
            a.broker.presence.set_count(user, ROOM, 1)
        await b.sink.wait_count("presence", len(users))
        for user in ("7", "8"):
            await moved(masters, names.slot(names.shard(user)))
        await moved(masters, names.slot_of_room())
        await b.sink.wait_for(lambda: "resubscribed" in b.sink.names())
        await b.broker.subscribe("presence")  # returns when all of it is confirmed again
        assert await b.broker.presence.online("7")
        a.broker.presence.set_count("8", None, 0)
        await b.sink.wait_for(lambda: len(b.sink.of("presence")) == len(users) + 1)
        last = b.sink.of("presence")[-1]
        assert isinstance(last, Change) and (last.user, last.online) == ("8", False)
        assert (await b.broker.presence.roster(None)).users == {*users} - {"8"}
        assert (await b.broker.presence.roster(ROOM)).users == {*users}


async def test_any_server_of_the_cluster_will_do_to_find_it(redis_cluster: RedisCluster, prefix: str) -> None:
    for port in (redis_cluster.replicas[2].port, redis_cluster.masters[1].port):
        url = f"redis+cluster://127.0.0.1:1,127.0.0.1:{port}"
        async with running(broker(url, prefix)) as a:
            assert (await a.broker.append(ROOM, b"", history=HISTORY)).offset


async def test_a_server_that_is_of_no_cluster_says_so_and_one_of_a_cluster_too(
    redis_server: RedisServer, redis_cluster: RedisCluster, prefix: str
) -> None:
    url = f"redis+cluster://127.0.0.1:{redis_server.port}"
    async with running(broker(url, prefix, unavailable_after_s=0.2), wait_ready=False) as a:
        await a.sink.wait_for(lambda: a.sink.events)
        assert "cluster support disabled" in a.broker.reason
        with pytest.raises(Unavailable, match="not known yet"):
            await a.broker.read(ROOM, 0, 1)
    async with running(broker(redis_cluster.masters[0].url, prefix), wait_ready=False) as a:
        await a.sink.wait_for(lambda: a.sink.events)
        assert "write redis+cluster://" in a.broker.reason


async def test_scripts_are_loaded_where_they_are_missing(masters: RedisCluster, prefix: str) -> None:
    async with running(broker(masters.url, prefix)) as a:
        for server in masters.masters:
            server.command("SCRIPT", "FLUSH")
        positions = await asyncio.gather(*(a.broker.append(f"r{n}", b"", history=HISTORY) for n in range(200)))
        assert {position.offset for position in positions} == {1}
        assert len(await a.broker.tops([f"r{n}" for n in range(200)])) == 200
        assert a.broker.stats.noscript >= 3


async def test_publishes_of_all_shards_together_are_bounded(masters: RedisCluster, prefix: str) -> None:
    async with running(broker(masters.url, prefix, max_waiting_publishes=100)) as a:
        futures = [a.broker.append(f"r{n}", b"", history=HISTORY) for n in range(150)]
        results = await asyncio.gather(*futures, return_exceptions=True)
        assert sum(isinstance(result, Position) for result in results) == 100
        assert sum(isinstance(result, Unavailable) for result in results) == 50


async def test_one_master_less_is_an_interruption_and_two_are_not_ready(fragile: RedisCluster, prefix: str) -> None:
    names = Names(prefix)
    rooms = {fragile.owner(names.slot_of_room(f"r{n}")): f"r{n}" for n in range(100)}
    async with running(broker(fragile.url, prefix, unavailable_after_s=0.3, backoff_max_s=0.4)) as a:
        first, second, third = fragile.masters
        first.pause()
        await a.sink.wait_for(lambda: a.sink.names() == ["interrupted"])
        assert a.broker.ready and a.broker.reason == ""
        with pytest.raises(BrokerError):
            await a.broker.append(rooms[first], b"", history=HISTORY)
        await a.broker.append(rooms[third], b"", history=HISTORY)
        second.pause()
        await eventually(lambda: not a.broker.ready)
        assert f"{second.port}" in a.broker.reason or f"{first.port}" in a.broker.reason
        assert a.sink.names() == ["interrupted"], "once per outage"
        first.resume()
        second.resume()
        await a.sink.wait_for(lambda: a.sink.names() == ["interrupted", "restored"], 15)
        assert a.broker.ready
        await a.broker.append(rooms[first], b"", history=HISTORY)


async def test_a_node_that_starts_beside_a_dead_master_serves_the_others(fragile: RedisCluster, prefix: str) -> None:
    names = Names(prefix)
    dead = fragile.masters[2]
    rooms = {fragile.owner(names.slot_of_room(f"r{n}")): f"r{n}" for n in range(100)}
    dead.kill()
    async with running(broker(fragile.url, prefix, unavailable_after_s=0.3, backoff_max_s=0.4)) as a:
        await a.broker.append(rooms[fragile.masters[0]], b"", history=HISTORY)
        with pytest.raises(Unavailable):
            await a.broker.subscribe(f"room:{rooms[dead]}")
        with pytest.raises(Unavailable):
            await a.broker.subscribe("presence")
        await asyncio.to_thread(dead.start)
        await a.sink.wait_for(lambda: a.sink.names() == ["interrupted", "restored"], 15)
        await a.broker.subscribe("presence")
        a.broker.presence.set_count("1", rooms[dead], 1)
        await a.broker.subscribe(f"room:{rooms[dead]}")
        await eventually(lambda: a.broker.presence.roster(rooms[dead]))


async def test_a_master_that_gave_up_all_its_slots_is_not_connected_any_more(
    fragile: RedisCluster, prefix: str
) -> None:
    names = Names(prefix)
    async with running(broker(fragile.url, prefix)) as a:
        source, target = fragile.masters[0], fragile.masters[1]
        for shard in range(CLUSTER_SHARDS):
            if await asyncio.to_thread(fragile.owner, names.slot(shard)) is source:
                await asyncio.to_thread(fragile.move_slot, names.slot(shard), target)
        await eventually(lambda: not [c for c in source.client.client_list() if c["name"].startswith(f"{prefix}:a:")])
        assert a.broker.ready and "interrupted" not in a.sink.names()


async def test_a_node_whose_first_heartbeats_are_refused_is_ready_with_the_next(prefix: str) -> None:
    """One refusal is not yet an outage, so nothing would call it over either: a node that starts while a cluster is
    still forming."""
    with RedisCluster(1, replicas=False, cluster_require_full_coverage="yes") as cluster:
        [server] = cluster.servers
        server.command("CLUSTER", "DELSLOTS", 0)
        await eventually(lambda: cluster.state(server)["cluster_state"] == "fail")

        def refusals() -> int:
            return int(server.info("errorstats").get("errorstat_CLUSTERDOWN", {"count": 0})["count"])

        starting = broker(cluster.url, prefix, heartbeat_s=5.0, lease_s=20.0)
        async with running(starting, wait_ready=False) as a:
            await eventually(lambda: refusals() == CLUSTER_SHARDS)
            assert not a.broker.ready
            server.command("CLUSTER", "ADDSLOTS", 0)
            await a.sink.in_time(a.broker.wait_ready(), 15)
            await a.broker.append(ROOM, b"x", history=HISTORY)
            assert refusals() == CLUSTER_SHARDS, "each shard was refused once"
            assert a.sink.events == []

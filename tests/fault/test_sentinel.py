"""B15, B16 and B19: the master that sentinels watch dies, is cut off, steps down. Real nodes, real sentinels.

The replication of Redis is asynchronous: what the new master has not got is lost. Then the members are told so.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack

import pytest

from tests.support.busy import busy_s
from tests.support.cluster import Traffic, cluster
from tests.support.figures import note
from tests.support.redis_sentinel import RedisSentinels
from tests.support.redis_server import RedisServer
from tests.support.tcp_proxy import TcpProxy

pytestmark = [pytest.mark.system, pytest.mark.redis, pytest.mark.timeout(240)]

ROOM = "lobby"
NOTICED_S = 5.0
"""After there is a new master that takes writes. When there is one is the sentinels' business, and on a busy machine
takes them long."""
PATIENCE_S = 60.0


@pytest.fixture
def sentinels() -> Iterator[RedisSentinels]:
    with RedisSentinels(min_replicas_to_write="1", min_replicas_max_lag="2") as sentinels:
        yield sentinels


def cut_off_replicas(sentinels: RedisSentinels, master: RedisServer) -> None:
    """They lose the master and may not log in again: from now on nothing is replicated."""
    for replica in sentinels.replicas:
        replica.command("CONFIG", "SET", "masterauth", "wrong")
    master.command("CLIENT", "KILL", "TYPE", "replica")


def let_replicas_in(sentinels: RedisSentinels) -> None:
    for server in sentinels.servers:
        if server.process is not None:
            server.command("CONFIG", "SET", "masterauth", "")


def isolate(master: RedisServer, node_id: str) -> None:
    """Nobody but this node (and this test) is heard by it from now on."""
    master.command("CONFIG", "SET", "requirepass", "nobody")
    for client in master.client.client_list():
        if client["name"] != "test" and not client["name"].startswith(f"roomcast:{node_id}:"):
            master.command("CLIENT", "KILL", "ID", client["id"])


async def test_b15_a_killed_master_costs_seconds_and_nothing_is_lost_in_silence(sentinels: RedisSentinels) -> None:
    async with cluster(2, beyond=sentinels, by_log=True) as world:
        await world.peers_everywhere(ROOM)
        async with Traffic(world, ROOM).running() as traffic:
            await traffic.progress()
            old = await asyncio.to_thread(lambda: sentinels.master)
            killed_s = time.monotonic()
            with sentinels.watched() as unwritable_s:
                old.kill()
                await asyncio.to_thread(sentinels.promoted, old)
                note("B15 master killed: promoted after", time.monotonic() - killed_s, "s")
                await traffic.progress(20, PATIENCE_S)
                outage_s = traffic.outage_s(killed_s)
                writable_s = unwritable_s() - killed_s
            note("B15 master killed: a master takes writes after", writable_s, "s")
            note("B15 master killed: longest time without an ack", outage_s, "s")
            assert outage_s < writable_s + NOTICED_S + busy_s()
            await world.healed("B15 master killed", ROOM, killed_s, PATIENCE_S)


async def test_b15_a_tail_that_was_never_replicated_is_told_as_a_reset_to_every_member(
    sentinels: RedisSentinels,
) -> None:
    async with cluster(2, beyond=sentinels, by_log=True) as world:
        peers = await world.peers_everywhere(ROOM)
        await world.said(peers[0], ROOM)
        old = await asyncio.to_thread(lambda: sentinels.master)
        old.command("CONFIG", "SET", "min-replicas-to-write", "0")  # else it refuses, which the next test is about
        await asyncio.to_thread(cut_off_replicas, sentinels, old)
        for number in range(10):
            await world.everybody_got(ROOM, await world.said(peers[0], ROOM, f"lost:{number}"))
        old.kill()
        await asyncio.to_thread(sentinels.promoted, old)
        await asyncio.to_thread(let_replicas_in, sentinels)
        for number in range(20):  # numbers that the lost ones had, and more
            await world.said(peers[1], ROOM, f"kept:{number}", timeout_s=PATIENCE_S)
        await world.all_ready()
        for one in peers:
            await one.until(lambda one=one: one.views[ROOM].resets == 1, PATIENCE_S)  # type: ignore[misc]


@pytest.mark.parametrize("limited", [True, False], ids=["with min-replicas-to-write", "without"])
async def test_b16_a_master_cut_off_with_a_node_writes_nothing_that_lasts(
    sentinels: RedisSentinels, limited: bool
) -> None:
    """The node of the minority reaches the old master alone: nobody else can log in there, and its way to the
    sentinels is cut. With ``min-replicas-to-write`` its writes fail; without, they are lost in the end, and told so."""
    row = f"B16 split brain {'with' if limited else 'without'} min-replicas-to-write"
    async with AsyncExitStack() as stack:
        proxies = [await stack.enter_async_context(TcpProxy(s.port).running()) for s in sentinels.sentinels]
        ways = ",".join(f"127.0.0.1:{proxy.port}" for proxy in proxies)
        urls = [f"redis+sentinel://{ways}/main", sentinels.url]
        world = await stack.enter_async_context(cluster(2, beyond=sentinels, broker=urls, by_log=True))
        alone, other = await world.peers_everywhere(ROOM)
        await world.everybody_got(ROOM, await world.said(other, ROOM))
        old = await asyncio.to_thread(lambda: sentinels.master)
        node_id = json.loads(world.nodes[0].get("/readyz")[1])["node"]
        if not limited:
            old.command("CONFIG", "SET", "min-replicas-to-write", "0")
        for proxy in proxies:
            proxy.hold_up()
        await asyncio.to_thread(isolate, old, node_id)
        cut_s = time.monotonic()
        if limited:
            reason = await world.unready(world.nodes[0], "replicas", PATIENCE_S)
            note(f"{row}: the node of the minority is not ready after", time.monotonic() - cut_s, "s")
            assert "should not be the master" in reason and alone.told("degraded") == 1
        reply = await alone.ask("message", room=ROOM, data="on the wrong side", key="w")
        assert reply["ok"] is not limited
        await world.said(other, ROOM, "on the right side", timeout_s=PATIENCE_S)
        note(f"{row}: the majority writes again after", time.monotonic() - cut_s, "s")
        old.command("CONFIG", "SET", "requirepass", "")
        healed_s = time.monotonic()
        for proxy in proxies:
            proxy.release()
        if not limited:  # until then the old master acknowledges what nobody will see
            await alone.until(lambda: alone.views[ROOM].resets, PATIENCE_S)
        await world.healed(row, ROOM, healed_s, PATIENCE_S)
        assert (alone.views[ROOM].resets == 0) is limited
        assert other.views[ROOM].resets == 0


async def test_b19_a_master_that_steps_down_is_left_for_the_one_that_takes_over(sentinels: RedisSentinels) -> None:
    async with cluster(2, beyond=sentinels, by_log=True) as world:
        await world.peers_everywhere(ROOM)
        async with Traffic(world, ROOM).running() as traffic:
            await traffic.progress()
            old = await asyncio.to_thread(lambda: sentinels.master)
            start_s = time.monotonic()
            sentinels.sentinels[0].command("SENTINEL", "FAILOVER", "main")
            await asyncio.to_thread(sentinels.promoted, old)
            await traffic.progress(20, PATIENCE_S)
            await world.healed("B19 master steps down", ROOM, start_s, PATIENCE_S)
            note("B19 master steps down: longest time without an ack", traffic.outage_s(start_s), "s")
            await asyncio.sleep(max(0, start_s + 5.2 - time.monotonic()))
            age = "roomcast_broker_probe_age_seconds"
            ages = [await asyncio.to_thread(node.metric, age) for node in world.nodes]
            assert max(ages) < 3 < 5 < time.monotonic() - start_s, "the old master's last probe says nothing any more"

"""What clients notice when the way between nodes and Redis breaks: rows A17, B8 to B11, B21, B22 and B24 of the fault
catalogue. Redis keeps its data, so nobody may miss, repeat or misorder anything, and nobody is told of a reset.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable

import pytest

from broker.redis.keys import Keys
from tests.support.busy import busy_s
from tests.support.cluster import SLACK_S, UNAVAILABLE_S, Cluster, Traffic, cluster
from tests.support.figures import note
from tests.support.namespaces import private_network
from tests.support.redis_server import RedisServer
from tests.support.tcp_proxy import TcpProxy
from tests.support.waiting import eventually

pytestmark = [pytest.mark.redis, pytest.mark.system]


@pytest.mark.parametrize("kind", ["pubsub", "normal"])
async def test_killed_connections_cost_nobody_a_message(kind: str) -> None:
    """B8, B9: every ack names the place where all members see that very message."""
    row = "B8 pub/sub connections killed" if kind == "pubsub" else "B9 command connections killed"
    async with cluster(2) as world, Traffic(world, "r").running() as traffic:
        for _ in range(4):
            await traffic.progress()
            killed_s = time.monotonic()
            world.redis.command("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")
            await world.healed(row, "r", killed_s)
        assert traffic.resets == [0, 0]
        for one in world.members("r"):
            assert one.told("degraded") == one.told("restored") >= 1
        assert all(node.metric("roomcast_broker_reconnects_total") >= 1 for node in world.nodes)


@pytest.mark.slow
@pytest.mark.timeout(120)
async def test_subscribers_killed_every_three_seconds_for_a_minute_cost_nobody_a_message() -> None:
    """B8 as the catalogue has it."""
    async with cluster(2) as world, Traffic(world, "r", every_s=0.001).running() as traffic:
        for _ in range(20):
            killed_s = time.monotonic()
            world.redis.command("CLIENT", "KILL", "TYPE", "pubsub")
            await world.healed("B8 pub/sub connections killed, for a minute", "r", killed_s)
            await asyncio.sleep(max(0.0, killed_s + 3 - time.monotonic()))
        assert traffic.resets == [0, 0] and traffic.acked > 2000


async def test_a_reader_that_dies_is_built_again_within_a_second() -> None:
    """A17: an answer nobody asked for breaks the reader's book-keeping, as an error of our own would."""
    with RedisServer() as server:
        async with (
            TcpProxy(server.port).running() as proxy,
            cluster(1, redis_server=server, broker=proxy.url, allowed=["reader of a Redis connection"]) as world,
            Traffic(world, "r").running() as traffic,
        ):
            [node] = world.nodes
            for deaths in range(1, 4):
                await traffic.progress()
                died_s = time.monotonic()
                proxy.inject(proxy.accepted, b":1\r\n")  # the subscriber's is always the last one
                await eventually(lambda count=deaths: node.metric("roomcast_broker_reader_restarts_total") >= count)  # type: ignore[misc]
                assert await world.healed("A17 reader dies", "r", died_s) < 1 + SLACK_S + busy_s()
            assert traffic.resets == [0]


async def test_an_overflowing_output_buffer_costs_a_connection_and_no_message() -> None:
    """B10: Redis throws out a subscriber that does not read fast enough."""
    async with cluster(2) as world:
        sender, other = await world.peers_everywhere("r")
        slow = world.nodes[1]
        world.redis.command("CONFIG", "SET", "client-output-buffer-limit", "pubsub 1mb 512kb 5")
        slow.pause()
        try:
            for i in range(100):
                await world.said(sender, "r", f"{i}:" + "x" * 60_000)
            assert len(world.redis.client.client_list(_type="pubsub")) <= 1
        finally:
            slow.resume()
        flooded_s = time.monotonic()
        await world.healed("B10 output buffer overflow", "r", flooded_s)
        reconnects = slow.metric("roomcast_broker_reconnects_total")
        assert 1 <= reconnects <= 2 + (time.monotonic() - flooded_s), "one a second at most, and its other link's"
        assert world.nodes[0].metric("roomcast_broker_reconnects_total") == 0
        for one in (sender, other):
            assert [data.partition(":")[0] for data in one.views["r"].data[:100]] == [str(i) for i in range(100)]
            assert one.views["r"].resets == 0


async def test_a_lost_script_cache_fails_no_publish() -> None:
    """B11, T5."""
    async with cluster(2) as world, Traffic(world, "r", every_s=0.002).running() as traffic:
        for _ in range(10):
            await traffic.progress(10)
            world.redis.command("SCRIPT", "FLUSH")
        flushed_s = time.monotonic()
        await world.healed("B11 script cache lost", "r", flushed_s)
        assert traffic.refused == [] and traffic.resets == [0, 0]
        assert sum(node.metric("roomcast_broker_script_reloads_total") for node in world.nodes) >= 5


async def test_connections_cut_at_any_byte_cost_nobody_a_message() -> None:
    """T2: in the middle of replies and of what is delivered, in small pieces."""
    draw = random.Random(2)
    with RedisServer() as server:
        async with (
            TcpProxy(server.port).running() as proxy,
            cluster(
                2,
                redis_server=server,
                broker=[proxy.url, server.url],
                settings={"history": "*=20000"},  # more than the other node's traffic while this one backs off
            ) as world,
            Traffic(world, "r", every_s=0.005).running() as traffic,
        ):
            for number in range(8):
                proxy.chunk = draw.choice([7, 100, 65536])
                proxy.cut_after(draw.randrange(1, 5000))
                await eventually(lambda count=number: proxy.accepted > 2 + count, 10)  # type: ignore[misc]
                proxy.cut_after(None)
                await traffic.progress(10)
            proxy.chunk = 65536
            await world.healed("T2 cut at random bytes", "r", time.monotonic())
            assert traffic.resets == [0, 0]


async def test_a_half_open_connection_is_noticed_and_costs_nobody_a_message() -> None:
    """B22: packets vanish both ways; the other node goes on."""
    with private_network() as network, RedisServer() as server:
        async with cluster(2, redis_server=server, broker=[server.tcp_url, server.url]) as world:
            await half_open(world, lambda: network.drop(server.port), network.heal)


async def test_a_half_open_connection_behind_a_proxy_is_noticed_too() -> None:
    """B22, where nobody is root: the proxy's kernel still answers."""
    with RedisServer() as server:
        async with (
            TcpProxy(server.port).running() as proxy,
            cluster(2, redis_server=server, broker=[proxy.url, server.url]) as world,
        ):

            def hold() -> None:
                proxy.hold_up()
                proxy.hold_down()

            await half_open(world, hold, proxy.release)


async def test_a_lossy_slow_link_to_redis_costs_nobody_a_message() -> None:
    """B21: every twentieth packet is lost, every answer is 50 ms late each way."""
    with private_network() as network, RedisServer() as server:
        async with (
            TcpProxy(server.port).running() as proxy,
            cluster(
                2,
                redis_server=server,
                broker=[proxy.url, server.url],
                settings={"heartbeat_s": 2, "lease_s": 8},  # a lost packet costs 0.2 s, a tenth of this
            ) as world,
            Traffic(world, "r").running() as traffic,
        ):
            proxy.delay_s = 0.05
            network.lose(proxy.port, 0.05)
            lossy_s = time.monotonic()
            await traffic.progress(200)
            await world.healed("B21 lossy link (still lossy)", "r", lossy_s)
            network.heal()
            assert traffic.resets == [0, 0]


async def test_foreign_bytes_on_a_room_s_channel_reach_nobody() -> None:
    """B24."""
    async with cluster(2) as world, Traffic(world, "r").running() as traffic:
        await traffic.progress()
        for data in (b"", b"garbage", b"\x01\x95\x01", b'{"op":"message"}', b"\x01\xdd" + b"\xff" * 4, bytes(100_000)):
            world.redis.command("PUBLISH", Keys().channel("room:r"), data)
        await world.healed("B24 foreign bytes", "r", time.monotonic())
        for node in world.nodes:
            assert node.metric("roomcast_broker_foreign_items_total") == 6
            assert node.metric("roomcast_broker_reconnects_total") == 0
        assert traffic.refused == [] and traffic.resets == [0, 0]


async def half_open(world: Cluster, begin: Callable[[], None], end: Callable[[], None]) -> None:
    """The first node is cut off without being told; the second is not."""
    cut_off, fine = world.nodes
    async with Traffic(world, "r").running() as traffic:
        await traffic.progress()
        lonely = await world.peer(cut_off, "r")
        begin()
        begun_s = time.monotonic()
        await lonely.until(lambda: lonely.told("degraded"), world.noticed_s)
        note("B22 half-open: noticed after", time.monotonic() - begun_s, "s")
        await world.unready(cut_off)
        assert (
            cut_off.metric("roomcast_broker_ready") == 0 and cut_off.metric("roomcast_broker_probes_missed_total") >= 2
        )
        assert cut_off.metric("roomcast_broker_probe_age_seconds") > 0.4 and fine.metric("roomcast_broker_ready") == 1
        reply, seconds = await lonely.timed("message", room="r", data="nowhere")
        assert (reply["ok"], reply["code"]) == (False, "unavailable") and seconds < UNAVAILABLE_S + SLACK_S + busy_s()
        reply, seconds = await lonely.timed("join", room="elsewhere")
        assert (reply["ok"], reply["code"]) == (False, "unavailable") and seconds < UNAVAILABLE_S + SLACK_S + busy_s()
        behind = lonely.views["r"].position
        await world.said(await world.peer(fine, "r"), "r")
        assert lonely.views["r"].position == behind
        end()
        ended_s = time.monotonic()
        await world.healed("B22 half-open", "r", ended_s)
        assert lonely.told("degraded") == lonely.told("restored") == 1
        assert set(traffic.resets) == {0}

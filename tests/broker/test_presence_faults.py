"""What presence does when Redis, the way to it or a node fails: real brokers, a real server, exact events.

``quiet`` is what users are promised: after LEASE + 3 heartbeats + grace without a fault the visible set is exact.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest

from broker.base import BrokerError, Change
from broker.options import BrokerOptions
from broker.redis.broker import RedisBroker
from tests.support.brokers import Node, running
from tests.support.redis_server import RedisServer
from tests.support.sinks import RecordingSink
from tests.support.tcp_proxy import TcpProxy
from tests.support.waiting import eventually

pytestmark = pytest.mark.redis

OPTIONS = BrokerOptions(
    heartbeat_s=0.3,
    lease_s=1.2,
    grace_s=0.6,
    connect_timeout_s=1,
    publish_timeout_s=0.25,
    unavailable_after_s=0.2,
    backoff_min_s=0.02,
    backoff_max_s=0.1,
)
QUIET_S = OPTIONS.lease_s + 3 * OPTIONS.heartbeat_s + OPTIONS.grace_s
SLACK_S = 2.0
"""For connecting again, and for a busy machine."""
KEYS = "roomcast:{0}:presence:"
ALICE, BOB, CAROL = '"alice"', "7", '"carol"'


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@asynccontextmanager
async def node(name: str, url: str) -> AsyncIterator[Node]:
    async with running(RedisBroker(url, node_id=name, options=OPTIONS)) as started:
        await started.broker.subscribe("presence")
        yield started


@asynccontextmanager
async def two(server: RedisServer, url_of_a: str | None = None) -> AsyncIterator[tuple[Node, Node]]:
    async with node("a", url_of_a or server.url) as a, node("b", server.url) as b:
        yield a, b


def told(sink: RecordingSink) -> list[tuple[str, bool]]:
    return [(item.user, item.online) for item in sink.of("presence") if isinstance(item, Change)]


async def wait_told(sink: RecordingSink, *expected: tuple[str, bool]) -> None:
    await sink.wait_for(lambda: len(told(sink)) >= len(expected), 10)
    assert told(sink) == list(expected)


def members(server: RedisServer, which: str = "nodes") -> set[bytes]:
    """The incarnations that live, or are dead and not cleared up."""
    return set(server.command("ZRANGE", KEYS + which, 0, -1))


async def becomes(broker: RedisBroker, *users: str, within_s: float = QUIET_S + SLACK_S) -> None:
    """The visible set everywhere becomes exactly this."""

    async def exact() -> bool:
        try:
            return (await broker.presence.roster(None)).users == set(users)
        except BrokerError:
            return False

    await eventually(exact, within_s)


async def stays(broker: RedisBroker, *users: str, for_s: float = QUIET_S) -> None:
    """... and is so for so long, looked at all the time."""
    loop = asyncio.get_running_loop()
    end_s = loop.time() + for_s
    while loop.time() < end_s:
        assert (await broker.presence.roster(None)).users == set(users)
        await asyncio.sleep(0.02)


async def test_an_answer_that_is_lost_counts_nobody_twice(server: RedisServer) -> None:
    async with TcpProxy(server.port).running() as proxy, two(server, proxy.url) as (a, b):
        a.broker.presence.set_count(ALICE, None, 1)
        await wait_told(b.sink, (ALICE, True))
        proxy.hold_down()
        a.broker.presence.set_count(BOB, None, 1)
        await wait_told(b.sink, (ALICE, True), (BOB, True))
        proxy.cut()
        proxy.release()
        a.broker.presence.set_count(CAROL, None, 1)
        await wait_told(b.sink, (ALICE, True), (BOB, True), (CAROL, True))
        for user in (ALICE, BOB, CAROL):
            a.broker.presence.set_count(user, None, 0)
        await becomes(b.broker)
        assert sorted(told(b.sink)[3:]) == sorted((user, False) for user in (ALICE, BOB, CAROL))


async def test_what_a_zombie_had_sent_before_its_lease_ended_is_refused_after_it(server: RedisServer) -> None:
    async with TcpProxy(server.port).running() as proxy, two(server, proxy.url) as (a, b):
        proxy.hold_up()  # its bytes are on the way, and the connection seems to be fine
        a.broker.presence.set_count(ALICE, None, 1)
        [zombie] = [name for name in members(server) if name.startswith(b"a:")]
        await eventually(lambda: zombie not in members(server) | members(server, "dead"), QUIET_S + SLACK_S)
        proxy.release()
        await wait_told(b.sink, (ALICE, True))
        a.broker.presence.set_count(BOB, None, 1)
        await wait_told(b.sink, (ALICE, True), (BOB, True))
        a.broker.presence.set_count(ALICE, None, 0)
        await becomes(b.broker, BOB)
        assert told(b.sink) == [(ALICE, True), (BOB, True), (ALICE, False)]
        assert not server.command("EXISTS", f"{KEYS}n:{zombie.decode()}")


async def test_all_data_lost_while_everybody_is_connected(server: RedisServer) -> None:
    async with two(server) as (a, b):
        await a.broker.subscribe("room:r")
        a.broker.presence.set_count(ALICE, None, 1)
        b.broker.presence.set_count(BOB, None, 1)
        await becomes(a.broker, ALICE, BOB)
        server.command("FLUSHALL")
        await becomes(a.broker, ALICE, BOB, within_s=OPTIONS.heartbeat_s + SLACK_S)
        await a.sink.wait_for(lambda: ("resubscribed", ["presence", "room:r"]) in a.sink.events)
        await stays(b.broker, ALICE, BOB)


async def test_scripts_forgotten_under_load(server: RedisServer) -> None:
    async with two(server) as (a, b):
        for number in range(200):
            if number % 10 == 0:
                server.command("SCRIPT", "FLUSH")
            (a if number % 2 else b).broker.presence.set_count(str(number), None, 1)
            await asyncio.sleep(0)
        await becomes(a.broker, *map(str, range(200)))
        assert sorted(told(a.sink)) == sorted((str(number), True) for number in range(200))


@pytest.mark.parametrize("mode", ["ALL", "WRITE"])
async def test_a_pause_longer_than_the_lease_shows_nothing(server: RedisServer, mode: str) -> None:
    async with two(server) as (a, b):
        a.broker.presence.set_count(ALICE, None, 1)
        b.broker.presence.set_count(BOB, None, 1)
        await becomes(a.broker, ALICE, BOB)
        incarnations = members(server)
        server.command("CLIENT", "PAUSE", round(1500 * OPTIONS.lease_s), mode)
        a.broker.presence.set_count(ALICE, None, 0)  # moves to the other node meanwhile
        b.broker.presence.set_count(ALICE, None, 1)
        await asyncio.sleep(1.5 * OPTIONS.lease_s)
        await becomes(a.broker, ALICE, BOB)
        await stays(a.broker, ALICE, BOB)
        assert members(server) == incarnations, "nobody was taken for dead"
        assert not any(not online for _, online in told(a.sink) + told(b.sink))


async def test_redis_frozen_beyond_the_lease_shows_nothing(server: RedisServer) -> None:
    async with two(server) as (a, b):
        a.broker.presence.set_count(ALICE, None, 1)
        b.broker.presence.set_count(BOB, None, 1)
        await becomes(a.broker, ALICE, BOB)
        incarnations = members(server)
        server.pause()
        await asyncio.sleep(2 * OPTIONS.lease_s)
        server.resume()
        await becomes(a.broker, ALICE, BOB)
        await stays(a.broker, ALICE, BOB)
        assert members(server) == incarnations, "nobody was taken for dead"
        assert not any(not online for _, online in told(a.sink) + told(b.sink))


@pytest.mark.parametrize("busy", [False, True], ids=["idle", "busy"])
async def test_redis_starts_again_from_an_old_dump(server: RedisServer, busy: bool) -> None:
    async with two(server) as (a, b):
        a.broker.presence.set_count(ALICE, None, 1)
        a.broker.presence.set_count(BOB, None, 1)
        await becomes(b.broker, ALICE, BOB)
        server.command("SAVE")
        a.broker.presence.set_count(BOB, None, 0)
        a.broker.presence.set_count(CAROL, None, 1)
        await becomes(b.broker, ALICE, CAROL)
        server.restart()
        for number in range(50 if busy else 0):
            a.broker.presence.set_count(CAROL, None, 1 + number % 2)
            a.broker.presence.set_count(str(number), "r", 1)
            await asyncio.sleep(0.01)
        await becomes(b.broker, ALICE, CAROL)
        await stays(b.broker, ALICE, CAROL)
        a.broker.presence.set_count(ALICE, None, 0)
        a.broker.presence.set_count(CAROL, None, 0)
        await becomes(b.broker)


async def test_redis_starts_again_empty(server: RedisServer) -> None:
    async with two(server) as (a, b):
        a.broker.presence.set_count(ALICE, None, 1)
        b.broker.presence.set_count(BOB, None, 1)
        await becomes(b.broker, ALICE, BOB)
        server.restart(empty=True)
        a.broker.presence.set_count(CAROL, None, 1)
        await becomes(b.broker, ALICE, BOB, CAROL)
        await stays(b.broker, ALICE, BOB, CAROL)


async def test_redis_out_of_memory_keeps_what_it_has_and_takes_the_rest_later(server: RedisServer) -> None:
    async with two(server) as (a, b):
        a.broker.presence.set_count(ALICE, None, 1)
        b.broker.presence.set_count(BOB, None, 1)
        await becomes(b.broker, ALICE, BOB)
        server.command("CONFIG", "SET", "maxmemory", 1)
        a.broker.presence.set_count(ALICE, None, 0)
        a.broker.presence.set_count(CAROL, None, 1)
        await stays(b.broker, ALICE, BOB)
        server.command("CONFIG", "SET", "maxmemory", 0)
        await becomes(b.broker, BOB, CAROL)
        assert told(b.sink)[-2:] == [(CAROL, True), (ALICE, False)]


@pytest.mark.parametrize("kind", ["normal", "pubsub"])
async def test_connections_killed_again_and_again(server: RedisServer, kind: str) -> None:
    async with two(server) as (a, b):
        for number in range(10):
            server.command("CLIENT", "KILL", "TYPE", kind)
            a.broker.presence.set_count(str(number), None, 1)
            b.broker.presence.set_count(str(number), None, 1)
            await asyncio.sleep(0.05)
        await becomes(a.broker, *map(str, range(10)))
        for number in range(10):
            a.broker.presence.set_count(str(number), None, 0)
        await stays(b.broker, *map(str, range(10)))


@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_random_faults_leave_no_ghost_and_forget_nobody(server: RedisServer) -> None:
    """Thirty schedules of faults; after each the visible set is exactly who is connected. The seed is printed."""
    number = random.randrange(2**32)
    print(f"seed {number}")
    chance = random.Random(number)
    for _ in range(30):
        server.command("FLUSHALL")
        async with TcpProxy(server.port).running() as proxy, two(server, proxy.url) as (a, b):
            here: dict[tuple[Node, str], int] = {}
            for _ in range(40):
                fault = chance.choice(("none", "none", "cut", "hold", "kill", "flush", "scripts", "save", "pause"))
                if fault == "cut":
                    proxy.cut()
                elif fault == "hold":
                    chance.choice((proxy.hold_up, proxy.hold_down, proxy.release))()
                elif fault == "kill":
                    server.command("CLIENT", "KILL", "TYPE", chance.choice(("normal", "pubsub")))
                elif fault == "flush" and chance.random() < 0.3:
                    server.command("FLUSHALL")
                elif fault == "scripts":
                    server.command("SCRIPT", "FLUSH")
                elif fault == "save":
                    server.command("SAVE")
                    if chance.random() < 0.3:
                        server.restart()
                elif fault == "pause":
                    server.command("CLIENT", "PAUSE", chance.randrange(400), "ALL")
                key = chance.choice((a, b)), chance.choice((ALICE, BOB, CAROL))
                here[key] = chance.choice((0, 0, 1, 2))
                key[0].broker.presence.set_count(key[1], None, here[key])
                await asyncio.sleep(chance.random() * 0.1)
            proxy.release()
            await becomes(b.broker, *{user for (_, user), count in here.items() if count}, within_s=QUIET_S + 5)

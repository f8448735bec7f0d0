"""Many at once: row C24 of the fault catalogue. Nobody is refused below the cap, Redis is asked once for what all want,
the node keeps its lease, and who is there already hardly notices."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial

import pytest
import uvloop

from tests.support.cluster import PRODUCTION, cluster
from tests.support.figures import note
from tests.support.node import NodeServer
from tests.support.peer import Peer
from tests.support.storm import storm
from tests.support.waiting import eventually

pytestmark = [pytest.mark.redis, pytest.mark.system]


@pytest.fixture(autouse=True)
def loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    return uvloop.new_event_loop


@asynccontextmanager
async def pinging(one: Peer, every_s: float = 0.02) -> AsyncIterator[list[float]]:
    """Ask for a pong all the time; how long each took (s)."""
    took_s: list[float] = []
    over = asyncio.Event()

    async def ping() -> None:
        while not over.is_set():
            start_s, count = time.monotonic(), one.told("pong")
            one.post("ping")
            await one.until(partial(_told_more, one, count), 30)
            took_s.append(time.monotonic() - start_s)
            await asyncio.sleep(every_s)

    task = asyncio.create_task(ping())
    try:
        yield took_s
    finally:
        over.set()
        await task


def _told_more(one: Peer, count: int) -> bool:
    return one.told("pong") > count


async def everybody_comes_at_once(clients: int, rooms: int, timeout_s: float) -> None:
    """All resume their room from its beginning, having missed 50 messages."""
    async with cluster(1, by_log=True, settings=PRODUCTION | {"presence_broadcast": "rooms"}) as world:
        [node] = world.nodes
        author = await world.peer(node)
        starts = []
        for number in range(rooms):
            await author.join(f"r{number}")
            starts.append(author.views[f"r{number}"].start)
            for message in range(50):
                author.post("message", room=f"r{number}", data=message)
            await author.until(lambda number=number: author.views[f"r{number}"].position.offset == 50)  # type: ignore[misc]
        comers = [
            (
                f"/ws?user=u{number}",
                [{"op": "join", "id": 1, "room": f"r{number % rooms}", "resume": starts[number % rooms]._asdict()}],
            )
            for number in range(clients)
        ]
        node_cpu_s, own_cpu_s = await metric(node, "process_cpu_seconds_total"), time.process_time()
        before, cpu_before, start_s = reads(world.redis.info("commandstats")), redis_cpu_s(world), time.monotonic()
        async with pinging(author) as pongs_s, storm(node.port, comers, timeout_s) as seen:
            pass
        wall_s = time.monotonic() - start_s
        cpu_share = (redis_cpu_s(world) - cpu_before) / wall_s
        own_cpu_s = time.process_time() - own_cpu_s
        node_cpu_s = await metric(node, "process_cpu_seconds_total") - node_cpu_s
        pages = reads(world.redis.info("commandstats")) - before
        pongs_s.sort()
        row = f"C24 {clients} clients come at once"
        note(f"{row}: p50 until the room is live", seen.quantile_s(0.5), "s")
        note(f"{row}: CPU of the node, which is how long it takes on a free core", node_cpu_s, "s")
        note(f"{row}: p99", seen.quantile_s(0.99), "s")
        note(f"{row}: a pong meanwhile, p50", 1e3 * pongs_s[len(pongs_s) // 2], "ms")
        note(f"{row}: a pong meanwhile, p99", 1e3 * pongs_s[int(len(pongs_s) * 0.99)], "ms")
        note(f"{row}: pages of {rooms} rooms read in Redis", pages, "")
        note(f"{row}: CPU of Redis", 100 * cpu_share, "%")
        assert seen.statuses == {101: clients}, "nobody is refused below the cap"
        for comer in seen.comers:
            [reply] = comer.replies
            assert reply["ok"] and reply["recovered"] is True and len(reply["messages"]) == 50, str(reply)[:300]
        assert author.told("degraded") == 0, "the heartbeat had its turns"
        await node.wait_ready(20)
        assert await metric(node, "roomcast_handshakes_waiting") == 0
        assert pages <= rooms * (2 + 2 * wall_s), "of a room one page is read a second, however many want it"
        assert cpu_share < 0.8
        # Where others compute, caches and cores are shared and all work takes longer, that of the clients here, too.
        assert node_cpu_s < max(5 * max(0.2, clients / 10_000), 2 * own_cpu_s)


async def metric(node: NodeServer, name: str) -> float:
    """It may take longer than a second: the node, this process and others have two cores between them."""

    async def read() -> tuple[float] | None:
        try:
            return (await asyncio.to_thread(node.metric, name),)
        except OSError:
            return None

    found = await eventually(read, 20)
    assert found is not None
    return found[0]


def reads(stats: dict[str, dict[str, float]]) -> int:
    """Pages of logs that Redis has read."""
    return int(stats.get("cmdstat_xrange", {}).get("calls", 0))


def redis_cpu_s(world: object) -> float:
    info = world.redis.info("cpu")  # type: ignore[attr-defined]
    return float(info["used_cpu_user"]) + float(info["used_cpu_sys"])


async def test_a_thousand_come_at_once_and_nobody_is_refused() -> None:
    await everybody_comes_at_once(1000, 10, 20)


@pytest.mark.slow
@pytest.mark.timeout(180)
async def test_ten_thousand_come_at_once() -> None:
    await everybody_comes_at_once(10_000, 100, 120)

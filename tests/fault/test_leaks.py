"""What comes and goes leaves nothing behind: row C33 and the leaks of issue 6.

20,000 connections of all manners (200,000 in the slow tier) on a real node with a real Redis, then everything that can
be counted is back at the start.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Iterator, Sized
from pathlib import Path
from typing import Any

import pytest

from loadtests.accounting import rss_bytes
from loadtests.native import build
from loadtests.processes import Native
from server.connection import Connection
from server.uvicorn_http import HttpProtocol
from tests.support.chat import node_here
from tests.support.churn import churn, visit
from tests.support.figures import note
from tests.support.node import NodeServer
from tests.support.peer import peer
from tests.support.redis_server import RedisServer
from tests.support.waiting import eventually

pytestmark = [pytest.mark.redis, pytest.mark.system]

SETTLE_S = 20.0
HOSTILE_SHARE = 0.1
"""So many come in the ways of tests/support/churn.py; the others are the load client's and just join and leave."""
METRICS = (
    'roomcast_connections{lane="fast"}',
    "roomcast_rooms",
    "roomcast_channels",
    "roomcast_tasks",
    "roomcast_outbound_pending_bytes",
    "process_open_fds",
)


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture
def node(redis: RedisServer) -> Iterator[NodeServer]:
    quick: dict[str, Any] = {"linger_s": 0.2, "grace_s": 0.5, "heartbeat_s": 0.5, "lease_s": 4}
    with NodeServer(broker=redis.url, presence_broadcast="rooms", **quick) as server:
        yield server


def seen(node: NodeServer, redis: RedisServer) -> dict[str, object]:
    """Everything that must be as before."""
    page = node.get("/metrics", 10.0)[1].decode().splitlines()
    values = {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in page if not line.startswith("#")}
    return {
        **{name: values[name] for name in METRICS},
        "keys": sorted(redis.command("KEYS", "*")),
        "channels": sorted(redis.command("PUBSUB", "CHANNELS")),
        "subscriptions": sorted(redis.client.pubsub_numsub(*redis.command("PUBSUB", "CHANNELS"))),
        "connections to Redis": redis.info("clients")["connected_clients"],
    }


async def settled(node: NodeServer, redis: RedisServer, wanted: dict[str, object] | None = None) -> dict[str, object]:
    """What is seen once nothing changes for a second, or once it is what is wanted."""
    now = await asyncio.to_thread(seen, node, redis)
    until_s = time.monotonic() + SETTLE_S
    while time.monotonic() < until_s:
        await asyncio.sleep(1)
        before, now = now, await asyncio.to_thread(seen, node, redis)
        if now == (before if wanted is None else wanted):
            break
    return now


def join_and_leave(node: NodeServer, count: int, folder: Path) -> None:
    """Blocks. Each with a user of its own."""
    command: list[str | Path] = [
        build("client"),
        "--host",
        "127.0.0.1",
        "--port",
        str(node.port),
        "--path",
        "/ws?user=n{n}",
    ]
    with Native(
        "client", [*command, "--dialect", "roomcast", "--room", "bench", "--sources", "4"], folder=folder, core=None
    ) as client:
        done = 0.0
        while done < count:
            shaken = client.ask("shake 1 64 join", timeout_s=60)
            assert not shaken["failed"]
            done += shaken["completed"]


async def come_and_go(node: NodeServer, redis: RedisServer, count: int, folder: Path) -> None:
    async def all_of(how_many: int) -> None:
        hostile = round(how_many * HOSTILE_SHARE)
        await asyncio.gather(
            asyncio.to_thread(churn, node.port, hostile),
            asyncio.to_thread(join_and_leave, node, how_many - hostile, folder),
        )

    async with peer(node.ws_url, "stays", "r0") as stays:
        await all_of(2000)
        before = await settled(node, redis)
        assert before['roomcast_connections{lane="fast"}'] == 1 and before["roomcast_channels"]
        before_bytes = rss_bytes(node.pid)
        began_s = time.monotonic()
        await all_of(count)
        took_s = time.monotonic() - began_s
        after = await settled(node, redis, before)
        assert after == before
        grown = rss_bytes(node.pid) / before_bytes - 1
        note(f"{count:,} connections came and went: per second", count / took_s, "/s")
        note(f"{count:,} connections came and went: growth of RSS", 100 * grown, "%")
        assert grown < 0.10
        assert (await stays.ask("message", room="r0", data="still here"))["ok"]
    assert not node.crashes()


@pytest.mark.timeout(180)
async def test_20_000_connections_leave_nothing(node: NodeServer, redis: RedisServer, tmp_path: Path) -> None:
    await come_and_go(node, redis, 20_000, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(1200)
async def test_200_000_connections_leave_nothing(node: NodeServer, redis: RedisServer, tmp_path: Path) -> None:
    await come_and_go(node, redis, 200_000, tmp_path)


async def test_no_timer_no_slot_and_no_object_is_left() -> None:
    """What no metric shows, in this process, on asyncio's own loop, whose timers can be counted."""

    def alive() -> list[object]:
        gc.collect()
        return [each for each in gc.get_objects() if isinstance(each, Connection | HttpProtocol)]

    others = len(alive())
    async with node_here("fast", presence_broadcast="all") as node:
        hub = node.hub

        def left() -> list[object]:
            tables: tuple[Sized, ...] = (
                hub.paths,
                hub.users,
                hub.sessions,
                hub.raw_paths,
                hub.raw_users,
                hub.feed.rooms,
            )
            slots = [len(slot) for slot in node.node.wheel._slots]
            timers = [each for each in loop._scheduled if not each.cancelled()]  # type: ignore[attr-defined]
            return [*map(len, tables), len(hub.interest), sum(slots), len(node.served.connections), len(timers)]

        loop = asyncio.get_running_loop()
        await eventually(lambda: len(hub.interest) == 1)
        before = left()
        await asyncio.gather(*(asyncio.to_thread(visit, node.served.port, number, 5) for number in range(300)))
        assert hub.counts.connections_total >= 210
        await eventually(lambda: left() == before, 15)
        assert len(alive()) == others

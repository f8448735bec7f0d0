"""Clients through the nginx of deploy/ to real nodes: while nobody speaks, at a reload, at a crash of nginx (C32)."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator

import pytest
from roomcast_client import Roomcast
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from tests.support.cluster import cluster
from tests.support.crowd import Crowd
from tests.support.figures import note
from tests.support.nginx import NginxServer
from tests.support.node import NodeServer
from tests.support.waiting import eventually

pytestmark = [pytest.mark.nginx, pytest.mark.redis, pytest.mark.system]

READ_TIMEOUT_S = 1.5
SHUTDOWN_S = 2.0
MEMBERS = 24


async def idle(proxy: NginxServer, at_most_s: float) -> float:
    """How long a connection lasts on which the client says nothing but pongs."""
    async with connect(proxy.ws_url + "?user=ann", ping_interval=None, proxy=None) as client:
        start = time.monotonic()
        with contextlib.suppress(TimeoutError, ConnectionClosed):
            async with asyncio.timeout(at_most_s):
                async for _ in client:
                    pass
        lasted_s = time.monotonic() - start
        if lasted_s >= at_most_s:  # and it still works
            await client.send(json.dumps({"op": "ping"}))
            async with asyncio.timeout(30):
                while json.loads(await client.recv())["op"] != "pong":
                    pass
        return lasted_s


@pytest.mark.parametrize(("ping_s", "stays"), [(0.4, True), (60, False)])
async def test_pings_keep_an_idle_connection_open_beyond_the_read_timeout(ping_s: float, stays: bool) -> None:
    """deploy's 75 s and pings every 10 s, scaled. Without pings nginx cuts it: so it is they that keep it."""
    changes = {"proxy_read_timeout 75s": f"proxy_read_timeout {READ_TIMEOUT_S * 1000:g}ms"}
    with NodeServer(ping_s=ping_s) as node, NginxServer([node.port], changes=changes) as proxy:
        lasted_s = await idle(proxy, 3 * READ_TIMEOUT_S)
    assert (lasted_s >= 3 * READ_TIMEOUT_S) is stays
    assert lasted_s >= READ_TIMEOUT_S * 0.9


@pytest.mark.slow
@pytest.mark.timeout(360)
async def test_an_idle_connection_stays_for_five_minutes() -> None:
    """With the times of production."""
    with NodeServer() as node, NginxServer([node.port]) as proxy:
        assert await idle(proxy, 300) >= 300


@contextlib.asynccontextmanager
async def crowd_behind_nginx() -> AsyncIterator[tuple[Crowd, NginxServer]]:
    """Two nodes, a proxy whose old workers end soon, and users who talk. At the end: nothing lost, nobody gone."""
    settings = {"grace_s": 5, "presence_broadcast": "rooms"}
    async with cluster(2, settings=settings) as world:
        ports = [node.port for node in world.nodes]
        changes = {"worker_shutdown_timeout 300s": f"worker_shutdown_timeout {SHUTDOWN_S * 1000:g}ms"}
        with NginxServer(ports, changes=changes) as proxy:
            crowd = Crowd(lambda user: Roomcast(proxy.ws_url, user=user), MEMBERS)
            async with crowd.talking():
                await crowd.progress()
                yield crowd, proxy
                await crowd.progress()
    assert crowd.offline == []


async def test_a_reload_loses_nothing_and_old_workers_end() -> None:
    async with crowd_behind_nginx() as (crowd, proxy):
        old = proxy.workers
        start = time.monotonic()
        proxy.reload()
        await eventually(lambda: proxy.workers - old)
        assert crowd.reconnects == 0, "the old workers keep their connections for a while"
        await eventually(lambda: not proxy.workers & old, SHUTDOWN_S + 5)
        assert time.monotonic() - start >= SHUTDOWN_S * 0.9
        await eventually(lambda: crowd.reconnects == MEMBERS, 10)
        note("C32: reload, all clients live on a new worker after", time.monotonic() - start - SHUTDOWN_S, "s")


async def test_a_killed_nginx_comes_back_and_clients_resume() -> None:
    async with crowd_behind_nginx() as (crowd, proxy):
        proxy.kill()
        start = time.monotonic()
        await asyncio.to_thread(proxy.start)
        await eventually(lambda: crowd.reconnects >= MEMBERS and crowd.all_connected, 15)
        note("C32: nginx killed, all clients live again after", time.monotonic() - start, "s")

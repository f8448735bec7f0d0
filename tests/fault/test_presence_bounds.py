"""How long it takes until a user is seen to go, with the times of production: the bounds of docs/guarantees.md and of
issue 3. What was measured is printed at the end of the run. The rolling restart comes here too, with clients that wait
as long as they were told.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import pytest

from tests.fault.test_presence_nodes import rolling_restart
from tests.support.busy import busy_s
from tests.support.figures import note
from tests.support.namespaces import private_network
from tests.support.node import NodeServer
from tests.support.presence import ROOM, Observer, Servers, Stage, each, names, servers

pytestmark = [pytest.mark.slow, pytest.mark.redis, pytest.mark.system, pytest.mark.timeout(300)]

PRODUCTION: dict[str, object] = {
    "heartbeat_s": 2,
    "lease_s": 8,
    "grace_s": 5,
    "ping_s": 10,
    "linger_s": 1,
    "drain_s": 20,
}
CRASH_S, CLOSE_S, VANISHED_S = 17, 7, 27
"""reliability.md §0"""


@pytest.fixture(scope="module")
def three() -> Iterator[Servers]:
    with servers(3, node_class=NodeServer, **PRODUCTION) as started:
        assert (started.crash_s, started.close_s) == (CRASH_S, CLOSE_S)
        yield started


async def gone(observer: Observer, users: list[str], since_s: float) -> float:
    """Seconds until the last of them was seen to go, everywhere and in the room."""
    for user in users:
        await observer.saw(user, "offline", None, 60)
        await observer.saw(user, "offline", ROOM, 60)
    return time.monotonic() - since_s


async def test_after_a_node_crash(three: Servers) -> None:
    async with Stage(three) as stage:
        users = names("user", 50)
        await stage.open_all(users, stage.nodes[0])
        observer = await stage.watch(stage.nodes[2])
        killed_s = time.monotonic()
        stage.nodes[0].kill()
        stage.lost(stage.nodes[0])
        took_s = await gone(observer, users, killed_s)
        note(f"offline after a node crash (bound {CRASH_S} s)", took_s, "s")
        assert took_s <= CRASH_S + busy_s()
        assert await stage.settled() == (each(users, "offline"),) * 2


async def test_after_a_close_and_a_reset(three: Servers) -> None:
    async with Stage(three) as stage:
        users, resets = names("user", 20), names("reset", 20)
        peers = await stage.open_all(users, *stage.nodes)
        aborted = await stage.open_all(resets, *stage.nodes)
        observer = await stage.watch(stage.nodes[2])
        closed_s = time.monotonic()
        await stage.close(*peers)
        await stage.vanish(*aborted)
        took_s = await gone(observer, users + resets, closed_s)
        note(f"offline after a clean close or a reset (bound {CLOSE_S} s)", took_s, "s")
        assert 5 <= took_s <= CLOSE_S + busy_s()
        assert await stage.settled() == (each(users + resets, "offline"),) * 2


async def test_a_reload_and_a_move_after_four_seconds_show_nothing(three: Servers) -> None:
    async with Stage(three) as stage:
        peers = await stage.open_all(names("user", 20), stage.nodes[0])
        await stage.watch(stage.nodes[2])
        await asyncio.gather(*(one.close() for one in peers))
        await asyncio.sleep(4)
        await asyncio.gather(*(stage.move(one, stage.nodes[n % 2]) for n, one in enumerate(peers)))
        assert await stage.settled() == ({}, {})


async def test_after_a_client_fell_silent() -> None:
    with private_network() as network, servers(2, node_class=NodeServer, **PRODUCTION) as two:
        async with Stage(two) as stage:
            users = names("silent", 10)
            await stage.open_all(users, stage.nodes[0])
            observer = await stage.watch(stage.nodes[1])
            dropped_s = time.monotonic()
            network.drop(stage.nodes[0].port)
            try:
                took_s = await gone(observer, users, dropped_s)
            finally:
                network.heal()
            note(f"offline after a client's network ended (bound {VANISHED_S} s)", took_s, "s")
            assert took_s <= VANISHED_S + busy_s()
            stage.lost(stage.nodes[0])
            assert await stage.settled() == (each(users, "offline"),) * 2


async def test_a_rolling_restart_is_not_seen(three: Servers) -> None:
    async with Stage(three) as stage:
        await rolling_restart(stage, 60, scale=1)

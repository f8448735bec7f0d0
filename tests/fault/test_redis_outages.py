"""What clients notice while Redis is away, frozen, busy or has lost data: rows B1, B2, B4 to B7 and B14 of the fault
catalogue, and T5. Nodes stay up and say why they are not ready, clients are told, publishes fail in time; afterwards
all is well again by itself, and what is gone was said to be gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator

import pytest
import redis as redis_py

from tests.support.busy import busy_s
from tests.support.cluster import PRODUCTION, SLACK_S, TIMEOUT_S, UNAVAILABLE_S, Cluster, Traffic, cluster
from tests.support.figures import note
from tests.support.node import NodeServer

pytestmark = [pytest.mark.redis, pytest.mark.system]


async def told_and_refused(
    world: Cluster, room: str, row: str, since_s: float, codes: tuple[str, ...] = ("unavailable",)
) -> None:
    """Every member is told, every node says why, what is asked now is refused in time."""
    for one in world.members(room):
        await one.until(lambda one=one: one.told("degraded") > one.told("restored"), world.noticed_s)  # type: ignore[misc]
    note(f"{row}: noticed after", time.monotonic() - since_s, "s")
    await asyncio.gather(*(refused(world, node, room, codes) for node in world.nodes))


async def refused(world: Cluster, node: NodeServer, room: str, codes: tuple[str, ...]) -> None:
    assert await world.unready(node)
    one = next(one for one in world.members(room) if world.homes[one] is node)
    for reply, seconds in await asyncio.gather(
        one.timed("message", room=room, data="never"), one.timed("join", room="another")
    ):
        assert not reply["ok"] and reply["code"] in codes, reply
        assert seconds < SLACK_S + busy_s() + (UNAVAILABLE_S if reply["code"] == "unavailable" else TIMEOUT_S)


@contextlib.asynccontextmanager
async def watched(world: Cluster, room: str) -> AsyncIterator[None]:
    """Members who publish nothing, one on each node: their requests do not wait behind others."""
    watchers = await world.peers_everywhere(room)
    yield
    for one in watchers:
        assert one.told("degraded") == one.told("restored") >= 1


async def test_a_redis_that_restarts_with_its_data_costs_at_most_an_honest_reset() -> None:
    """B1: ``appendfsync everysec`` may lose the last second."""
    async with (
        cluster(2, appendonly="yes", appendfsync="everysec", by_log=True) as world,
        watched(world, "r"),
        Traffic(world, "r").running() as traffic,
    ):
        await traffic.progress(100)
        world.redis.kill()
        killed_s = time.monotonic()
        await told_and_refused(world, "r", "B1 Redis restarts with its data", killed_s)
        await asyncio.sleep(max(0.0, killed_s + 2 - time.monotonic()))
        world.redis.start()
        await world.healed("B1 Redis restarts with its data", "r", time.monotonic())
        assert set(traffic.resets) in ({0}, {1}) and traffic.refused


async def test_a_redis_that_restarts_empty_resets_everybody() -> None:
    """B2."""
    async with (
        cluster(2, by_log=True) as world,
        watched(world, "r"),
        Traffic(world, "r").running() as traffic,
    ):
        idle = await world.peers_everywhere("idle")
        before = idle[0].views["idle"].position.epoch
        await traffic.progress(100)
        world.redis.kill()
        await told_and_refused(world, "r", "B2 Redis restarts empty", time.monotonic())
        world.redis.restart(empty=True)
        await world.healed("B2 Redis restarts empty", "r", time.monotonic())
        for one in idle:
            await one.until(lambda one=one: one.views["idle"].resets == 1, 5)  # type: ignore[misc]
        assert len({one.views["idle"].position for one in idle}) == 1
        assert idle[0].views["idle"].position.epoch != before
        assert set(traffic.resets) == {1}


async def test_flushall_under_load_resets_everybody_also_in_idle_rooms() -> None:
    """B4, T5: nobody loses the connection, so nobody is told ``degraded``; the heartbeat finds the idle room."""
    async with cluster(2, by_log=True) as world, Traffic(world, "r").running() as traffic:
        idle = await world.peers_everywhere("idle")
        for times in range(1, 4):
            await traffic.progress()
            world.redis.command("FLUSHALL")
            flushed_s = time.monotonic()
            await world.healed("B4 FLUSHALL", "r", flushed_s)
            for one in idle:
                await one.until(lambda one=one, n=times: one.views["idle"].resets == n, world.noticed_s)  # type: ignore[misc]
            note("B4 FLUSHALL: idle room reset after", time.monotonic() - flushed_s, "s")
        assert traffic.resets == [3, 3] and traffic.refused == []


async def test_debug_reload_under_load_costs_nothing() -> None:
    """T5: Redis writes all it has to disk and reads it back."""
    async with cluster(2) as world, Traffic(world, "r").running() as traffic:
        for _ in range(3):
            await traffic.progress()
            await world.command("DEBUG", "RELOAD")
        await world.healed("T5 DEBUG RELOAD", "r", time.monotonic())
        assert traffic.resets == [0, 0]


@pytest.mark.parametrize("how", ["CLIENT PAUSE ALL", "SIGSTOP"])
async def test_a_frozen_redis_is_told_and_costs_nobody_a_message(how: str) -> None:
    """B5, B6: longer than the lease."""
    row = f"B5 {how}" if how.startswith("CLIENT") else "B6 Redis frozen"
    async with cluster(2) as world, watched(world, "r"), Traffic(world, "r").running() as traffic:
        await traffic.progress()
        frozen_s = time.monotonic()
        if how == "SIGSTOP":
            world.redis.pause()
        else:
            world.redis.command("CLIENT", "PAUSE", 4000, "ALL")
        await told_and_refused(world, "r", row, frozen_s)
        if how == "SIGSTOP":
            await asyncio.sleep(max(0.0, frozen_s + 4 - time.monotonic()))
            world.redis.resume()
        await world.healed(row, "r", frozen_s + 4)
        assert set(traffic.resets) == {0}
        assert {code for code, _ in traffic.refused} >= {"timeout"}


async def test_a_redis_that_may_not_write_for_a_while_doubles_nothing() -> None:
    """B5 with WRITE, which holds up scripts and PUBLISH, but neither PING nor INFO."""
    async with cluster(2) as world, watched(world, "r"), Traffic(world, "r").running() as traffic:
        await traffic.progress()
        paused_s = time.monotonic()
        world.redis.command("CLIENT", "PAUSE", 4000, "WRITE")
        codes = ("unavailable", "timeout")  # connecting again succeeds as far as the first write
        await told_and_refused(world, "r", "B5 CLIENT PAUSE WRITE", paused_s, codes)
        await world.healed("B5 CLIENT PAUSE WRITE", "r", paused_s + 4)
        assert set(traffic.resets) == {0}


async def test_a_slow_redis_doubles_nothing() -> None:
    """B7: the answer comes after the time is up; the retry with the same key finds the entry."""
    async with cluster(2) as world, Traffic(world, "r").running() as traffic:
        await traffic.progress()
        await world.command("DEBUG", "SLEEP", 2.5)
        await world.healed("B7 DEBUG SLEEP 2.5", "r", time.monotonic())
        assert "timeout" in {code for code, _ in traffic.refused} and traffic.resets == [0, 0]


async def test_a_busy_redis_is_a_reason_and_heals_after_script_kill() -> None:
    """B14: somebody else's endless script."""
    async with (
        cluster(2, busy_reply_threshold="50") as world,
        watched(world, "r"),
        Traffic(world, "r").running() as traffic,
    ):

        def loop_for_ever() -> None:
            with redis_py.Redis(unix_socket_path=world.redis.socket, protocol=2) as client:
                with pytest.raises(redis_py.ResponseError):
                    client.eval("while true do end", 0)

        await traffic.progress()
        foreign = threading.Thread(target=loop_for_ever)
        busy_s = time.monotonic()
        foreign.start()
        try:
            await told_and_refused(world, "r", "B14 Redis is busy", busy_s)
            assert "BUSY" in await world.unready(world.nodes[0], "BUSY", 5)
        finally:
            world.redis.command("SCRIPT", "KILL")
            await asyncio.to_thread(foreign.join)
        await world.healed("B14 Redis is busy", "r", time.monotonic())
        assert set(traffic.resets) == {0}


@pytest.mark.slow
async def test_with_the_times_of_production_a_frozen_redis_is_told_within_five_seconds() -> None:
    """B6 unscaled: frozen for 20 s."""
    async with cluster(2, settings=PRODUCTION) as world, watched(world, "r"), Traffic(world, "r").running() as traffic:
        await traffic.progress()
        world.redis.pause()
        frozen_s = time.monotonic()
        await told_and_refused(world, "r", "B6 Redis frozen, default times", frozen_s)
        await asyncio.sleep(max(0.0, frozen_s + 20 - time.monotonic()))
        world.redis.resume()
        await world.healed("B6 Redis frozen, default times", "r", time.monotonic())
        assert set(traffic.resets) == {0}


@pytest.mark.slow
async def test_with_the_times_of_production_an_empty_redis_resets_everybody() -> None:
    """B2 unscaled."""
    async with (
        cluster(2, settings=PRODUCTION, by_log=True) as world,
        watched(world, "r"),
        Traffic(world, "r").running() as traffic,
    ):
        await traffic.progress(100)
        world.redis.kill()
        await told_and_refused(world, "r", "B2 Redis restarts empty, default times", time.monotonic())
        world.redis.restart(empty=True)
        await world.healed("B2 Redis restarts empty, default times", "r", time.monotonic(), 25)
        assert set(traffic.resets) == {1}

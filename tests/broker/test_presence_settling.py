"""After a loss of all data a roster says how long somebody may be missing from it, even if Redis stalls meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.broker.presence_worlds import HEARTBEAT_MS, LEASE_MS, MemoryWorld, RedisWorld, World, drive
from tests.support.redis_server import RedisServer

START_MS = 1_000_000


@pytest.fixture(params=["memory", pytest.param("redis", marks=pytest.mark.redis)])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    if request.param == "memory":
        yield MemoryWorld()
        return
    server: RedisServer = request.getfixturevalue("redis_server")
    redis_world: Any = RedisWorld(server)
    yield redis_world
    redis_world.close()


def settling_ms(world: World) -> float:
    unit = 1 if isinstance(world, MemoryWorld) else 1000  # that world counts its seconds in ms
    return unit * drive(world.store("a").roster(None)).settling_s


def test_while_no_node_has_joined_a_roster_is_settling(world: World) -> None:
    world.set_clock(START_MS)
    assert settling_ms(world) == LEASE_MS
    drive(world.store("a").register("a:1"))
    assert settling_ms(world) == LEASE_MS
    world.set_clock(START_MS + LEASE_MS // 4)
    assert settling_ms(world) == LEASE_MS * 3 / 4


def test_it_settles_a_lease_after_the_first_node_joined(world: World) -> None:
    world.set_clock(START_MS)
    drive(world.store("a").register("a:1"))
    for now_ms in range(START_MS + HEARTBEAT_MS, START_MS + LEASE_MS + 1, HEARTBEAT_MS):
        world.set_clock(now_ms)
        drive(world.store("a").heartbeat("a:1", 0, b""))
    world.set_clock(START_MS + LEASE_MS)
    assert settling_ms(world) == 0


def test_a_stall_before_it_has_settled_gives_everybody_a_lease_more(world: World) -> None:
    world.set_clock(START_MS)
    drive(world.store("a").register("a:1"))
    thawed_ms = START_MS + 2 * LEASE_MS
    world.set_clock(thawed_ms)
    assert settling_ms(world) == LEASE_MS  # nobody could report meanwhile, and no heartbeat has said so yet
    drive(world.store("a").heartbeat("a:1", 0, b""))
    assert settling_ms(world) == LEASE_MS
    world.set_clock(thawed_ms + HEARTBEAT_MS)
    assert settling_ms(world) == LEASE_MS - HEARTBEAT_MS

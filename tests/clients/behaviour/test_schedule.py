"""A long run of random faults against both clients: nothing of Redis's is lost, so nobody may be told of a reset.

``TEST_SEED`` repeats one run.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator

import pytest

from tests.clients.behaviour.world import Play, World, play
from tests.clients.js import npm
from tests.support.figures import note

pytestmark = [
    *(pytest.mark.slow, pytest.mark.redis, pytest.mark.nginx, pytest.mark.system),
    pytest.mark.timeout(600),
]

RUN_S = 120.0


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    npm.install()
    with World() as world:
        yield world


class Faults:
    """Each does its harm and returns when the cause is over."""

    def __init__(self, scene: Play, chance: random.Random) -> None:
        self.scene = scene
        self.world = scene.world
        self.chance = chance

    async def kill_a_node(self) -> None:
        await self.chance.choice(self.world.nodes).restart()

    async def drain_a_node(self) -> None:
        node = self.chance.choice(self.world.nodes)
        assert await node.stopped() == 0
        node.launch()
        await node.wait_ready()

    async def freeze_a_node(self) -> None:
        node = self.chance.choice(self.world.nodes)
        node.pause()
        await asyncio.sleep(self.chance.uniform(0.1, 4))
        node.resume()

    async def cut(self) -> None:
        self.scene.network.cut()

    async def hold(self) -> None:
        """One way, or both: acks are lost, requests are lost, or nobody hears of anything."""
        for way in self.chance.choice([["up"], ["down"], ["up", "down"]]):
            getattr(self.scene.network, f"hold_{way}")()
        await asyncio.sleep(self.chance.uniform(0.1, 4))
        if self.chance.random() < 0.5:
            self.scene.network.cut()
        self.scene.network.release()

    async def reload_nginx(self) -> None:
        self.world.nginx.reload()

    async def restart_nginx(self) -> None:
        self.world.nginx.kill()
        await asyncio.to_thread(self.world.nginx.start)

    async def kill_redis_connections(self) -> None:
        kind = self.chance.choice(["normal", "pubsub"])
        await asyncio.to_thread(self.world.redis.command, "CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")

    async def restart_redis(self) -> None:
        await asyncio.to_thread(self.world.redis.restart)

    async def freeze_redis(self) -> None:
        self.world.redis.pause()
        await asyncio.sleep(self.chance.uniform(0.1, 3))
        self.world.redis.resume()

    @property
    def all(self) -> list[Callable[[], Awaitable[None]]]:
        return [
            *(self.kill_a_node, self.drain_a_node, self.freeze_a_node, self.cut, self.hold, self.reload_nginx),
            *(self.restart_nginx, self.kill_redis_connections, self.restart_redis, self.freeze_redis),
        ]


async def test_a_random_schedule_of_faults_loses_nothing(world: World) -> None:
    seed = int(os.environ.get("TEST_SEED") or random.randrange(2**31))
    print(f"TEST_SEED={seed}")
    chance = random.Random(seed)
    done: Counter[str] = Counter()
    async with play(world, heartbeat_s=1) as scene:
        faults = Faults(scene, chance)
        await scene.talk(every_ms=100)
        until = time.monotonic() + RUN_S
        while time.monotonic() < until:
            fault = chance.choice(faults.all)
            done[fault.__name__] += 1
            await fault()
            await asyncio.sleep(chance.expovariate(1))
        await world.healthy()
        await scene.ends_well()
        messages = len(scene.clients[0].seen("message"))
    note("random schedule: faults", sum(done.values()), "")
    note("random schedule: messages, each seen once by both clients", messages, "")

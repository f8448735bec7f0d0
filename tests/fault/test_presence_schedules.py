"""Random faults, several at a time, and exactness afterwards: no ghost, nobody missing, no event too many.

Clusters of three nodes and one Redis, times a fifth of production's. The third node is never touched itself; the users
on it and the observer are the *rocks*. PRESENCE_SEED repeats a run's choices.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator

import pytest

from tests.support.figures import note
from tests.support.node import NodeServer
from tests.support.peer import Peer
from tests.support.presence import ROOM, Servers, Stage, names, servers

pytestmark = [pytest.mark.redis, pytest.mark.system]

USERS = names("user", 8)
STEPS = 8


class Schedule:
    """One run of random steps."""

    def __init__(self, stage: Stage, chance: random.Random, done: Counter[str]) -> None:
        self.stage = stage
        self.chance = chance
        self.done = done
        self.frozen: set[NodeServer] = set()

    async def run(self) -> None:
        stage = self.stage
        rocks = names("rock", 3)
        await stage.open_all(rocks, stage.nodes[2])
        observer = await stage.watch(stage.nodes[2])
        for _ in range(STEPS):
            await self._step()
            await asyncio.sleep(self.chance.choice([0, 0.1, 0.4, 1]))
        await self._end()
        everywhere, room = await stage.settled()
        for scope, events in ((None, everywhere), (ROOM, room)):
            wrong = [event for event in events if event[0] in (*rocks, observer.user)]
            assert not wrong, f"{scope}: {wrong} although always connected to a sound node"
            for user in USERS:
                seen = [status for who, status in observer.changes(scope) if who == user]
                alternating = [("online", "offline")[index % 2] for index in range(len(seen))]
                assert seen == alternating, f"{scope}: {user} {seen}"

    async def _step(self) -> None:
        steps: dict[str, tuple[int, Callable[[], Awaitable[bool]]]] = {
            "open": (6, self._open),
            "close": (3, self._close),
            "vanish": (2, self._vanish),
            "move": (3, self._move),
            "kill node": (2, self._kill_node),
            "freeze or thaw node": (3, self._freeze_or_thaw),
            "kill connections": (2, self._kill_connections),
            "flush": (1, self._flush),
            "forget scripts": (1, self._forget_scripts),
            "freeze redis": (1, self._freeze_redis),
            "restart redis empty": (1, self._restart_redis),
            "memory full": (1, self._memory_full),
        }
        [(name, (_, step))] = self.chance.choices(list(steps.items()), [weight for weight, _ in steps.values()])
        if await step():
            self.done[name] += 1

    def _sound(self) -> list[NodeServer]:
        return [node for node in self.stage.nodes if node not in self.frozen and node.process is not None]

    def _somebody(self) -> Peer | None:
        """A connection of a user that may go, on a node that can say good-bye."""
        sound = self._sound()
        peers = [one for one, home in self.stage.homes.items() if one.user in USERS and home in sound]
        return self.chance.choice(peers) if peers else None

    async def _open(self) -> bool:
        one = await self.stage.open(self.chance.choice(USERS), self.chance.choice(self._sound()), join=False)
        await one.join(ROOM)  # refused while Redis is away; then it is in no room
        return True

    async def _close(self) -> bool:
        one = self._somebody()
        if one is not None:
            await self.stage.close(one)
        return one is not None

    async def _vanish(self) -> bool:
        one = self._somebody()
        if one is not None:
            await self.stage.vanish(one)
        return one is not None

    async def _move(self) -> bool:
        """A page reload that ends up on any node."""
        one = self._somebody()
        if one is not None:
            await self.stage.close(one)
            again = await self.stage.open(one.user, self.chance.choice(self._sound()), join=False)
            await again.join(ROOM)
        return one is not None

    async def _kill_node(self) -> bool:
        node = self.chance.choice(self.stage.nodes[:2])
        self.frozen.discard(node)
        self.stage.lost(node)
        node.kill()
        node.launch()
        await node.wait_ready()
        return True

    async def _freeze_or_thaw(self) -> bool:
        node = self.chance.choice(self.stage.nodes[:2])
        if node in self.frozen:
            self.frozen.remove(node)
            node.resume()
        else:
            self.frozen.add(node)
            node.pause()
        return True

    async def _kill_connections(self) -> bool:
        kind = self.chance.choice(["normal", "pubsub"])
        await self._redis("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")
        return True

    async def _flush(self) -> bool:
        await self._redis("FLUSHALL")
        return True

    async def _forget_scripts(self) -> bool:
        await self._redis("SCRIPT", "FLUSH")
        return True

    async def _freeze_redis(self) -> bool:
        self.stage.redis.pause()
        try:
            await asyncio.sleep(self.chance.choice([0.5, 2.5]))
        finally:
            self.stage.redis.resume()
        return True

    async def _restart_redis(self) -> bool:
        await asyncio.to_thread(self.stage.redis.restart, empty=True)
        return True

    async def _memory_full(self) -> bool:
        await self._redis("CONFIG", "SET", "maxmemory", 1)
        try:
            await asyncio.sleep(self.chance.choice([0.5, 2.5]))
        finally:
            await self._redis("CONFIG", "SET", "maxmemory", 0)
        return True

    async def _redis(self, *arguments: object) -> None:
        await asyncio.to_thread(self.stage.redis.command, *arguments)

    async def _end(self) -> None:
        """The last fault is over."""
        for node in self.frozen:
            node.resume()
        await asyncio.gather(*(node.wait_ready() for node in self.stage.nodes))
        # Who could not join then does so now, and nobody else has lost a room.
        for one in [one for one in self.stage.homes if ROOM not in one.views]:
            await self.stage.join(one)


async def run_schedules(stages: list[Servers], count: int) -> None:
    """So many, shared by the clusters, which run side by side."""
    seed = int(os.environ.get("PRESENCE_SEED") or random.SystemRandom().randrange(10**9))
    done: Counter[str] = Counter()
    numbers = iter(range(seed, seed + count))

    async def run(servers: Servers) -> None:
        for number in numbers:
            print(f"PRESENCE_SEED={number}", flush=True)
            try:
                async with Stage(servers) as stage:
                    await Schedule(stage, random.Random(number), done).run()
            except Exception as error:
                error.add_note(f"PRESENCE_SEED={number}")
                raise

    async with asyncio.TaskGroup() as group:
        for servers in stages:
            group.create_task(run(servers))
    print(f"{count} schedules from PRESENCE_SEED={seed}: {dict(done)}")
    note("random fault schedules without ghost or wrong offline", count, "")


@pytest.fixture(scope="module")
def clusters() -> Iterator[list[Servers]]:
    with servers(3) as one, servers(3) as two:
        yield [one, two]


@pytest.mark.timeout(200)
async def test_presence_is_exact_after_random_faults(clusters: list[Servers]) -> None:
    await run_schedules(clusters, 10)


@pytest.mark.slow
@pytest.mark.timeout(3600)
async def test_presence_is_exact_after_two_hundred_random_schedules(clusters: list[Servers]) -> None:
    await run_schedules(clusters, 200)

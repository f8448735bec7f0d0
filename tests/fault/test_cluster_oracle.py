"""T1 on a cluster: besides what test_oracle.py does, slots move with the rooms in them and masters change places.

A planned failover (CLUSTER FAILOVER) loses nothing, so there is still no excuse for a single reset. One that is not
planned may, and is judged by what the log holds in the end: test_cluster.py.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import ClassVar

import pytest

from broker.redis.keys import CLUSTER_SHARDS, Keys
from tests.fault.test_oracle import ROOMS, Run, a_seed, run_on
from tests.support.node import NodeServer
from tests.support.redis_cluster import RedisCluster, went_through
from tests.support.waiting import eventually_sync

KEYS = Keys(shards=CLUSTER_SHARDS)
FAILOVER_TRIES = 10


class ClusterRun(Run):
    weights: ClassVar[dict[str, int]] = {**Run.weights, "kill": 2, "move a slot": 4, "failover": 2}

    def __init__(self, nodes: list[NodeServer], redis_cluster: RedisCluster, seed: int) -> None:
        super().__init__(nodes, list(redis_cluster.servers), seed)
        self.cluster = redis_cluster
        self.moved_keys = 0

    async def make(self, kind: str) -> None:
        if kind == "move a slot":
            await asyncio.to_thread(self.move_a_slot)
        elif kind == "failover":
            await asyncio.to_thread(self.fail_over)
        else:
            await super().make(kind)

    def move_a_slot(self) -> None:
        slot = KEYS.slot(KEYS.shard(f"room-{self.chance.randrange(ROOMS)}"))
        source = self.cluster.owner(slot)
        masters = [s for s in self.cluster.servers if s is not source and s.info("replication")["role"] == "master"]
        self.moved_keys += self.cluster.move_slot(slot, self.chance.choice(masters), batch=1)

    def fail_over(self) -> None:
        replicas = [server for server in self.cluster.servers if server.info("replication")["role"] == "slave"]
        replica = self.chance.choice(replicas)
        for _ in range(FAILOVER_TRIES):
            went_through(replica.command, "CLUSTER", "FAILOVER")
            with contextlib.suppress(AssertionError):  # Redis gives one up after 5 s
                eventually_sync(lambda: replica.info("replication")["role"] == "master", 6)
                break
        else:
            raise AssertionError(f"the replica at {replica.port} does not become the master")
        self.cluster.settled()


async def run_oracle(duration_s: float, seed: int) -> None:
    with contextlib.ExitStack() as stack:
        cluster = await asyncio.to_thread(stack.enter_context, RedisCluster())
        runs: list[ClusterRun] = []

        def make_run(nodes: list[NodeServer]) -> ClusterRun:
            runs.append(ClusterRun(nodes, cluster, seed))
            return runs[0]

        await run_on(cluster.url, make_run, duration_s)
        print(f"{runs[0].moved_keys} keys moved")


@pytest.mark.system
@pytest.mark.redis
@pytest.mark.timeout(180)
async def test_no_client_misses_anything_while_slots_move_and_masters_change_places() -> None:
    await run_oracle(10, a_seed())


@pytest.mark.slow
@pytest.mark.system
@pytest.mark.redis
@pytest.mark.timeout(900)
async def test_no_client_misses_anything_in_five_minutes_of_moves_and_failovers() -> None:
    await run_oracle(300, a_seed())

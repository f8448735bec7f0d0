"""T1 behind sentinels, and on a node with the embedded broker: same clients, same judgement as in test_oracle.py."""

from __future__ import annotations

import asyncio
import contextlib
from typing import ClassVar

import pytest

from tests.fault.test_oracle import Run, a_seed, run_on
from tests.support.node import NodeServer
from tests.support.redis_cluster import went_through
from tests.support.redis_sentinel import NAME, RedisSentinels
from tests.support.waiting import eventually_sync

pytestmark = [pytest.mark.system, pytest.mark.timeout(240)]


class SentinelRun(Run):
    weights: ClassVar[dict[str, int]] = {**Run.weights, "kill": 2, "failover": 1}

    def __init__(self, nodes: list[NodeServer], sentinels: RedisSentinels, seed: int) -> None:
        super().__init__(nodes, sentinels.servers, seed)
        self.sentinels = sentinels

    async def make(self, kind: str) -> None:
        if kind == "failover":
            await asyncio.to_thread(self.fail_over)
        else:
            await super().make(kind)

    def fail_over(self) -> None:
        """A planned one, so that nothing is lost and there is no excuse for a reset: the master wants a replica more
        than there is, and so takes nothing more until it is one itself. (Unplanned ones: test_sentinel.py.)"""
        old = self.sentinels.master
        old.command("CONFIG", "SET", "min-replicas-to-write", len(self.servers))
        eventually_sync(lambda: len({server.info("replication")["master_repl_offset"] for server in self.servers}) == 1)
        ask = self.sentinels.sentinels[0].command
        eventually_sync(lambda: went_through(ask, "SENTINEL", "FAILOVER", NAME), 60)
        self.sentinels.promoted(old)
        self.sentinels.settled()  # and the old one is a replica
        old.command("CONFIG", "SET", "min-replicas-to-write", 0)


class EmbeddedRun(Run):
    weights: ClassVar[dict[str, int]] = {"cut": 10, "cut many": 3}


@pytest.mark.redis
async def test_no_client_misses_anything_while_masters_change_places_behind_sentinels() -> None:
    with contextlib.ExitStack() as stack:
        # On a busy machine a master is silent for a second, and would be replaced without having been asked to stop.
        sentinels = await asyncio.to_thread(stack.enter_context, RedisSentinels(down_after_ms=60_000))
        await run_on(sentinels.url, lambda nodes: SentinelRun(nodes, sentinels, a_seed()), 10)


async def test_no_client_misses_anything_on_one_node_with_the_embedded_broker() -> None:
    await run_on("memory://", lambda nodes: EmbeddedRun(nodes, [], a_seed()), 5, count=1)

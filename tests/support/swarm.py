"""A crowd of load-test clients behind the nginx of deploy/, real nodes on a real Redis: for tests that move clients."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from loadtests.crowd import Crowd, peak_to_mean
from tests.support.cluster import SCALED, UNLIMITED, cluster
from tests.support.figures import note
from tests.support.nginx import NginxServer, static_upstream
from tests.support.node import NodeServer

PATIENT: dict[str, Any] = {"presence_broadcast": "rooms", "lease_s": 8, "grace_s": 8}
"""Who is away for a second, on a machine where others compute, is not away."""


class Swarm:
    def __init__(self, nodes: list[NodeServer], later: list[NodeServer], crowd: Crowd) -> None:
        self.nodes = nodes
        self.later = later
        """nginx knows them already; they have not been started."""
        self.crowd = crowd

    async def start_later(self) -> None:
        for node in self.later:
            node.launch()
        await asyncio.gather(*(node.wait_ready() for node in self.later))
        self.nodes += self.later

    def judge_peak(self, row: str, since_s: float, window_s: float) -> None:
        """AssertionError if more clients came back within ``window_s`` than 1.5 times the mean; what a stall of this
        process brings together is allowed for."""
        tries_s = self.crowd.tries_s(since_s)
        peak = peak_to_mean(tries_s, window_s)
        note(f"{row}: reconnects", len(tries_s), "")
        note(f"{row}: their peak over {window_s:g} s, to their mean", peak, "")
        stalled_s = self.crowd.stalled_s
        assert peak <= 1.5 * (1 + 2 * stalled_s / window_s), (peak, stalled_s)

    async def judge(self, timeout_s: float = 30.0) -> None:
        """AssertionError unless everybody has seen every message once, and the observers nobody come or go."""
        in_time = await self.crowd.settled(timeout_s)
        verdict = self.crowd.verdict()
        assert in_time and not any(verdict.values()), (in_time, verdict, self.crowd.nodes())
        assert self.crowd.published > 0


@asynccontextmanager
async def swarm(
    members: int,
    nodes: int,
    later: int = 0,
    *,
    round_robin: bool = False,
    rate: float = 100,
    settings: dict[str, Any] | None = None,
) -> AsyncIterator[Swarm]:
    """Everybody is here, and ``rate`` messages a second are said, until the block ends; then all is judged."""
    chosen = PATIENT | (settings or {})
    async with cluster(nodes, settings=chosen) as world, contextlib.AsyncExitStack() as stack:
        more = [NodeServer(broker=world.redis.url, **SCALED | UNLIMITED | chosen) for _ in range(later)]
        for node in more:
            stack.push(node.__exit__)
        upstream = static_upstream([node.port for node in [*world.nodes, *more]])
        if round_robin:
            upstream = upstream.replace("    least_conn;\n", "")
        proxy = stack.enter_context(NginxServer([], upstream=upstream))
        crowd = Crowd(members, ("127.0.0.1", proxy.port))
        stack.push_async_callback(crowd.leave)
        await crowd.arrive(60)
        here = Swarm(world.nodes, more, crowd)
        async with crowd.talking(rate):
            yield here
        await here.judge()

"""Nodes are added behind nginx, and the others send them what is above their share: nothing is lost, nobody is seen to
go, and then it is quiet (row A16 of the fault catalogue)."""

from __future__ import annotations

import asyncio
import time

import pytest

from tests.support.cluster import PRODUCTION
from tests.support.figures import note
from tests.support.swarm import Swarm, swarm
from tests.support.waiting import eventually

pytestmark = [pytest.mark.redis, pytest.mark.nginx, pytest.mark.system]

BALANCED = 0.15


def spread(here: Swarm) -> float:
    """How far the nodes are apart, to the mean."""
    counts = here.crowd.nodes()
    return (max(counts.values()) - min(counts.values())) * len(here.nodes) / counts.total()


def moved(here: Swarm) -> int:
    return sum(len(member.closes) for member in here.crowd.everybody)


async def comes_to_rest(here: Swarm, row: str, timeout_s: float, quiet_s: float) -> None:
    """The nodes that come later get their share, and then nobody is moved any more."""
    everybody = here.crowd.everybody
    await here.start_later()
    started_s = time.monotonic()
    await eventually(lambda: len(here.crowd.nodes()) == len(here.nodes) and spread(here) < BALANCED, timeout_s)
    note(f"{row}: spread below 15 % after", time.monotonic() - started_s, "s")

    async def quiet() -> bool:
        before = moved(here)
        await asyncio.sleep(quiet_s)
        return moved(here) == before

    assert await eventually(quiet, timeout_s)
    await here.crowd.all_here(10)
    assert spread(here) < BALANCED, here.crowd.nodes()
    note(f"{row}: spread at rest", spread(here), "")
    note(f"{row}: moves per connection above the share", moved(here) / (len(everybody) / 2), "")
    assert {code for member in everybody for code in member.closes} == {1012}
    counted = [await asyncio.to_thread(node.metric, "roomcast_rebalanced_connections_total") for node in here.nodes]
    assert sum(counted) == moved(here)


@pytest.mark.timeout(120)
async def test_from_two_to_four_nodes() -> None:
    async with swarm(160, 2, 2, settings={"rebalance_per_s": 100}) as here:
        await comes_to_rest(here, "A16 rebalance", 60, quiet_s=2.2)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("round_robin", [False, True])
async def test_from_two_to_four_nodes_at_production_times(round_robin: bool) -> None:
    async with swarm(1000, 2, 2, round_robin=round_robin, settings=PRODUCTION | {"rebalance_per_s": 20}) as here:
        row = f"A16 rebalance, {'round robin' if round_robin else 'least_conn'}, production"
        await comes_to_rest(here, row, 180, quiet_s=22)
        most = 1.05 if not round_robin else 3
        assert moved(here) <= most * 502, "where nginx sends them to the emptiest node nobody is moved twice"

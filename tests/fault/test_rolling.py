"""A rolling restart behind nginx, as clients see it: row A10 of the fault catalogue, and how evenly they come back."""

from __future__ import annotations

import asyncio
import time

import pytest

from tests.support.cluster import PRODUCTION
from tests.support.figures import note
from tests.support.swarm import Swarm, swarm

pytestmark = [pytest.mark.redis, pytest.mark.nginx, pytest.mark.system]


async def roll(here: Swarm, row: str, window_s: float, pause_s: float) -> None:
    """Restart one node after the other. Peaks are taken over ``window_s``."""
    for node in here.nodes:
        began_s = asyncio.get_running_loop().time()
        started_s = time.monotonic()
        assert await node.stopped(60) == 0
        note(f"{row}: a node left in", time.monotonic() - started_s, "s")
        node.launch()
        await node.wait_ready()
        await asyncio.sleep(pause_s)
        here.judge_peak(row, began_s, window_s)


@pytest.mark.timeout(120)
async def test_a_rolling_restart_behind_nginx_loses_nothing_and_nobody_is_seen_to_go() -> None:
    async with swarm(300, 3, settings={"drain_s": 2}) as here:
        await roll(here, "A10 rolling", 1.0, pause_s=0.3)
        assert {code for member in here.crowd.everybody for code in member.closes} == {1012}


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_a_rolling_restart_at_production_times_while_nodes_rebalance() -> None:
    async with swarm(1500, 3, settings=PRODUCTION | {"rebalance_per_s": 20}) as here:
        await roll(here, "A10 rolling, production", 2.0, pause_s=5)

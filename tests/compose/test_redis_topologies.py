"""compose.yaml with several Redis servers, in real containers: they find each other, and one may die."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import pytest

from tests.compose.stack import Stack
from tests.support.crowd import Crowd
from tests.support.figures import note

pytestmark = [pytest.mark.compose, pytest.mark.slow, pytest.mark.timeout(600)]

ROOMS = 12
"""Enough for every master of three to have some."""


@pytest.fixture(params=["sentinel", "cluster"])
def stack(built: Stack, request: pytest.FixtureRequest) -> Iterator[Stack]:
    ordinary = built.files
    built.files = (*ordinary, f"deploy/compose.{request.param}.yaml")
    try:
        built.scale(2)
        built.wait_healthy("node", 2, 120)
        yield built
    finally:
        built.down()
        built.files = ordinary


async def test_rooms_work_and_do_so_again_after_a_master_died(stack: Stack) -> None:
    async with Crowd(stack.client, members=24, rooms=ROOMS).talking() as crowd:
        await crowd.progress(200)
    [master] = await asyncio.to_thread(stack.ids, "redis")
    await asyncio.to_thread(stack.engine.docker, "update", "--restart=no", master)
    await asyncio.to_thread(stack.engine.docker, "kill", master)
    start = time.monotonic()
    async with stack.client("survivor") as client:
        for name in crowd.rooms:
            room = await client.join(name)
            await room.send("after the failover", timeout_s=60)
    note(f"{stack.files[-1]}: all rooms take messages again after", time.monotonic() - start, "s")

"""How long a client with the times of production believes in a connection that is dead without a word."""

from __future__ import annotations

import asyncio
import time

import pytest

from tests.clients.behaviour.driving import Driver
from tests.clients.behaviour.world import World, play
from tests.clients.js import npm
from tests.support.figures import note

pytestmark = [
    *(pytest.mark.slow, pytest.mark.redis, pytest.mark.nginx, pytest.mark.system),
    pytest.mark.timeout(120),
]

PROMISED_S = {"javascript": 10 + 5, "python": 10 + 10 + 2}
"""Of silence, of waiting for a pong and, in Python, for an answer to the close (docs/clients.md)."""
SLACK_S = 1


async def test_a_silent_death_is_noticed_as_soon_as_promised() -> None:
    npm.install()
    with World(ping_s=10) as world:
        async with play(world, heartbeat_s=0) as scene:
            await scene.talk()
            for one in scene.clients:
                one.tell("hush")
            await scene.all_see("hushed")
            since = scene.marks()
            began_s = time.monotonic()
            scene.network.hold_up()
            scene.network.hold_down()

            async def noticed(one: Driver) -> None:
                timeout_s = PROMISED_S[one.name] + SLACK_S
                await one.sees("status", since=since[one.name], timeout_s=timeout_s, status="waiting", code=1006)
                note(f"half-open connection, times of production: {one.name} notices", time.monotonic() - began_s, "s")

            await asyncio.gather(*map(noticed, scene.clients))
            scene.network.cut()
            scene.network.release()
            await scene.ends_well()

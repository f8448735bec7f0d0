"""What a node does beside its clients: makes first contact, tells the others that it lives, looks after itself."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING

from broker.base import Unavailable
from server.version import VERSION

if TYPE_CHECKING:
    from server.hub import LocalHub

ANNOUNCE_S = 5.0
CHECK_POSITIONS_S = 60.0


class Upkeep:
    def __init__(self, hub: LocalHub) -> None:
        self._hub = hub

    def start(self) -> None:
        tasks = self._hub.tasks
        tasks.spawn(self._first_contact(), "first contact")
        tasks.spawn(self._hub.metrics.sample_loop_lag(), "loop lag", forever=True)
        tasks.spawn(self._announce(), "announce", forever=True)
        tasks.spawn(self._check_positions(), "check positions", forever=True)

    async def _first_contact(self) -> None:
        """What was wanted before the broker could be reached is subscribed now."""
        await self._hub.broker.wait_ready()
        self._hub.interest.retry()
        self._hub.feed.retry()
        self._hub.presence.retry()
        self._hub.revocations.load()

    async def _check_positions(self) -> None:
        """A second net under the probe: compare with the logs now and then. It also tells the broker which rooms are
        in use, so that the log of a silent one is not forgotten."""
        while True:
            await asyncio.sleep(CHECK_POSITIONS_S)
            self._hub.feed.verify(list(self._hub.feed.rooms))

    async def _announce(self) -> None:
        """Keep this node's description in the broker, for `nodes` and for rebalancing."""
        started = time.time()
        while True:
            await self._hub.broker.wait_ready()
            description: dict[str, object] = {
                "node": self._hub.broker.node_id,
                "version": VERSION,
                "started": started,
                "connections": self._hub.counts.connections,
                "rooms": self._hub.counts.rooms,
            }
            with contextlib.suppress(Unavailable):
                await self._hub.broker.announce(description, ttl_s=3 * ANNOUNCE_S)
            await asyncio.sleep(ANNOUNCE_S)

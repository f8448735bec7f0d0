"""What a node does beside its clients: makes first contact, tells the others that it lives, looks after itself, and
sends what it has above its share of the connections to emptier nodes (server/rebalance.py decides how many)."""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import logging
import os
import time
from operator import attrgetter
from typing import TYPE_CHECKING

from broker.base import Unavailable
from server.drain import send_away
from server.rebalance import Figures, Rebalance, figures
from server.version import VERSION

if TYPE_CHECKING:
    from server.connection import Connection
    from server.hub import LocalHub

logger = logging.getLogger("server.upkeep")

HEARTBEATS = 2.5
"""Between two announcements: 5 s, as heartbeats are."""
STEPS = 5
"""While connections are sent away the figures are looked at so often between two announcements."""
CHECK_POSITIONS_S = 60.0
CHECK_DESCRIPTORS_S = 1.0
SURPLUS = "this node has more than its share: reconnect"


class Upkeep:
    def __init__(self, hub: LocalHub) -> None:
        self._hub = hub
        self._announce_s = HEARTBEATS * hub.settings.heartbeat_s
        self._rebalance = Rebalance(self._announce_s)
        self._tell = asyncio.Event()
        self._started = time.time()

    def start(self) -> None:
        tasks = self._hub.tasks
        tasks.spawn(self._first_contact(), "first contact")
        tasks.spawn(self._hub.metrics.sample_loop_lag(), "loop lag", forever=True)
        tasks.spawn(self._announce(), "announce", forever=True)
        tasks.spawn(self._check_positions(), "check positions", forever=True)
        tasks.spawn(self._check_descriptors(), "check descriptors", forever=True)
        if self._hub.settings.rebalance_per_s > 0:
            tasks.spawn(self._send_surplus(), "rebalance", forever=True)

    def tell_now(self) -> None:
        """Announce at once: something has changed that the others should know."""
        self._tell.set()

    async def farewell(self) -> None:
        """The others need not wait until the last announcement runs out."""
        with contextlib.suppress(Unavailable):
            await self._hub.broker.announce({}, ttl_s=0)

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

    async def _check_descriptors(self) -> None:
        """Without a free descriptor libuv accepts whoever comes and closes at once, and tells nobody."""
        while True:
            await asyncio.sleep(CHECK_DESCRIPTORS_S)
            try:
                os.close(os.open("/dev/null", os.O_RDONLY))
            except OSError as error:
                logger.error("new connections are closed: %s. Raise the limit of open files", error.strerror)

    async def _announce(self) -> None:
        """Keep this node's description in the broker."""
        while True:
            await self._hub.broker.wait_ready()
            self._tell.clear()
            with contextlib.suppress(Unavailable):
                await self._hub.broker.announce(self._description(), ttl_s=3 * self._announce_s)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._announce_s):
                    await self._tell.wait()

    def _description(self) -> dict[str, object]:
        own = self._own()
        return {
            "node": own.node,
            "version": VERSION,
            "started": self._started,
            "updated": own.updated,
            "connections": own.connections,
            "moved": own.moved,
            "rooms": self._hub.counts.rooms,
            "leaving": own.leaving,
        }

    def _own(self) -> Figures:
        hub, moved = self._hub, self._rebalance.moved(time.monotonic())
        return Figures(hub.broker.node_id, hub.counts.connections, moved, hub.draining, time.time())

    # Rebalancing.

    async def _send_surplus(self) -> None:
        """For ever: at the set rate, as long as there is any."""
        rate, step_s = self._hub.settings.rebalance_per_s, self._announce_s / STEPS
        allowed = 0.0
        while True:
            await asyncio.sleep(step_s if self._rebalance.active else self._announce_s)
            surplus = await self._surplus()
            allowed = min(allowed + rate * step_s, max(1.0, rate * step_s)) if surplus else 0.0
            sent = self._send_away(min(surplus, int(allowed)), step_s)
            allowed -= sent

    async def _surplus(self) -> int:
        hub = self._hub
        try:
            if hub.ready:
                own = self._own()
                others = [each for each in map(figures, await hub.broker.nodes()) if each.node != own.node]
                if hub.ready:
                    return self._rebalance.surplus(time.monotonic(), own, others)
        except (Unavailable, ValueError):
            pass
        self._rebalance.hold()
        return 0

    def _send_away(self, count: int, within_s: float) -> int:
        """The oldest connections, so that nobody is moved twice before everybody was once. Only those that speak the
        protocol: they resume without a loss."""
        if count == 0:
            return 0
        hub = self._hub
        clients = (each for path in hub.paths for each in hub.paths.members(path) if not each.closed)
        chosen: list[Connection] = heapq.nsmallest(count, clients, key=attrgetter("id"))
        for connection in chosen:
            send_away(connection, within_s, SURPLUS)
        self._rebalance.sent(time.monotonic(), len(chosen))
        hub.counts.rebalanced += len(chosen)
        return len(chosen)

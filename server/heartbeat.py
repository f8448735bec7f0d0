"""One wheel for all pings of a node, instead of one timer per connection.

The connections are spread over ``SLOTS`` slots; every ``ping_s / SLOTS`` seconds one slot has its turn. At its turn a
connection that has not been heard since its last ping is aborted; the others are pinged. So an answer is due within
``ping_s``, and an idle connection owns no timer and no task.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

SLOTS = 10


class Beating(Protocol):
    def beat(self, forgive: bool) -> None:
        """Your turn: abort if the peer is gone, else ping it. ``forgive``: this node itself was away, so silence
        proves nothing."""


class Heartbeat:
    def __init__(self, ping_s: float) -> None:
        self.ping_s = ping_s
        self._slots: list[set[Beating]] = [set() for _ in range(SLOTS)]
        self._turn = 0
        self._forgive = 0

    def add(self, connection: Beating) -> int:
        """Put it into the slot whose turn is farthest away. Returns the slot, for :meth:`discard`."""
        slot = (self._turn - 1) % SLOTS
        self._slots[slot].add(connection)
        return slot

    def discard(self, connection: Beating, slot: int) -> None:
        self._slots[slot].discard(connection)

    def turn(self, late: bool) -> None:
        """Give the next slot its turn. ``late``: more than a whole turn was missed (a frozen process), so what the
        peers answered may still lie unread in the sockets: one full round is forgiven."""
        if late:
            self._forgive = SLOTS
        forgive = self._forgive > 0
        if forgive:
            self._forgive -= 1
        self._turn = (self._turn + 1) % SLOTS
        for connection in tuple(self._slots[self._turn]):
            connection.beat(forgive)

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        pause = self.ping_s / SLOTS
        while True:
            due = loop.time() + pause
            await asyncio.sleep(pause)
            self.turn(late=loop.time() - due > pause)

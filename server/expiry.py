"""Closes connections whose token has expired, and tells them before. One timer for all of them.

Moments are Unix times, as in tokens; a clock that is set is noticed at the next look, at most ``LOOK_S`` later.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import math
import time
from typing import Final

from server import closing, events
from server.connection import Connection

NOTICE_S: Final = 30.0
"""``auth_expiring`` is sent this long before a token expires, or after half of what is left of its life."""
LOOK_S: Final = 1.0
"""How late a connection is closed at most."""


class Expiry:
    def __init__(self, leeway_s: float, notice_s: float = NOTICE_S) -> None:
        """``leeway_s`` after its token's expiry a connection is closed with 4003."""
        self._leeway_s = leeway_s
        self._notice_s = notice_s
        self._due: dict[Connection, tuple[float, bool]] = {}
        """Connection -> when its token expires, and whether it has been told."""
        self._moments: list[tuple[float, int, Connection, float]] = []
        self._order = itertools.count()
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, connection: Connection, expires_at: float | None) -> None:
        """From now on this moment counts for the connection, and no earlier one; None: it never expires."""
        known = self._due.pop(connection, None)
        if expires_at is None:
            return
        if known is not None and known[0] == expires_at:  # the same token again: what was told is not told again
            self._due[connection] = known
            return
        self._due[connection] = (expires_at, False)
        # Not at once where little is left: a client that renews at every notice would do nothing else.
        notice_s = min(self._notice_s, max(0.0, expires_at - time.time()) / 2)
        self._plan(expires_at - notice_s, connection, expires_at)

    def forget(self, connection: Connection) -> None:
        self._due.pop(connection, None)
        if len(self._moments) > 2 * len(self._due) + 64:  # most of them belong to connections that are gone
            self._moments = [m for m in self._moments if self._due.get(m[2], (None,))[0] == m[3]]
            heapq.heapify(self._moments)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _plan(self, moment: float, connection: Connection, expires_at: float) -> None:
        heapq.heappush(self._moments, (moment, next(self._order), connection, expires_at))
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(0, self._look)
        elif self._moments[0][2] is connection:
            self._timer.cancel()
            self._timer = asyncio.get_running_loop().call_later(0, self._look)

    def _look(self) -> None:
        now = time.time()
        while self._moments and self._moments[0][0] <= now:
            _, _, connection, expires_at = heapq.heappop(self._moments)
            due = self._due.get(connection)
            if due is None or due[0] != expires_at:
                continue  # gone, or another token counts
            if now >= expires_at + self._leeway_s:
                del self._due[connection]
                connection.close(closing.TOKEN_EXPIRED, "the token has expired: get a new one, reconnect")
                continue
            if not due[1]:
                self._due[connection] = (expires_at, True)
                if not connection.raw:
                    connection.send_event(events.auth_expiring(max(0, math.ceil(expires_at - now))))
            self._plan(expires_at + self._leeway_s, connection, expires_at)
        self._timer = None
        if self._moments:
            pause = min(LOOK_S, max(0.0, self._moments[0][0] - now))
            self._timer = asyncio.get_running_loop().call_later(pause, self._look)

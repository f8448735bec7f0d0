"""Messages to an application's own protocol are let in at a pace: over it the node reads on later."""

from __future__ import annotations

import asyncio

from server import closing
from server.connection import PACED, Connection
from server.limits import STRAINED_S, Pace, Rates
from server.settings import Settings


def read_on_later(connection: Connection, size: int, rates: Rates) -> None:
    """A message of so many bytes went to the application: hold the reading if there were too many, or end it."""
    pace = connection.pace
    if pace is None:
        pace = connection.pace = Pace()
    loop = asyncio.get_running_loop()
    hold_s = pace.take(size, rates, loop.time())
    if hold_s is None:
        connection.close(closing.RATE_LIMITED, f"over the limit for {STRAINED_S:g} s: slow down")
    elif hold_s > 0:
        connection.hold(PACED)
        loop.call_later(hold_s, connection.release, PACED)


def raw_rates(settings: Settings) -> Rates:
    return Rates(
        settings.raw_messages_per_s,
        settings.raw_messages_burst,
        settings.raw_bytes_per_s,
        settings.raw_bytes_burst,
    )

"""Sending clients to other nodes: all of them when this node leaves, a few when it has more than its share.

A leaving node takes nobody new, says 503 at ``/readyz``, and gives every connection ``drain`` and the close 1012, paced
over ``drain_s`` so that the other nodes are not met by a storm. ``retry_after_ms`` spreads the clients of one moment a
little further. What to do with those that do not answer the close is the server's part (server/serve.py).
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
from collections.abc import Callable, Collection, Sequence

from server import closing, events
from server.connection import Connection

logger = logging.getLogger("server.drain")

STEP_S = 0.1
"""Connections are closed in steps of this length."""
CLOSES_PER_S = 50
"""A node with few connections need not take the whole time: the pace is never slower than this."""
SPREAD = 0.1
"""``retry_after_ms`` is at most this part of the time that the closes take: longer, and the last clients to be told
would be long in coming; without it those of one step would come at once."""
MAX_RETRY_AFTER_S = 2.0


def duration_s(connections: int, drain_s: float) -> float:
    """How long the closes of so many take. Pure."""
    return min(drain_s, connections / CLOSES_PER_S)


def due(connections: int, takes_s: float, elapsed_s: float) -> int:
    """How many of them are to be closed by now: evenly over the time, all at its end. Pure."""
    return connections if elapsed_s >= takes_s else int(connections * elapsed_s / takes_s)


def spread_s(takes_s: float) -> float:
    """The longest delay that a client is asked for. Pure."""
    return min(MAX_RETRY_AFTER_S, SPREAD * takes_s)


def send_away(connection: Connection, within_s: float, reason: str) -> None:
    """Ask a client to come back, to whichever node, at some moment of the next ``within_s``."""
    if connection.closed:
        return
    if not connection.raw:
        connection.send_event(events.drain(random.randrange(max(1, math.ceil(within_s * 1000)))))
    connection.close(closing.RESTART, reason)


def leaving_order(connections: Collection[Connection]) -> list[Connection]:
    """Those that owe us reading first: by the time the last one is told their patience has run out. Else at random."""
    shuffled = random.sample(list(connections), len(connections))
    return sorted(shuffled, key=lambda connection: connection.outbound_bytes() == 0)


async def drain(everyone: Callable[[], Sequence[Connection]], drain_s: float) -> None:
    """Send everybody away, also who was being admitted when it began. Returns when the last one was told."""
    waiting = leaving_order(everyone())
    total, done = len(waiting), 0
    takes_s = duration_s(total, drain_s)
    if total:
        logger.info("draining %d connections over %g s", total, takes_s)
    loop = asyncio.get_running_loop()
    start_s = loop.time()
    while done < total:
        target = due(total, takes_s, loop.time() + STEP_S - start_s)
        for connection in waiting[done:target]:
            send_away(connection, spread_s(takes_s), LEAVING)
        done = target
        await asyncio.sleep(STEP_S)
    for connection in everyone():
        send_away(connection, spread_s(takes_s), LEAVING)


LEAVING = "the node is restarting: reconnect"

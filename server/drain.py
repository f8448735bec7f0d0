"""Leaving without a trace: a node that is told to stop sends its clients to other nodes before it goes.

No new connections, ``/readyz`` 503, then every connection gets ``drain`` and the close 1012, paced over ``drain_s`` so
that the other nodes are not met by a storm. ``retry_after_ms`` spreads the clients of one moment a little further.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
from collections.abc import Iterator, Sequence

from server import closing, events
from server.connection import Connection

logger = logging.getLogger("server.drain")

STEP_S = 0.1
"""Connections are closed in steps of this length."""
CLOSES_PER_S = 50
"""A node with few connections need not take the whole time: the pace is never slower than this."""
MAX_RETRY_AFTER_MS = 2000


def pace(connections: int, drain_s: float) -> Iterator[int]:
    """How many connections to close in each step. They add up, in at most ``drain_s``. Pure."""
    steps = max(1, math.ceil(min(drain_s, connections / CLOSES_PER_S) / STEP_S))
    done = 0
    for step in range(1, steps + 1):
        due = connections * step // steps
        yield due - done
        done = due


async def drain(connections: Sequence[Connection], drain_s: float) -> None:
    """Send everybody away. Returns when the last one was told; what does not answer is aborted by its own deadline."""
    if not connections:
        return
    logger.info("draining %d connections over at most %g s", len(connections), drain_s)
    waiting = list(connections)
    random.shuffle(waiting)
    for count in pace(len(waiting), drain_s):
        for _ in range(count):
            connection = waiting.pop()
            if not connection.closed:
                if not connection.raw:
                    connection.send_event(events.drain(random.randrange(MAX_RETRY_AFTER_MS)))
                connection.close(closing.RESTART, "the node is restarting: reconnect")
        if waiting:
            await asyncio.sleep(STEP_S)

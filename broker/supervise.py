"""The owner of a background loop: notices its end, says why, starts it again."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from broker.stats import BrokerStats

logger = logging.getLogger("broker")

RESTART_S = 0.25


async def supervise(name: str, work: Callable[[], Awaitable[None]], stats: BrokerStats) -> None:
    """Run ``work`` for ever: when it raises or ends, log and count that and run it again a moment later."""
    while True:
        try:
            await work()
            logger.error("%s ended, it should not; starting it again", name)
        except Exception:
            logger.exception("%s died; starting it again", name)
        stats.task_restarts += 1
        await asyncio.sleep(RESTART_S)

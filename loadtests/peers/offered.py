"""What the publisher offers, for bridges that publish it in a peer's own way."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator

import redis.asyncio

ROOM = "bench"
REDIS_URL = os.environ.get("PEER_REDIS_URL", "redis://127.0.0.1:6379")


async def offered() -> AsyncIterator[str]:
    """The payloads, in order."""
    async with redis.asyncio.from_url(REDIS_URL, protocol=2) as client, client.pubsub() as subscription:
        await subscription.subscribe(ROOM)
        async for event in subscription.listen():
            if event["type"] == "message":
                yield event["data"].decode()

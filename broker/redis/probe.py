"""The way of a probe: a nonce that is published in several shards and comes back on the node's own channel in each."""

from __future__ import annotations

import asyncio
from collections.abc import Collection

from broker.redis.errors import ConnectionLost


class Probe:
    """One nonce, and the shards in which it has come back."""

    def __init__(self, nonce: bytes) -> None:
        self._nonce = nonce
        self._seen: set[int] = set()
        self._lost = ""
        self._changed = asyncio.Event()

    def returned(self, nonce: bytes, shard: int) -> None:
        if nonce == self._nonce:
            self._seen.add(shard)
            self._changed.set()

    def lost(self, reason: str) -> None:
        """The connection on which it would come has ended."""
        self._lost = reason or "lost"
        self._changed.set()

    async def wait(self, shards: Collection[int]) -> None:
        """Return when it has come back in all of these. Raises :class:`ConnectionLost`."""
        while not self._seen.issuperset(shards):
            if self._lost:
                raise ConnectionLost(self._lost)
            self._changed.clear()
            await self._changed.wait()

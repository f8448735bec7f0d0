"""Presence over all shards: a room is in the shard of its log, a user of everywhere in the shard of the user."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from broker.base import Roster
from broker.redis.keys import Keys
from broker.redis.shard import Shard


class ShardedPresence:
    """See :class:`broker.base.Presence`."""

    def __init__(self, keys: Keys, shards: Sequence[Shard]) -> None:
        self._keys = keys
        self._shards = shards

    def set_count(self, user: str, room: str | None, connections: int) -> None:
        shard = self._shards[self._keys.shard(user if room is None else room)]
        shard.presence.set_count(user, room, connections)

    async def roster(self, room: str | None) -> Roster:
        """Of everywhere: each part at its own version, one after the other or all at once."""
        if room is not None:
            return await self._roster(self._shards[self._keys.shard(room)], room)
        parts = await asyncio.gather(*(self._roster(shard, None) for shard in self._shards))
        versions = {epoch: version for part in parts for epoch, version in part.versions.items()}
        users = frozenset[str]().union(*(part.users for part in parts))
        return Roster(versions, users, max(part.settling_s for part in parts))

    async def _roster(self, shard: Shard, room: str | None) -> Roster:
        return await shard.patiently(lambda: shard.presence.roster(room))

    async def online(self, user: str) -> bool:
        shard = self._shards[self._keys.shard(user)]
        return await shard.patiently(lambda: shard.presence.online(user))

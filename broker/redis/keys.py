"""Names of keys and channels in Redis. Pure.

``<prefix>:{<shard>}:<kind>:<name>``: the kind comes first and the name last, so that no room id can be mistaken for a
key of another room, and everything one script touches carries the same hash tag (Redis Cluster, "hash tags").
One shard on a single Redis.
"""

from __future__ import annotations

from binascii import crc_hqx


class Keys:
    """The names of one installation. ``shards`` is 1 on a single Redis."""

    __slots__ = ("prefix", "shards")

    def __init__(self, prefix: str = "roomcast", shards: int = 1) -> None:
        self.prefix = prefix
        self.shards = shards

    def shard(self, name: str) -> int:
        """The shard of a room or a user: CRC16 (XMODEM, the one of Redis Cluster) modulo the number of shards."""
        return crc_hqx(name.encode(), 0) % self.shards if self.shards > 1 else 0

    def _tagged(self, shard: int, rest: str) -> str:
        return f"{self.prefix}:{{{shard}}}:{rest}"

    def meta(self, room: str) -> str:
        """HASH e(poch) o(ffset of the top) g (tag of the top) b (bytes kept)."""
        return self._tagged(self.shard(room), f"meta:{room}")

    def log(self, room: str) -> str:
        """STREAM with id ``<offset>-0`` and fields d (payload), p (tag before), g (tag)."""
        return self._tagged(self.shard(room), f"log:{room}")

    def dedup(self, room: str, sender: str, key: str) -> str:
        """STRING. Parts are length-prefixed: sender ``b`` with key ``c:d`` must not equal ``b:c`` with ``d``."""
        return self._tagged(self.shard(room), f"dedup:{len(room)}:{room}:{len(sender)}:{sender}:{key}")

    def marks(self, room: str) -> str:
        """HASH of receipt marks."""
        return self._tagged(self.shard(room), f"marks:{room}")

    def all_marks(self) -> list[str]:
        """Patterns for SCAN of the marks of all rooms, one per shard."""
        return [self._tagged(shard, "marks:*") for shard in range(self.shards)]

    def presence(self, shard: int, kind: str, name: str = "") -> str:
        """The presence keys of one shard (broker/redis/presence.py lists the kinds)."""
        return self._tagged(shard, f"presence:{kind}:{name}" if name else f"presence:{kind}")

    def nodes(self) -> str:
        """HASH node id -> description and expiry."""
        return f"{self.prefix}:nodes"

    def channel(self, channel: str) -> str:
        """The Redis channel of a broker channel. A room's carries its shard's tag: scripts publish to it."""
        kind, _, name = channel.partition(":")
        return self._tagged(self.shard(name) if kind == "room" else 0, channel)

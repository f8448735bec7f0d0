"""Names of keys and channels in Redis. Pure.

``<prefix>:{<tag>}:<kind>:<name>``: the kind comes first and the name last, so that no room id can be mistaken for a
key of another room, and everything one script touches carries the same hash tag (Redis Cluster, "hash tags").
One shard on a single Redis, with the tag ``0``. On a cluster the tags are numbers chosen so that the shards lie evenly
over the hash slots: whatever part of the slots a master has, it has that part of the shards, give or take one.
"""

from __future__ import annotations

import re
from binascii import crc_hqx
from functools import cache
from typing import NamedTuple

SLOTS = 16384
CLUSTER_SHARDS = 64
"""Part of every name, so it cannot be changed in a running installation. It bounds how many masters are of use."""


class Topic(NamedTuple):
    """A channel in one shard: what can be subscribed to."""

    shard: int
    channel: str


def slot_of(tag: str) -> int:
    """CRC16 (XMODEM) modulo the number of slots."""
    return crc_hqx(tag.encode(), 0) % SLOTS


@cache
def tags_of(shards: int) -> tuple[str, ...]:
    """The hash tag of every shard: the smallest number whose slot is about the middle of the shard's part of all."""
    if shards == 1:
        return ("0",)
    width = SLOTS // shards
    tags: dict[int, str] = {}
    number = 0
    while len(tags) < shards:
        shard, place = divmod(slot_of(str(number)), width)
        if abs(place - width // 2) <= width // 16:
            tags.setdefault(shard, str(number))
        number += 1
    return tuple(tags[shard] for shard in range(shards))


class Keys:
    """The names of one installation. ``shards`` is 1 on a single Redis."""

    __slots__ = ("_shard_of_tag", "_starts", "_tagged_marks", "prefix", "shards")

    def __init__(self, prefix: str = "roomcast", shards: int = 1) -> None:
        self.prefix = prefix
        self.shards = shards
        tags = tags_of(shards)
        self._starts = [f"{prefix}:{{{tag}}}:" for tag in tags]
        self._shard_of_tag = {tag: shard for shard, tag in enumerate(tags)}
        self._tagged_marks = re.compile(rf"{re.escape(prefix)}:\{{(\d+)\}}:marks:".encode())

    def shard(self, name: str) -> int:
        """The shard of a room or a user: CRC16 (XMODEM, the one of Redis Cluster) modulo the number of shards."""
        return crc_hqx(name.encode(), 0) % self.shards if self.shards > 1 else 0

    def slot(self, shard: int) -> int:
        """The hash slot of everything in a shard."""
        return slot_of(tags_of(self.shards)[shard])

    def meta(self, room: str) -> str:
        """HASH e(poch) o(ffset of the top) g (tag of the top) b (bytes kept)."""
        return f"{self._starts[self.shard(room)]}meta:{room}"

    def log(self, room: str) -> str:
        """STREAM with id ``<offset>-0`` and fields d (payload), p (tag before), g (tag)."""
        return f"{self._starts[self.shard(room)]}log:{room}"

    def dedup(self, room: str, sender: str, key: str) -> str:
        """STRING. Parts are length-prefixed: sender ``b`` with key ``c:d`` must not equal ``b:c`` with ``d``."""
        return f"{self._starts[self.shard(room)]}dedup:{len(room)}:{room}:{len(sender)}:{sender}:{key}"

    def marks(self, room: str) -> str:
        """HASH of receipt marks."""
        return f"{self._starts[self.shard(room)]}marks:{room}"

    def all_marks(self) -> str:
        """A pattern for SCAN that finds the marks of all rooms; ``marks_shard`` tells what else it finds."""
        return f"{self.prefix}:{{*}}:marks:*"

    def marks_shard(self, key: bytes) -> int | None:
        """The shard of a key if it is one of marks of this installation."""
        match = self._tagged_marks.match(key)
        return None if match is None else self._shard_of_tag.get(match[1].decode())

    def presence(self, shard: int, kind: str, name: str = "") -> str:
        """The presence keys of one shard (broker/redis/presence.py lists the kinds)."""
        return f"{self._starts[shard]}presence:{kind}:{name}" if name else f"{self._starts[shard]}presence:{kind}"

    def nodes(self) -> str:
        """HASH node id -> description and expiry."""
        return f"{self._starts[0]}nodes"

    def guard(self, shard: int) -> list[str]:
        """On a cluster, a key that is never there, declared by every script. While a slot is on the move Redis refuses
        a script of whose keys some are not there, whole; one of whose keys all are there it begins, and tears it in the
        middle if it comes back to a key that it has just emptied."""
        return [f"{self._starts[shard]}guard"] if self.shards > 1 else []

    def home(self, channel: str) -> int:
        """The shard on whose channel something is published."""
        return self.shard(channel.partition(":")[2]) if self.shards > 1 else 0

    def topics(self, channel: str) -> list[Topic]:
        """Where a channel is to be subscribed: users are spread over the shards, so presence is everywhere."""
        if channel == "presence":
            return [Topic(shard, channel) for shard in range(self.shards)]
        return [Topic(self.home(channel), channel)]

    def name(self, topic: Topic) -> str:
        """The Redis channel of a topic. It carries its shard's tag: scripts publish to it."""
        return self._starts[topic.shard] + topic.channel

    def channel(self, channel: str) -> str:
        """The Redis channel on which something is published."""
        return self._starts[self.home(channel)] + channel

"""The call of lua/append.lua, as it is written to Redis: a piece per message, and what holds them together.

What an append to a room always says is written once and kept: it is most of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from os import urandom
from typing import NamedTuple

from broker.base import Dedup, History, Status
from broker.envelope import encode_signal
from broker.options import BrokerOptions
from broker.redis.keys import Keys
from broker.redis.resp import array, bulk
from broker.redis.scripts import Script

META_TTL_S = 30 * 24 * 3600.0
MAX_READY = 10_000
"""Rooms of which what is always the same is kept ready."""


class Shape(NamedTuple):
    """How many keys and arguments a message of one kind gives to the script."""

    keys: int
    arguments: int


PUBLISH, ADVANCE, APPEND, APPEND_ONCE = Shape(0, 3), Shape(2, 6), Shape(3, 10), Shape(4, 10)
_HEAD_ARGUMENTS = 3
_NO_DEDUP = bulk(0)


class Piece(NamedTuple):
    """One message of a call, written."""

    shape: Shape
    keys: bytes
    arguments: bytes


class _Ready(NamedTuple):
    """What every append to a room has in common, written."""

    history: History
    keys: bytes
    start: bytes
    limits: bytes


class AppendCalls:
    """Writes the calls of one shard."""

    def __init__(self, keys: Keys, shard: int, script: Script, options: BrokerOptions) -> None:
        self._keys = keys
        guard = keys.guard(shard)
        self._guard_count = len(guard)
        self._guard = bulk(*guard)
        self._evalsha = bulk("EVALSHA", script.sha)
        self._mark_limits = bulk(ms(options.marks_ttl_s), options.max_marks_per_room)
        self._dedup_ttl = bulk(ms(options.dedup_ttl_s))
        self._random = _random_names()
        self._ready: dict[str, _Ready] = {}

    def append(self, room: str, payload: bytes, history: History, dedup: Dedup | None, author: str | None) -> Piece:
        ready = self._ready.get(room)
        if ready is None or ready.history is not history:
            ready = self._prepare(room, history)
        keys, shape, dedup_ttl = ready.keys, APPEND, _NO_DEDUP
        if dedup is not None:
            keys += bulk(self._keys.dedup(room, dedup.sender, dedup.key))
            shape, dedup_ttl = APPEND_ONCE, self._dedup_ttl
        said_by = author.encode() if author is not None else b""
        arguments = b"%b$%d\r\n%b\r\n%b$%d\r\n%b\r\n%b%b" % (
            ready.start,
            len(payload),
            payload,
            next(self._random),
            len(said_by),
            said_by,
            ready.limits,
            dedup_ttl,
        )
        return Piece(shape, keys, arguments)

    def _prepare(self, room: str, history: History) -> _Ready:
        names = self._keys
        if len(self._ready) >= MAX_READY:
            self._ready.clear()
        meta_ttl_ms = ms(max(META_TTL_S, 2 * history.ttl_s))
        ready = self._ready[room] = _Ready(
            history,
            bulk(names.meta(room), names.log(room), names.marks(room)),
            bulk("a", names.channel(f"room:{room}")),
            bulk(history.max_entries, history.max_bytes, ms(history.ttl_s), meta_ttl_ms),
        )
        return ready

    def publish(self, channel: str, payload: bytes) -> Piece:
        return Piece(PUBLISH, b"", bulk("p", self._keys.channel(channel), encode_signal(payload)))

    def advance(self, room: str, user: str, status: Status, offset: int, payload: bytes) -> Piece:
        """``payload`` b"" tells nobody."""
        channel = self._keys.channel(f"room:{room}")
        envelope = encode_signal(payload) if payload else b""
        keys = bulk(self._keys.meta(room), self._keys.marks(room))
        return Piece(ADVANCE, keys, bulk("m", channel, envelope, user, status, offset))

    def call(self, pieces: Sequence[Piece]) -> bytes:
        """The command that carries them, in their order."""
        key_count = self._guard_count
        argument_count = _HEAD_ARGUMENTS
        for shape, _, _ in pieces:
            key_count += shape.keys
            argument_count += shape.arguments
        return b"".join(
            (
                array(3 + key_count + argument_count),
                self._evalsha,
                bulk(key_count),
                *[piece.keys for piece in pieces],
                self._guard,
                next(self._random),
                self._mark_limits,
                *[piece.arguments for piece in pieces],
            )
        )


def _random_names() -> Iterator[bytes]:
    """Tags and epochs as bulk strings: 64 random bits in hex. Asking the kernel for each costs more than all else of an
    append."""
    while True:
        block = urandom(1024).hex().encode()
        for start in range(0, len(block), 16):
            yield bulk(block[start : start + 16])


def ms(seconds: float) -> int:
    return max(1, round(seconds * 1000))

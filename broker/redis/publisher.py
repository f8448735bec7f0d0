"""Appends and publishes of one shard: those of one tick go as one script call, one call in flight (group commit).

One in flight means that a call sent again after NOSCRIPT overtakes nothing, that what waits meanwhile becomes the next,
larger call, and that after a timeout nothing more is sent until that call was answered or its connection ended: what
was never sent can still fail safely.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from broker.base import BrokerError, Dedup, History, OutcomeUnknown, Position, Status, Unavailable
from broker.envelope import encode_signal
from broker.options import BrokerOptions
from broker.redis.backlog import Backlog, Message
from broker.redis.connection import Argument, Connection, Reply
from broker.redis.errors import DEMOTED, MOVED, ConnectionLost, broker_error, first_word
from broker.redis.keys import Keys
from broker.redis.scripts import load_script
from broker.stats import BrokerStats

MAX_BATCH = 256
MAX_BATCH_BYTES = 1024 * 1024
META_TTL_S = 30 * 24 * 3600.0
MAX_NAMES = 10_000
"""Rooms whose key names are remembered."""
LOADS = 3
"""So often in a row Redis may forget the script of one call (another client's SCRIPT FLUSH can come between the load
and the call) before the call is refused."""
AGAIN_S = 0.02
"""Between two tries while the keys are on their way to another master."""


class Publisher:
    """The waiting line of a shard and its call in flight. Every future it gives ends within ``unavailable_after_s`` +
    ``publish_timeout_s``. ``on_demoted`` and ``on_moved`` are told why the master is none any more, or not the shard's;
    what was refused because the keys are elsewhere stays first in the line."""

    def __init__(
        self,
        keys: Keys,
        shard: int,
        backlog: Backlog,
        options: BrokerOptions,
        stats: BrokerStats,
        *,
        on_demoted: Callable[[str], None],
        on_moved: Callable[[str], None],
    ) -> None:
        self._keys = keys
        self._guard = keys.guard(shard)
        self._backlog = backlog
        self._options = options
        self._stats = stats
        self._on_demoted = on_demoted
        self._on_moved = on_moved
        self._script = load_script("append", sharded=keys.shards > 1)
        self._connection: Connection | None = None
        self._reason = "not started"
        self._closed = False
        self._line: deque[Message] = deque()
        self._in_flight: list[Message] = []
        self._flush_scheduled = False
        self._expiry: asyncio.TimerHandle | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._names: dict[str, tuple[str, str, str]] = {}

    # For the broker

    def append(self, room: str, payload: bytes, history: History, dedup: Dedup | None) -> asyncio.Future[Position]:
        names = self._names.get(room)
        if names is None:
            if len(self._names) >= MAX_NAMES:
                self._names.clear()
            names = self._keys.meta(room), self._keys.log(room), self._keys.channel(f"room:{room}")
            self._names[room] = names
        meta, log, channel = names
        keys: tuple[Argument, ...] = (meta, log)
        dedup_ttl_ms = 0
        if dedup is not None:
            keys = (meta, log, self._keys.dedup(room, dedup.sender, dedup.key))
            dedup_ttl_ms = _ms(self._options.dedup_ttl_s)
        arguments = (
            b"a",
            channel,
            payload,
            secrets.token_hex(8),
            history.max_entries,
            history.max_bytes,
            _ms(history.ttl_s),
            _ms(max(META_TTL_S, 2 * history.ttl_s)),
            dedup_ttl_ms,
        )
        return self._enqueue(keys, arguments, len(payload))

    def publish(self, channel: str, payload: bytes) -> asyncio.Future[None]:
        return self._enqueue((), (b"p", self._keys.channel(channel), encode_signal(payload)), len(payload))

    def advance(self, room: str, user: str, status: Status, offset: int, payload: bytes) -> asyncio.Future[bool]:
        """``payload`` b"" tells nobody."""
        options = self._options
        channel = self._keys.channel(f"room:{room}")
        keys: tuple[Argument, ...] = (self._keys.meta(room), self._keys.marks(room))
        envelope = encode_signal(payload) if payload else b""
        ttl_ms = _ms(options.marks_ttl_s)
        arguments = (b"m", channel, envelope, user, status, offset, ttl_ms, options.max_marks_per_room)
        return self._enqueue(keys, arguments, len(payload))

    def _enqueue(self, keys: tuple[Argument, ...], arguments: tuple[Argument, ...], size: int) -> asyncio.Future[Any]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        if self._closed:
            self._refuse(future, "the broker is closed: this node is leaving")
            return future
        options = self._options
        backlog = self._backlog
        if backlog.messages >= options.max_waiting_publishes or backlog.size + size > options.max_waiting_bytes:
            self._refuse(future, f"{backlog.messages} publishes wait for Redis already: slow down, retry later")
            return future
        self._stats.publishes += 1
        self._line.append(Message(future, keys, arguments, size, time.monotonic()))
        backlog.messages += 1
        backlog.size += size
        if not self._flush_scheduled and not self._in_flight:
            self._flush_scheduled = True
            loop.call_soon(self._flush)
        if self._expiry is None:
            self._expiry = loop.call_later(options.unavailable_after_s, self._expire)
        return future

    # For the link

    def attach(self, connection: Connection) -> None:
        self._connection = connection
        self._flush()

    def detach(self, reason: str) -> None:
        """Nothing more is sent. What is in flight ends with its connection."""
        self._connection = None
        self._reason = reason

    def close(self) -> None:
        """Fail what waits. What is in flight may still be answered. Idempotent."""
        self._closed = True
        while self._line:
            self._refuse(self._next().future, "the broker is closed: this node is leaving")
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None

    async def idle(self) -> None:
        """Return when nothing is in flight any more, or what is has timed out."""
        if self._in_flight:
            await asyncio.wait([message.future for message in self._in_flight])

    # The call in flight

    def _flush(self) -> None:
        self._flush_scheduled = False
        connection = self._connection
        if self._in_flight or connection is None or connection.closed or not self._line:
            return
        batch: list[Message] = []
        taken = size = 0
        line = self._line
        while line and len(batch) < MAX_BATCH and (not batch or size + line[0].size <= MAX_BATCH_BYTES):
            message = line.popleft()
            taken += 1
            size += message.size
            if not message.future.done():  # the caller may have given up
                batch.append(message)
        self._backlog.messages -= taken
        self._backlog.size -= size
        if not batch:
            return
        self._in_flight = batch
        self._stats.publish_batches += 1
        self._deadline = asyncio.get_running_loop().call_later(self._options.publish_timeout_s, self._time_out)
        keys: list[Argument] = []
        arguments: list[Argument] = []
        for message in batch:
            keys += message.keys
            arguments += message.arguments
        keys += self._guard
        command = (b"EVALSHA", self._script.sha, len(keys), *keys, secrets.token_hex(8), *arguments)
        connection.send(command, lambda reply: self._answered(connection, reply, command))

    def _answered(
        self, connection: Connection, reply: Reply, command: tuple[Argument, ...], tries: int = LOADS
    ) -> None:
        if isinstance(reply, Exception) and first_word(reply) == "NOSCRIPT" and tries and not connection.closed:
            self._stats.noscript += 1
            connection.send((b"SCRIPT", b"LOAD", self._script.source), lambda _reply: None)
            connection.send(command, lambda reply: self._answered(connection, reply, command, tries - 1))
        else:
            self._done(reply)

    def _done(self, reply: Reply) -> None:
        batch, self._in_flight = self._in_flight, []
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        if isinstance(reply, Exception) and first_word(reply) in MOVED and not self._closed:
            self._put_back(batch)
            self._on_moved(str(reply))
            return
        now_s = time.monotonic()
        observe = self._stats.observe_publish
        if not isinstance(reply, Exception) and len(reply) != len(batch):
            reply = ConnectionLost(f"{len(reply)} answers to {len(batch)} messages")
        replies = [reply] * len(batch) if isinstance(reply, Exception) else reply
        for message, answer in zip(batch, replies, strict=True):
            if message.future.done():
                continue
            if isinstance(answer, Exception):
                self._fail(message.future, broker_error(answer))
                if first_word(answer) in DEMOTED:
                    self._on_demoted(str(answer))
            else:
                message.future.set_result(_result(answer))
                observe(now_s - message.given_s)
        self._flush()

    def _time_out(self) -> None:
        self._deadline = None
        for message in self._in_flight:
            self._fail(
                message.future,
                OutcomeUnknown(
                    f"Redis did not answer within {self._options.publish_timeout_s:g} s: retry with the same key"
                ),
            )

    # The waiting line

    def _next(self) -> Message:
        message = self._line.popleft()
        self._backlog.messages -= 1
        self._backlog.size -= message.size
        return message

    def _put_back(self, batch: list[Message]) -> None:
        """Nothing of it was done: first in the line again, for as long as it may still wait."""
        self._line.extendleft(reversed(batch))
        self._backlog.messages += len(batch)
        self._backlog.size += sum(message.size for message in batch)
        loop = asyncio.get_running_loop()
        if self._expiry is not None:
            self._expiry.cancel()
        left_s = batch[0].given_s + self._options.unavailable_after_s - time.monotonic()
        self._expiry = loop.call_later(max(0.0, left_s), self._expire)
        loop.call_later(AGAIN_S, self._flush)

    def _expire(self) -> None:
        self._expiry = None
        latest_s = time.monotonic() - self._options.unavailable_after_s
        while self._line and self._line[0].given_s <= latest_s:
            message = self._next()
            why = self._reason if self._connection is None else "it does not answer"
            self._refuse(message.future, f"Redis is away ({why}): retry later")
        if self._line:
            self._expiry = asyncio.get_running_loop().call_later(self._line[0].given_s - latest_s, self._expire)

    def _refuse(self, future: asyncio.Future[Any], why: str) -> None:
        self._fail(future, Unavailable(why))

    def _fail(self, future: asyncio.Future[Any], error: BrokerError) -> None:
        if isinstance(error, Unavailable):
            self._stats.unavailable += 1
        else:
            self._stats.outcomes_unknown += 1
        if not future.done():
            future.set_exception(error)
            future.exception()  # looked at: the future may be ignored


def _result(answer: Reply) -> Position | bool | None:
    """An append has a position, an advance 1 or -1, a publish 0."""
    if isinstance(answer, list):
        return Position(*answer)
    return bool(answer == 1) if answer else None


def _ms(seconds: float) -> int:
    return max(1, round(seconds * 1000))

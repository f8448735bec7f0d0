"""Appends and publishes of one shard: those of one tick go as one script call, one call in flight (group commit).

One in flight means that a call sent again after NOSCRIPT overtakes nothing, that what waits meanwhile becomes the next,
larger call, and that after a timeout nothing more is sent until that call was answered or its connection ended: what
was never sent can still fail safely.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from broker.base import BrokerError, Dedup, History, OutcomeUnknown, Position, Status, Unavailable
from broker.options import BrokerOptions
from broker.redis.append_calls import AppendCalls, Piece
from broker.redis.backlog import Backlog, Message
from broker.redis.connection import Connection, Reply
from broker.redis.errors import DEMOTED, MOVED, ConnectionLost, broker_error, first_word
from broker.redis.keys import Keys
from broker.redis.scripts import load_script
from broker.stats import BrokerStats

MAX_BATCH = 256
MAX_BATCH_BYTES = 1024 * 1024
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
        self._backlog = backlog
        self._options = options
        self._stats = stats
        self._on_demoted = on_demoted
        self._on_moved = on_moved
        self._script = load_script("append", sharded=keys.shards > 1)
        self._calls = AppendCalls(keys, shard, self._script, options)
        self._max_messages, self._max_bytes = options.max_waiting_publishes, options.max_waiting_bytes
        self._connection: Connection | None = None
        self._reason = "not started"
        self._closed = False
        self._line: deque[Message] = deque()
        self._in_flight: list[Message] = []
        self._flush_scheduled = False
        self._expiry: asyncio.TimerHandle | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._sent_s = 0.0

    # For the broker

    def append(
        self, room: str, payload: bytes, history: History, dedup: Dedup | None, author: str | None
    ) -> asyncio.Future[Position]:
        return self._enqueue(self._calls.append(room, payload, history, dedup, author), len(payload))

    def publish(self, channel: str, payload: bytes) -> asyncio.Future[None]:
        return self._enqueue(self._calls.publish(channel, payload), len(payload))

    def advance(self, room: str, user: str, status: Status, offset: int, payload: bytes) -> asyncio.Future[bool]:
        """``payload`` b"" tells nobody."""
        return self._enqueue(self._calls.advance(room, user, status, offset, payload), len(payload))

    def _enqueue(self, piece: Piece, size: int) -> asyncio.Future[Any]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        if self._closed:
            self._refuse(future, "the broker is closed: this node is leaving")
            return future
        backlog = self._backlog
        if backlog.messages >= self._max_messages or backlog.size + size > self._max_bytes:
            self._refuse(future, f"{backlog.messages} publishes wait for Redis already: slow down, retry later")
            return future
        self._stats.publishes += 1
        self._line.append(Message(future, piece, size, time.monotonic()))
        backlog.messages += 1
        backlog.size += size
        if not self._flush_scheduled and not self._in_flight:
            self._flush_scheduled = True
            loop.call_soon(self._flush)
        if self._expiry is None:
            self._expiry = loop.call_later(self._options.unavailable_after_s, self._expire)
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
        self._sent_s = time.monotonic()
        self._stats.publish_batches += 1
        if self._deadline is None:
            self._deadline = asyncio.get_running_loop().call_later(self._options.publish_timeout_s, self._look_at_clock)
        command = self._calls.call([message.piece for message in batch])
        connection.send_packed(command, lambda reply: self._answered(connection, reply, command))

    def _answered(self, connection: Connection, reply: Reply, command: bytes, tries: int = LOADS) -> None:
        if isinstance(reply, Exception) and first_word(reply) == "NOSCRIPT" and tries and not connection.closed:
            self._stats.noscript += 1
            connection.send((b"SCRIPT", b"LOAD", self._script.source), lambda _reply: None)
            connection.send_packed(command, lambda reply: self._answered(connection, reply, command, tries - 1))
        else:
            self._done(reply)

    def _done(self, reply: Reply) -> None:
        batch, self._in_flight = self._in_flight, []
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

    def _look_at_clock(self) -> None:
        """One timer looks at the call that happens to be in flight: setting one for each and cancelling it costs more
        than packing the call."""
        self._deadline = None
        if not self._in_flight:
            return
        left_s = self._sent_s + self._options.publish_timeout_s - time.monotonic()
        if left_s > 0:
            self._deadline = asyncio.get_running_loop().call_later(left_s, self._look_at_clock)
            return
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

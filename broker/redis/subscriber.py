"""The subscriber side: which channels this node wants, which of them Redis has confirmed, and what arrives.

Everything here is synchronous but for the waiting of callers. Redis answers SUBSCRIBE and UNSUBSCRIBE per channel and
in order, so one line of expected answers tells which call each belongs to.
"""

from __future__ import annotations

import asyncio
from collections import deque
from itertools import groupby
from typing import NamedTuple

from broker.base import Delivery, Probe, Sink, Unavailable
from broker.envelope import NewerVersion, decode
from broker.options import BrokerOptions
from broker.redis.connection import Connection, Reply
from broker.redis.errors import ConnectionLost
from broker.redis.keys import Keys
from broker.stats import BrokerStats

MAX_CHANNELS_PER_COMMAND = 500
SUBSCRIBE, UNSUBSCRIBE, PING = b"subscribe", b"unsubscribe", b"pong"


class _Step(NamedTuple):
    """One answer that is to come."""

    kind: bytes
    channel: str
    name: bytes
    future: asyncio.Future[None]


class Subscriber:
    """The wanted channels outlive connections. ``sink`` is set before the first connection is attached."""

    sink: Sink

    def __init__(self, keys: Keys, node_id: str, options: BrokerOptions, stats: BrokerStats) -> None:
        self._keys = keys
        self._options = options
        self._stats = stats
        self._connection: Connection | None = None
        self._reason = "not started"
        self._closed = False
        self._wanted: dict[str, asyncio.Future[None]] = {}
        """Channel -> done when confirmed on the current connection."""
        self._names: dict[bytes, str] = {}
        """Redis channel -> channel, of those that are wanted and confirmed."""
        self._broken: set[str] = set()
        """Channels that were confirmed on a connection before this one and are not yet on this one."""
        self._outbox: list[_Step] = []
        self._expected: deque[tuple[_Step, int]] = deque()
        self._commands = 0
        self._refused: Exception | None = None
        self._probe: tuple[bytes, asyncio.Future[None]] | None = None
        self._node_channel = f"node:{node_id}"

    # For the broker

    async def subscribe(self, channel: str) -> None:
        """See :meth:`broker.base.Broker.subscribe`. Whoever gives up waiting calls ``unsubscribe``."""
        if self._closed:
            raise Unavailable("the broker is closed: this node is leaving")
        future = self._wanted.get(channel)
        if future is None:
            future = self._want(channel)
            self._send(SUBSCRIBE, channel, future)
        if not future.done():
            await asyncio.wait((future,), timeout=self._options.unavailable_after_s)
        if not future.done():
            error = Unavailable(
                f"cannot subscribe, Redis is away ({self._reason or 'it does not answer'}): retry later"
            )
            if channel not in self._broken and self._wanted.get(channel) is future:
                self._forget(channel, error)
            raise error
        future.result()

    async def unsubscribe(self, channel: str) -> None:
        """See :meth:`broker.base.Broker.unsubscribe`. Nothing is delivered from the call on."""
        if channel == self._node_channel:
            return
        done = self._forget(channel, Unavailable("unsubscribed meanwhile"))
        if done is not None:
            await asyncio.wait((done,), timeout=self._options.unavailable_after_s)

    def _want(self, channel: str) -> asyncio.Future[None]:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._wanted[channel] = future
        return future

    def _forget(self, channel: str, error: Exception) -> asyncio.Future[None] | None:
        """Not wanted any more. The future tells when Redis has confirmed; None if there is nothing to confirm."""
        future = self._wanted.pop(channel, None)
        if future is None:
            return None
        self._broken.discard(channel)
        self._names.pop(self._keys.channel(channel).encode(), None)
        _fail(future, error)
        if self._connection is None:
            return None
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._send(UNSUBSCRIBE, channel, done)
        return done

    # For the link

    async def attach(self, connection: Connection) -> list[str]:
        """Subscribe all wanted channels on a new connection and return those it had been told of before, once all are
        confirmed. Raises :class:`Unavailable`."""
        self._connection = connection
        self._refused = None
        connection.on_push = self._on_push
        self._wanted.setdefault(self._node_channel, asyncio.get_running_loop().create_future())
        confirmed = self._ping()
        self._outbox[:0] = [
            _Step(SUBSCRIBE, channel, self._keys.channel(channel).encode(), future)
            for channel, future in self._wanted.items()
        ]
        self._flush()
        try:
            async with asyncio.timeout(self._options.connect_timeout_s + len(self._wanted) / 1000):
                await confirmed
        except TimeoutError:
            raise Unavailable("Redis does not confirm subscriptions") from None
        except ConnectionLost as error:
            raise Unavailable(f"the subscriber connection is lost: {error}") from error
        if self._refused is not None:
            raise Unavailable(f"Redis refuses subscriptions: {self._refused}") from self._refused
        broken, self._broken = self._broken, set()
        self._reason = ""
        return [channel for channel in broken if channel != self._node_channel]

    def detach(self, reason: str) -> None:
        """The connection is gone: nothing is confirmed any more, everything stays wanted."""
        self._connection = None
        self._reason = reason
        self._names.clear()
        if self._probe is not None:
            _fail(self._probe[1], ConnectionLost(reason))
        for step in [step for step, _ in self._expected] + self._outbox:
            if step.kind is PING:
                _fail(step.future, ConnectionLost(reason))
            elif step.kind is UNSUBSCRIBE and not step.future.done():
                step.future.set_result(None)
        self._expected.clear()
        self._outbox.clear()
        for channel, future in self._wanted.items():
            if future.done():
                self._broken.add(channel)
                self._wanted[channel] = asyncio.get_running_loop().create_future()

    def doubt_everything(self) -> None:
        """Redis has lost data, or this node was away for too long: whatever is subscribed has to be verified."""
        channels = [channel for channel in self._names.values() if channel != self._node_channel]
        if channels:
            self.sink.resubscribed(channels)

    def expect_probe(self, nonce: bytes) -> asyncio.Future[None]:
        """Done when this nonce has come back on the node's own channel."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._probe = (nonce, future)
        return future

    def close(self) -> None:
        """Deliver nothing more, fail who waits. Idempotent."""
        self._closed = True
        self._names.clear()
        for future in self._wanted.values():
            _fail(future, Unavailable("the broker is closed: this node is leaving"))
        self._wanted.clear()

    # Commands

    def _ping(self) -> asyncio.Future[None]:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._outbox.append(_Step(PING, "", b"", future))
        return future

    def _send(self, kind: bytes, channel: str, future: asyncio.Future[None]) -> None:
        """With all others of this tick; dropped if there is no connection (attach subscribes what is wanted)."""
        if self._connection is None:
            return
        if not self._outbox:
            asyncio.get_running_loop().call_soon(self._flush)
        self._outbox.append(_Step(kind, channel, self._keys.channel(channel).encode(), future))

    def _flush(self) -> None:
        if self._connection is None or self._connection.closed:
            return
        outbox, self._outbox = self._outbox, []
        for kind, group in groupby(outbox, key=lambda step: step.kind):
            steps = list(group)
            for start in range(0, len(steps), MAX_CHANNELS_PER_COMMAND):
                part = steps[start : start + MAX_CHANNELS_PER_COMMAND]
                self._commands += 1
                self._expected.extend((step, self._commands) for step in part)
                if kind is PING:
                    self._connection.write((b"PING",))
                else:  # never without a channel: a bare UNSUBSCRIBE would drop them all
                    self._connection.write((kind, *(step.name for step in part)))

    # What arrives

    def _on_push(self, pushes: list[Reply]) -> None:
        batch: list[Delivery] = []
        names = self._names
        for push in pushes:
            if type(push) is list and push[0] == b"message":
                channel = names.get(push[1])
                if channel is None:
                    continue
                try:
                    item = decode(push[2])
                except NewerVersion:
                    self._stats.newer += 1
                    self._deliver(batch)
                    batch = []
                    self.sink.resubscribed([channel])
                    continue
                except ValueError:
                    self._stats.foreign += 1
                    continue
                if isinstance(item, Probe):
                    self._probe_returned(item.nonce)
                else:
                    batch.append((channel, item))
            else:
                self._confirmed(push)
        self._deliver(batch)

    def _deliver(self, batch: list[Delivery]) -> None:
        if batch:
            self._stats.deliveries += len(batch)
            self.sink.deliver(batch)

    def _probe_returned(self, nonce: bytes) -> None:
        if self._probe is not None and self._probe[0] == nonce and not self._probe[1].done():
            self._probe[1].set_result(None)

    def _confirmed(self, push: Reply) -> None:
        """The answer to the oldest step. A protocol that disagrees ends the connection (an exception here)."""
        step, command = self._expected.popleft()
        if push == b"PONG":  # on a connection without any channel
            push = [PING, b""]
        if isinstance(push, Exception):  # one error for the whole command
            self._stats.errors += 1
            self._refused = push
            steps = [step]
            while self._expected and self._expected[0][1] == command:
                steps.append(self._expected.popleft()[0])
            for step in steps:
                if step.kind is SUBSCRIBE and self._wanted.get(step.channel) is step.future:
                    if step.channel not in self._broken and step.channel != self._node_channel:
                        del self._wanted[step.channel]
                        _fail(step.future, Unavailable(f"Redis refuses the subscription: {push}"))
                elif not step.future.done():
                    step.future.set_result(None)
            return
        if push[0] != step.kind or (step.kind is not PING and push[1] != step.name):
            raise ConnectionLost(f"expected {step.kind!r} {step.name!r}, got {push[:2]!r}")
        if step.kind is SUBSCRIBE:
            if self._wanted.get(step.channel) is not step.future:
                return  # unsubscribed meanwhile; its answer follows
            self._names[step.name] = step.channel
        if not step.future.done():
            step.future.set_result(None)


def _fail(future: asyncio.Future[None], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
        future.exception()  # looked at: perhaps nobody waits

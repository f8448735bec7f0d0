"""The channels of one shard that this node wants. They outlive connections, and move from master to master."""

from __future__ import annotations

import asyncio
from collections import deque
from functools import partial
from typing import NamedTuple, Protocol

from broker.base import Unavailable
from broker.redis.keys import Keys, Topic

SUBSCRIBE, UNSUBSCRIBE = "subscribe", "unsubscribe"


class Carrier(Protocol):
    """The subscriber connection that serves the shard now (:class:`broker.redis.subscriber.Subscriber`)."""

    @property
    def reason(self) -> str:
        """Why it is away; empty while it is not."""

    def send(self, kind: str, topic: Topic, future: asyncio.Future[None]) -> bool:
        """False: there is no connection."""

    def forget(self, topic: Topic) -> None:
        """Deliver nothing more of it."""


class _Call(NamedTuple):
    """One that waits."""

    due_s: float
    channel: str
    confirmed: asyncio.Future[None]
    future: asyncio.Future[None]


class Wanted:
    """``confirmed`` has a future for every wanted channel, done once the present connection has confirmed it.
    ``broken`` are those that were confirmed on a connection before it and are not yet on this one."""

    def __init__(self, keys: Keys, shard: int, node_id: str, unavailable_after_s: float) -> None:
        self.shard = shard
        self.node_channel = f"node:{node_id}"
        """Always wanted: the probe of every shard comes back on it."""
        self.confirmed: dict[str, asyncio.Future[None]] = {}
        self.broken: set[str] = set()
        self.carrier: Carrier | None = None
        self._keys = keys
        self._unavailable_after_s = unavailable_after_s
        self._closed = False
        self._calls: deque[_Call] = deque()
        """Who waits for a confirmation, oldest first; some may have had it."""
        self._timer: asyncio.TimerHandle | None = None

    def subscribe(self, channel: str) -> asyncio.Future[None]:
        """See :meth:`broker.base.Broker.subscribe`. Whoever gives up waiting calls ``unsubscribe``."""
        loop = asyncio.get_running_loop()
        call: asyncio.Future[None] = loop.create_future()
        if self._closed:
            fail(call, Unavailable("the broker is closed: this node is leaving"))
            return call
        confirmed = self.confirmed.get(channel)
        if confirmed is None:
            confirmed = self.want(channel)
            if self.carrier is not None:
                self.carrier.send(SUBSCRIBE, Topic(self.shard, channel), confirmed)
        confirmed.add_done_callback(partial(_pass_on, call))
        if not confirmed.done():
            while self._calls and self._calls[0].future.done():
                self._calls.popleft()
            self._calls.append(_Call(loop.time() + self._unavailable_after_s, channel, confirmed, call))
            if self._timer is None:
                self._timer = loop.call_later(self._unavailable_after_s, self._look)
        return call

    def _look(self) -> None:
        """Whose call takes too long? One timer for all of them."""
        loop = asyncio.get_running_loop()
        self._timer = None
        while self._calls and (self._calls[0].future.done() or self._calls[0].due_s <= loop.time()):
            call = self._calls.popleft()
            if not call.future.done():
                self._give_up(call)
        if self._calls:
            self._timer = loop.call_at(self._calls[0].due_s, self._look)

    def _give_up(self, call: _Call) -> None:
        why = "its master is not known" if self.carrier is None else self.carrier.reason or "it does not answer"
        error = Unavailable(f"cannot subscribe, Redis is away ({why}): retry later")
        fail(call.future, error)
        if call.channel not in self.broken and self.confirmed.get(call.channel) is call.confirmed:
            self._forget(call.channel, error)

    def unsubscribe(self, channel: str) -> asyncio.Future[None]:
        """See :meth:`broker.base.Broker.unsubscribe`."""
        done = None
        if channel != self.node_channel:
            done = self._forget(channel, Unavailable("unsubscribed meanwhile"))
        if done is None:  # there is nothing to confirm
            done = asyncio.get_running_loop().create_future()
            done.set_result(None)
        return done

    def want(self, channel: str) -> asyncio.Future[None]:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.confirmed[channel] = future
        return future

    def _forget(self, channel: str, error: Exception) -> asyncio.Future[None] | None:
        """Not wanted any more; as ``unsubscribe``."""
        future = self.confirmed.pop(channel, None)
        if future is None:
            return None
        self.broken.discard(channel)
        fail(future, error)
        if self.carrier is None:
            return None
        topic = Topic(self.shard, channel)
        self.carrier.forget(topic)
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        return done if self.carrier.send(UNSUBSCRIBE, topic, done) else None

    def refuse(self, channel: str, future: asyncio.Future[None], error: Exception) -> None:
        """Redis does not allow it: whoever waits for the first confirmation is told; what had one stays wanted."""
        if self.confirmed.get(channel) is future and channel not in self.broken and channel != self.node_channel:
            del self.confirmed[channel]
            fail(future, error)

    def lose(self, channel: str) -> None:
        """No longer confirmed, still wanted."""
        if self.confirmed[channel].done():
            self.broken.add(channel)
            self.want(channel)

    def lose_all(self) -> None:
        for channel in self.confirmed:
            self.lose(channel)

    def regained(self) -> list[str]:
        """Channels that were broken and are confirmed again; told once."""
        channels = {channel for channel in self.broken if self.confirmed[channel].done()}
        self.broken -= channels
        return [channel for channel in channels if channel != self.node_channel]

    def close(self) -> None:
        """Fail who waits. Idempotent."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        for future in self.confirmed.values():
            fail(future, Unavailable("the broker is closed: this node is leaving"))
        self.confirmed.clear()
        self.broken.clear()


def _pass_on(call: asyncio.Future[None], confirmed: asyncio.Future[None]) -> None:
    if call.done():
        return
    error = confirmed.exception()
    if error is None:
        call.set_result(None)
    else:
        fail(call, error)


def fail(future: asyncio.Future[None], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)
        future.exception()  # looked at: perhaps nobody waits

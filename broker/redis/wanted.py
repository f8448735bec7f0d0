"""The channels of one shard that this node wants. They outlive connections, and move from master to master."""

from __future__ import annotations

import asyncio
from typing import Protocol

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

    async def subscribe(self, channel: str) -> None:
        """See :meth:`broker.base.Broker.subscribe`. Whoever gives up waiting calls ``unsubscribe``."""
        if self._closed:
            raise Unavailable("the broker is closed: this node is leaving")
        future = self.confirmed.get(channel)
        if future is None:
            future = self.want(channel)
            if self.carrier is not None:
                self.carrier.send(SUBSCRIBE, Topic(self.shard, channel), future)
        if not future.done():
            await asyncio.wait((future,), timeout=self._unavailable_after_s)
        if not future.done():
            why = "its master is not known" if self.carrier is None else self.carrier.reason or "it does not answer"
            error = Unavailable(f"cannot subscribe, Redis is away ({why}): retry later")
            if channel not in self.broken and self.confirmed.get(channel) is future:
                self._forget(channel, error)
            raise error
        future.result()

    def unsubscribe(self, channel: str) -> asyncio.Future[None] | None:
        """Nothing is delivered from the call on. The future tells when Redis has confirmed; None if there is nothing to
        confirm."""
        if channel == self.node_channel:
            return None
        return self._forget(channel, Unavailable("unsubscribed meanwhile"))

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
        for future in self.confirmed.values():
            fail(future, Unavailable("the broker is closed: this node is leaving"))
        self.confirmed.clear()
        self.broken.clear()


def fail(future: asyncio.Future[None], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
        future.exception()  # looked at: perhaps nobody waits

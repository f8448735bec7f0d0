"""Which channels this node is subscribed to, because somebody here wants them.

First holder in: subscribe, and wait for the broker's confirmation. Last holder out: unsubscribe after a linger, so that
a page reload costs nothing. The broker keeps the order of the calls, so a subscribe never overtakes an unsubscribe. A
channel that is wanted but could not be subscribed (the broker is away) is tried again by :meth:`retry`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from broker.base import Broker


class _Channel:
    __slots__ = ("confirmed", "holders", "linger", "subscribing")

    def __init__(self) -> None:
        self.holders = 0
        self.confirmed = False
        self.subscribing: asyncio.Future[None] | None = None
        self.linger: asyncio.TimerHandle | None = None


class Interest:
    def __init__(
        self, broker: Broker, linger_s: float, on_dropped: Callable[[str], None] = lambda channel: None
    ) -> None:
        """``on_dropped(channel)`` is called just before an UNSUBSCRIBE is sent: from then on the channel is unknown."""
        self._broker = broker
        self._linger_s = linger_s
        self._on_dropped = on_dropped
        self._channels: dict[str, _Channel] = {}

    def acquire(self, channel: str) -> asyncio.Future[None] | None:
        """One holder more. None if the channel is subscribed; else a shared future (shield it) that ends when it is, or
        with :class:`broker.base.Unavailable`: the holder is counted all the same until it releases."""
        state = self._channels.get(channel)
        if state is None:
            state = self._channels[channel] = _Channel()
        state.holders += 1
        if state.linger is not None:
            state.linger.cancel()
            state.linger = None
        return None if state.confirmed else self._subscribe(channel, state)

    def release(self, channel: str) -> None:
        """One holder less."""
        state = self._channels[channel]
        state.holders -= 1
        if state.holders == 0:
            state.linger = asyncio.get_running_loop().call_later(self._linger_s, self._lingered, channel, state)

    def __len__(self) -> int:
        """Channels that are subscribed, or about to be, or linger."""
        return len(self._channels)

    def retry(self) -> None:
        """The broker is back: subscribe what is wanted and is not."""
        for channel, state in self._channels.items():
            if state.holders and not state.confirmed:
                self._subscribe(channel, state)

    def _subscribe(self, channel: str, state: _Channel) -> asyncio.Future[None]:
        future = state.subscribing
        if future is None:
            future = state.subscribing = self._broker.subscribe(channel)
            future.add_done_callback(partial(self._subscribed, channel, state))
        return future

    def _subscribed(self, channel: str, state: _Channel, future: asyncio.Future[None]) -> None:
        state.subscribing = None
        state.confirmed = future.exception() is None
        if not state.holders and state.linger is None:
            self._drop(channel, state)

    def _lingered(self, channel: str, state: _Channel) -> None:
        state.linger = None
        if state.subscribing is None:
            self._drop(channel, state)

    def _drop(self, channel: str, state: _Channel) -> None:
        """Nobody has wanted it for a while."""
        del self._channels[channel]
        if state.confirmed:
            self._on_dropped(channel)
            self._broker.unsubscribe(channel)

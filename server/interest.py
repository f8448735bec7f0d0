"""Which channels this node is subscribed to, because somebody here wants them.

First holder in: subscribe, and wait for the broker's confirmation. Last holder out: unsubscribe after a linger, so that
a page reload costs nothing. Per channel there is at most one task, so a subscribe can never overtake an unsubscribe. A
channel that is wanted but could not be subscribed (the broker is away) is tried again by :meth:`retry`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from broker.base import Broker, Unavailable
from server.tasks import Tasks


class _Channel:
    __slots__ = ("busy", "confirmed", "holders", "linger", "waiter")

    def __init__(self) -> None:
        self.holders = 0
        self.confirmed = False
        self.busy = False
        self.waiter: asyncio.Future[None] | None = None
        self.linger: asyncio.TimerHandle | None = None


class Interest:
    def __init__(
        self, broker: Broker, tasks: Tasks, linger_s: float, on_dropped: Callable[[str], None] = lambda channel: None
    ) -> None:
        """``on_dropped(channel)`` is called just before an UNSUBSCRIBE is sent: from then on the channel is unknown."""
        self._broker = broker
        self._tasks = tasks
        self._linger_s = linger_s
        self._on_dropped = on_dropped
        self._channels: dict[str, _Channel] = {}

    def acquire(self, channel: str) -> asyncio.Future[None] | None:
        """One holder more. None if the channel is subscribed; else a shared future (shield it) that ends when it is, or
        with :class:`Unavailable`: the holder is counted all the same until it releases."""
        state = self._channels.get(channel)
        if state is None:
            state = self._channels[channel] = _Channel()
        state.holders += 1
        if state.linger is not None:
            state.linger.cancel()
            state.linger = None
        if state.confirmed and not state.busy:
            return None
        return self._drive(channel, state)

    def release(self, channel: str) -> None:
        """One holder less."""
        state = self._channels[channel]
        state.holders -= 1
        if state.holders == 0:
            loop = asyncio.get_running_loop()
            state.linger = loop.call_later(self._linger_s, self._lingered, channel, state)

    def __len__(self) -> int:
        """Channels that are subscribed, or about to be, or linger."""
        return len(self._channels)

    def retry(self) -> None:
        """The broker is back: subscribe what is wanted and is not."""
        for channel, state in self._channels.items():
            if state.holders and not state.confirmed:
                self._drive(channel, state)

    def _lingered(self, channel: str, state: _Channel) -> None:
        state.linger = None
        if state.holders == 0:
            self._drive(channel, state)

    def _drive(self, channel: str, state: _Channel) -> asyncio.Future[None]:
        waiter = state.waiter
        if waiter is None:
            waiter = state.waiter = asyncio.get_running_loop().create_future()
            waiter.add_done_callback(_look)
        if not state.busy:
            state.busy = True
            self._tasks.spawn(self._settle(channel, state), f"interest in {channel}")
        return waiter

    async def _settle(self, channel: str, state: _Channel) -> None:
        """Bring the subscription in line with the number of holders, which may change meanwhile."""
        try:
            while True:
                if state.holders and not state.confirmed:
                    await self._broker.subscribe(channel)
                    state.confirmed = True
                elif not state.holders and state.confirmed and state.linger is None:
                    state.confirmed = False
                    self._on_dropped(channel)
                    await self._broker.unsubscribe(channel)
                else:
                    break
        except Unavailable as error:
            self._resolve(state, error)
        except Exception as error:
            self._resolve(state, Unavailable(f"subscribing failed: {error}"))
            raise
        else:
            self._resolve(state, None)
        finally:
            state.busy = False
            if not state.holders and not state.confirmed and self._channels.get(channel) is state:
                del self._channels[channel]

    def _resolve(self, state: _Channel, error: Unavailable | None) -> None:
        waiter, state.waiter = state.waiter, None
        if waiter is not None and not waiter.done():
            if error is None:
                waiter.set_result(None)
            else:
                waiter.set_exception(error)


def _look(future: asyncio.Future[None]) -> None:
    """Nobody may be waiting: an exception that is never looked at would be logged as lost."""
    if not future.cancelled():
        future.exception()

"""A sink that keeps what a broker tells it and lets a test wait for more of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from broker.base import Change, Delivery, Entry, Item
from tests.support.waiting import patience

T = TypeVar("T")


class RecordingSink:
    """Everything in the order it came. ``events`` are ``("interrupted", reason)``, ``("resubscribed", channels)``,
    ``("restored",)``; ``batches`` are the sizes of the deliver calls."""

    def __init__(self) -> None:
        self.deliveries: list[Delivery] = []
        self.events: list[tuple[object, ...]] = []
        self.batches: list[int] = []
        self._changed = asyncio.Event()

    def deliver(self, deliveries: list[Delivery]) -> None:
        self.batches.append(len(deliveries))
        self.deliveries += deliveries
        self._changed.set()

    def interrupted(self, reason: str) -> None:
        self.events.append(("interrupted", reason))
        self._changed.set()

    def resubscribed(self, channels: Sequence[str]) -> None:
        self.events.append(("resubscribed", sorted(channels)))
        self._changed.set()

    def restored(self) -> None:
        self.events.append(("restored",))
        self._changed.set()

    def of(self, channel: str) -> list[Item]:
        return [item for name, item in self.deliveries if name == channel]

    def entries(self, room: str) -> list[Entry]:
        return [item for item in self.of(f"room:{room}") if isinstance(item, Entry)]

    def payloads(self, channel: str) -> list[bytes]:
        return [item.payload for item in self.of(channel) if not isinstance(item, Change)]

    def names(self) -> list[object]:
        """The kinds of the events, in order."""
        return [event[0] for event in self.events]

    async def wait_for(self, predicate: Callable[[], object], timeout_s: float = 30.0) -> None:
        """Return once ``predicate`` holds; it is looked at after every call of the broker."""
        try:
            async with patience(timeout_s):
                while not predicate():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise AssertionError(
                f"not within {timeout_s} s; events {self.events[-10:]}, last deliveries {self.deliveries[-5:]}"
            ) from None

    async def in_time(self, work: Awaitable[T], timeout_s: float = 30.0) -> T:
        """The result of ``work``; AssertionError with what the broker told so far if it takes too long."""
        try:
            async with patience(timeout_s):
                return await work
        except TimeoutError:
            raise AssertionError(f"not within {timeout_s} s; events {self.events[-10:]}") from None

    async def wait_count(self, channel: str, count: int, timeout_s: float = 30.0) -> None:
        await self.wait_for(lambda: len(self.of(channel)) >= count, timeout_s)

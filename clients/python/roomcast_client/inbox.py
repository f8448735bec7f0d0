"""What waits for the application to read it, bounded."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final, Generic, TypeVar

T = TypeVar("T")

HIGH_EVENTS: Final = 1000
HIGH_BYTES: Final = 4 * 1024 * 1024


class Inbox(Generic[T]):
    """A queue that says when it is ``full`` and when it is ``low`` again. It is the owner's duty to bring nothing more
    while it is full; one reply (at most 500 messages) may go over the limit."""

    def __init__(self) -> None:
        self._events: deque[tuple[T, int]] = deque()
        self._bytes = 0
        self._ended: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None

    @property
    def full(self) -> bool:
        return len(self._events) >= HIGH_EVENTS or self._bytes >= HIGH_BYTES

    @property
    def low(self) -> bool:
        return len(self._events) <= HIGH_EVENTS // 2 and self._bytes <= HIGH_BYTES // 2

    def put(self, event: T, size: int = 0) -> None:
        self._events.append((event, size))
        self._bytes += size
        self._wake()

    def drop_oldest(self) -> None:
        """Make room where losing is allowed."""
        _, size = self._events.popleft()
        self._bytes -= size

    def end(self, error: Exception) -> None:
        """What is queued can still be read; then ``get`` raises this. Ending twice is a no-op."""
        if self._ended is None:
            self._ended = error
            self._wake()

    async def get(self) -> T:
        """The next event. For one reader at a time."""
        while not self._events:
            if self._ended is not None:
                raise self._ended
            if self._waiter is not None:
                raise RuntimeError("two tasks read the same events: let one read and pass them on")
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        event, size = self._events.popleft()
        self._bytes -= size
        return event

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

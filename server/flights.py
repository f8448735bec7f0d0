"""Reads that many ask for at once, of the same thing: one is under way, and all who ask meanwhile share the next."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

from broker.base import Unavailable
from server.tasks import Tasks

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Flights(Generic[K, V]):
    def __init__(self, read: Callable[[K], Awaitable[V]], tasks: Tasks, name: str) -> None:
        self._read = read
        self._tasks = tasks
        self._name = name
        self._next: dict[K, asyncio.Future[V]] = {}
        self._under_way: set[K] = set()

    async def get(self, key: K) -> V:
        """The read begins after this call, so what it finds is not older. Raises :class:`Unavailable`."""
        future = self._next.get(key)
        if future is None:
            future = self._next[key] = asyncio.get_running_loop().create_future()
            if key not in self._under_way:
                self._under_way.add(key)
                self._tasks.spawn(self._fly(key), self._name)
        try:
            return await asyncio.shield(future)
        except Unavailable as error:
            raise Unavailable(str(error)) from None

    async def _fly(self, key: K) -> None:
        try:
            while (future := self._next.pop(key, None)) is not None:
                try:
                    found = await self._read(key)
                except Exception as error:
                    away = error if isinstance(error, Unavailable) else Unavailable(f"reading failed: {error}")
                    future.set_exception(away)
                    future.exception()  # looked at: whoever waited may be gone
                    if away is not error:
                        raise
                else:
                    future.set_result(found)
        finally:
            self._under_way.discard(key)

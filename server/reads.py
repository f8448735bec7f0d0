"""Reads of room logs for clients that come back, all at the same moment after a node died.

A page of a log costs Redis about a millisecond in which it serves nobody else: a thousand reads at once would hold up
the node's own heartbeat until it believed that Redis is gone. So of a room one page is read at a time, whoever asks for
it meanwhile shares the next one, and of all rooms few are under way. Clients that come back one after the other within
``FRESH_S`` share a page, too, as long as the room has not gone on: the node itself hears what comes after it.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict

from broker.base import Broker, Page, Position, Unavailable
from server.tasks import Tasks

PAGE_ENTRIES = 100
"""Entries of one read: a page is one reply of Redis, and while it is made Redis serves nobody else."""
AT_ONCE = 8
"""Reads under way, of all rooms together."""
WOKEN_AT_ONCE = 20
"""Who waited for a page writes a long reply now: the others on the node get their turn in between."""

FRESH_S = 1.0
"""A page read longer ago is read again: what was deleted meanwhile must not come back."""
MAX_FRESH_BYTES = 4 * 2**20
"""Of payloads in all pages that are kept for it."""

_Waiting = list[asyncio.Future[Page]]


class Reads:
    """Pages begin at multiples of ``PAGE_ENTRIES``, so that clients at different places share them."""

    def __init__(self, broker: Broker, tasks: Tasks) -> None:
        self._broker = broker
        self._tasks = tasks
        self._waiting: dict[tuple[str, int], _Waiting] = {}
        self._rooms: set[str] = set()
        """Of which a page is being read."""
        self._fresh: OrderedDict[tuple[str, int], tuple[Page, float, int]] = OrderedDict()
        """Pages that were read just now, oldest first: when, and how many bytes."""
        self._fresh_bytes = 0

    async def after(self, room: str, since: int, top: Position | None = None) -> Page:
        """The top and the next entries after ``since``: at least one if the log has it, at most a page. The read begins
        after this call, so what it finds is not older; unless a page was read a moment ago when the log ended where it
        does by the node's own knowledge (``top``). Raises :class:`Unavailable`."""
        fresh = self._fresh.get((room, since - since % PAGE_ENTRIES)) if top is not None else None
        if fresh is not None and fresh[0].top == top and time.monotonic() - fresh[1] < FRESH_S:
            return _from(fresh[0], since)
        future: asyncio.Future[Page] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault((room, since - since % PAGE_ENTRIES), []).append(future)
        self._begin()
        return _from(await future, since)

    def _begin(self) -> None:
        for key in tuple(self._waiting):
            if len(self._rooms) == AT_ONCE:
                return
            if key[0] not in self._rooms:
                self._rooms.add(key[0])
                self._tasks.spawn(self._read(*key, self._waiting.pop(key)), "read a page")

    async def _read(self, room: str, begin: int, waiting: _Waiting) -> None:
        try:
            page = await self._broker.read(room, begin, PAGE_ENTRIES)
        except Unavailable as error:
            self._fail(waiting, error)
        except Exception as error:
            self._fail(waiting, Unavailable(f"reading the log failed: {error}"))
            raise
        else:
            self._keep((room, begin), page)
            await _wake(waiting, page)
        finally:
            self._rooms.discard(room)
            self._begin()

    def _keep(self, key: tuple[str, int], page: Page) -> None:
        now_s = time.monotonic()
        before = self._fresh.pop(key, None)
        size = sum(len(entry.payload) for entry in page.entries)
        self._fresh[key] = page, now_s, size
        self._fresh_bytes += size - (before[2] if before is not None else 0)
        while self._fresh:
            oldest, (_, at_s, size) = next(iter(self._fresh.items()))
            if now_s - at_s < FRESH_S and self._fresh_bytes <= MAX_FRESH_BYTES:
                return
            del self._fresh[oldest]
            self._fresh_bytes -= size

    def _fail(self, waiting: _Waiting, error: Unavailable) -> None:
        """Whoever waits for another page would wait as long once more, in vain."""
        for future in (*waiting, *(future for others in self._waiting.values() for future in others)):
            if not future.done():
                future.set_exception(Unavailable(str(error)))
        self._waiting.clear()


def _from(page: Page, since: int) -> Page:
    return Page(page.top, [entry for entry in page.entries if entry.offset > since])


async def _wake(waiting: _Waiting, page: Page) -> None:
    for number, future in enumerate(waiting, 1):
        if not future.done():  # who asked may be gone
            future.set_result(page)
        if number % WOKEN_AT_ONCE == 0:
            await asyncio.sleep(0)

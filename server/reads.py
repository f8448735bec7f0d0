"""Reads of room logs for clients that come back, all at the same moment after a node died.

A page of a log costs Redis about a millisecond in which it serves nobody else: a thousand reads at once would hold up
the node's own heartbeat until it believed that Redis is gone. So of a room one page is read at a time, whoever asks for
it meanwhile shares the next one, and of all rooms few are under way.
"""

from __future__ import annotations

import asyncio

from broker.base import Broker, Page, Unavailable
from server.tasks import Tasks

PAGE_ENTRIES = 100
"""Entries of one read: a page is one reply of Redis, and while it is made Redis serves nobody else."""
AT_ONCE = 8
"""Reads under way, of all rooms together."""
WOKEN_AT_ONCE = 20
"""Who waited for a page writes a long reply now: the others on the node get their turn in between."""

_Waiting = list[asyncio.Future[Page]]


class Reads:
    """Pages begin at multiples of ``PAGE_ENTRIES``, so that clients at different places share them."""

    def __init__(self, broker: Broker, tasks: Tasks) -> None:
        self._broker = broker
        self._tasks = tasks
        self._waiting: dict[tuple[str, int], _Waiting] = {}
        self._rooms: set[str] = set()
        """Of which a page is being read."""

    async def after(self, room: str, since: int) -> Page:
        """The top and the next entries after ``since``: at least one if the log has it, at most a page. The read begins
        after this call, so what it finds is not older. Raises :class:`Unavailable`."""
        future: asyncio.Future[Page] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault((room, since - since % PAGE_ENTRIES), []).append(future)
        self._begin()
        page = await future
        return Page(page.top, [entry for entry in page.entries if entry.offset > since])

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
            await _wake(waiting, page)
        finally:
            self._rooms.discard(room)
            self._begin()

    def _fail(self, waiting: _Waiting, error: Unavailable) -> None:
        """Whoever waits for another page would wait as long once more, in vain."""
        for future in (*waiting, *(future for others in self._waiting.values() for future in others)):
            if not future.done():
                future.set_exception(Unavailable(str(error)))
        self._waiting.clear()


async def _wake(waiting: _Waiting, page: Page) -> None:
    for number, future in enumerate(waiting, 1):
        if not future.done():  # who asked may be gone
            future.set_result(page)
        if number % WOKEN_AT_ONCE == 0:
            await asyncio.sleep(0)

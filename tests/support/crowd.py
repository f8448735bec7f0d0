"""Users of the Python client in rooms, talking all the time, for tests that restart what is between them: what each saw
is judged by what was acknowledged, and nobody may be taken for gone."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from roomcast_client import Connected, Lost, Message, Presence, Reset, Room, Roomcast

from tests.support.oracle import Follower, Oracle
from tests.support.waiting import eventually

_crowds = itertools.count(1)

Credentials = Callable[[str], Roomcast]
"""Makes the client of the user of this name."""


class Crowd:
    """``members`` users, spread over ``rooms`` rooms; the first of each room publishes every ``every_s``."""

    def __init__(self, client_of: Credentials, members: int, rooms: int = 4, every_s: float = 0.05) -> None:
        self.oracle = Oracle()
        self.offline: list[tuple[str, object]] = []
        """(room, user) of every event that somebody went."""
        self.nodes: dict[str, str] = {}
        """User -> the node that welcomed it last."""
        self.reconnects = 0
        self.away_s: dict[str, float] = {}
        """User -> their longest absence."""
        self._client_of = client_of
        self._every_s = every_s
        crowd = next(_crowds)  # the one before is still leaving when the next one comes
        self.rooms = [f"room{crowd}.{number}" for number in range(rooms)]
        self._places = [(f"user{crowd}.{number}", self.rooms[number % rooms]) for number in range(members)]
        self._over = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._clients: list[Roomcast] = []

    @asynccontextmanager
    async def talking(self) -> AsyncIterator[Crowd]:
        """At the end everybody has seen all that was acknowledged, once and in order. AssertionError otherwise."""
        async with contextlib.AsyncExitStack() as stack:
            speakers: dict[str, tuple[str, Room]] = {}
            for user, name in self._places:
                client = await stack.enter_async_context(self._client_of(user))
                self._clients.append(client)
                room = await client.join(name, presence=True)
                assert room.position is not None
                follower = self.oracle.follow(user, name, room.position)
                self._tasks += [
                    asyncio.create_task(self._listen(room, follower)),
                    asyncio.create_task(self._notice(user, client)),
                ]
                speakers.setdefault(name, (user, room))
            publishing = [asyncio.create_task(self._publish(user, room)) for user, room in speakers.values()]
            try:
                yield self
                self._over.set()
                await asyncio.wait_for(asyncio.gather(*publishing), 60)
                with contextlib.suppress(AssertionError):  # the check says it better
                    await eventually(lambda: not self.oracle.behind(), 20)
            finally:
                for task in (*publishing, *self._tasks):
                    task.cancel()
                await asyncio.wait([*publishing, *self._tasks])
        self.oracle.check()
        assert all(follower.resets == 0 for follower in self.oracle.followers)

    async def _listen(self, room: Room, follower: Follower) -> None:
        async for event in room.events():
            if isinstance(event, Message | Reset):
                follower.seen.append(event)
            elif isinstance(event, Presence) and not event.online:
                self.offline.append((room.name, event.user_id))

    async def _notice(self, user: str, client: Roomcast) -> None:
        since = None
        async for event in client.events():
            if isinstance(event, Lost) and since is None:
                since = time.monotonic()
            elif isinstance(event, Connected):
                if since is not None:
                    self.away_s[user] = max(self.away_s.get(user, 0.0), time.monotonic() - since)
                since = None
                self.nodes[user] = event.node
                self.reconnects += event.again

    async def _publish(self, user: str, room: Room) -> None:
        while not self._over.is_set():
            data = f"{user}:{self.oracle.publishes}"
            self.oracle.acked(room.name, data, await room.send(data, timeout_s=60))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._over.wait(), self._every_s)

    async def progress(self, messages: int = 50, timeout_s: float = 30.0) -> None:
        """Return when so many more were acknowledged and everybody has them."""
        target = self.oracle.publishes + messages
        await eventually(lambda: self.oracle.publishes >= target, timeout_s)

    def wrongly_offline(self, grace_s: float) -> list[tuple[str, object]]:
        """Events that told of the end of users who were never away for so long."""
        return [(room, user) for room, user in self.offline if self.away_s.get(str(user), 0.0) < grace_s]

    @property
    def all_connected(self) -> bool:
        return all(client.connected for client in self._clients)

    @property
    def spread(self) -> float:
        """(highest − lowest) / mean of the members per node, of nodes that have any."""
        counts = Counter(self.nodes.values()).values()
        return (max(counts) - min(counts)) * len(counts) / sum(counts)

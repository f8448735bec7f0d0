"""Many members who talk while something happens to the nodes, and what became of every message."""

from __future__ import annotations

import asyncio
import itertools
import math
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from loadtests.member import Member, Seen

LOBBY = "lobby"
"""Everybody is there and nobody talks; observers hear of its presence."""
ARRIVALS_PER_S = 400
LOOK_S = 0.05
COALESCED_S = 1.0
"""Answers are newer than events, which wait a little for others."""


class Crowd:
    """``members`` users, ``room_size`` of them in each room, and observers who only watch the lobby."""

    def __init__(self, members: int, address: tuple[str, int], *, room_size: int = 20, observers: int = 3) -> None:
        self.members = [
            Member(f"user{number}", [LOBBY, f"room{number // room_size}"], address, self._heard)
            for number in range(members)
        ]
        self.observers = [
            Member(f"observer{number}", [LOBBY], address, self._seen, watches=LOBBY) for number in range(observers)
        ]
        for member in self.members:
            member.acked = self._acked
        self.published = 0
        self.stalled_s = 0.0
        """By how much this process itself was late, at the worst, while it talked: what it sees is no more exact."""
        self.heard_s: list[float] = []
        self.delays_s: list[float] = []
        """When a message that :meth:`say` said was heard by one of the members, and how long after."""
        self._said_s: dict[object, float] = {}
        self._agreed: dict[tuple[str, int], Seen] = {}
        self._tops: Counter[str] = Counter()
        self._disagreements = 0
        self._numbers = itertools.count()

    @property
    def everybody(self) -> list[Member]:
        return [*self.members, *self.observers]

    def _heard(self, message: Seen) -> None:
        now_s = time.monotonic()
        self._seen(message)
        if message.data in self._said_s:
            self.heard_s.append(now_s)
            self.delays_s.append(now_s - self._said_s[message.data])

    def _seen(self, message: Seen) -> None:
        """The same place holds the same message for all."""
        if self._agreed.setdefault((message.room, message.offset), message) != message:
            self._disagreements += 1

    def _acked(self, message: Seen) -> None:
        self._seen(message)
        self.published += 1
        self._tops[message.room] = max(self._tops[message.room], message.offset)

    # What it does.

    async def arrive(self, timeout_s: float) -> None:
        """Return when everybody is in all rooms, and the observers know it. TimeoutError if that takes longer."""
        for number, member in enumerate(self.everybody):
            member.connect()
            if number % (ARRIVALS_PER_S // 20) == 0:
                await asyncio.sleep(0.05)
        await self.all_here(timeout_s)
        await self._until(self._everybody_is_known, timeout_s)
        await asyncio.sleep(COALESCED_S)
        for member in self.everybody:
            member.presence.clear()

    def _everybody_is_known(self) -> bool:
        known = all(observer.present == len(self.everybody) for observer in self.observers)
        for observer in self.observers if not known else ():
            observer.count()
        return known

    async def all_here(self, timeout_s: float) -> None:
        """Return when everybody is back. TimeoutError if that takes longer."""
        await self._until(lambda: all(member.here for member in self.everybody), timeout_s)

    @asynccontextmanager
    async def talking(self, rate: float) -> AsyncIterator[None]:
        """``rate`` messages a second are published meanwhile, each by a member who is chosen by chance."""
        task = asyncio.create_task(self._talk(rate))
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait((task,))

    async def _talk(self, rate: float) -> None:
        loop = asyncio.get_running_loop()
        start_s, sent = loop.time(), 0
        while True:
            due_s = loop.time() + LOOK_S
            await asyncio.sleep(LOOK_S)
            self.stalled_s = max(self.stalled_s, loop.time() - due_s)
            while sent < (loop.time() - start_s) * rate:
                sent += 1
                self.say(random.choice(self.members))

    def say(self, member: Member) -> None:
        number = next(self._numbers)
        self._said_s[number] = time.monotonic()
        member.publish(next(room for room in member.places if room != LOBBY), f"k{number}", number)

    async def settled(self, timeout_s: float) -> bool:
        """Wait until everybody is back and has seen all that was acknowledged; whether that is so in time."""
        try:
            await self._until(lambda: all(m.here and not m.unacked for m in self.everybody), timeout_s)
            await self._until(lambda: not self.behind(), timeout_s)
        except TimeoutError:
            return False
        return True

    async def _until(self, done: Callable[[], bool], timeout_s: float) -> None:
        for _ in range(math.ceil(timeout_s / LOOK_S)):
            if done():
                return
            await asyncio.sleep(LOOK_S)
        raise TimeoutError(f"not everybody was here within {timeout_s:g} s")

    async def leave(self) -> None:
        for member in self.everybody:
            member.leave()
        await asyncio.sleep(LOOK_S)

    # What became of it.

    def behind(self) -> list[Member]:
        """Who has not seen the last acknowledged message of a room."""
        return [
            member
            for member in self.members
            if any(place is not None and place.offset < self._tops[room] for room, place in member.places.items())
        ]

    def verdict(self) -> dict[str, float]:
        """All of these should be 0."""
        everybody = self.everybody
        return {
            "lost": sum(m.holes + len(m.unacked) for m in everybody) + len(self.behind()) + self._disagreements,
            "duplicated": sum(m.repeats for m in everybody),
            "resets": sum(m.resets for m in everybody),
            "presence_events": sum(len(m.presence) for m in self.observers),
        }

    def nodes(self) -> Counter[str]:
        """How many members each node has."""
        return Counter(member.node for member in self.everybody if member.live)

    def tries_s(self, since_s: float) -> list[float]:
        """When members tried to come back, in order."""
        return sorted(at_s for member in self.everybody for at_s in member.tried_s if at_s >= since_s)


def peak_to_mean(times_s: Sequence[float], window_s: float) -> float:
    """The most that happened within any ``window_s``, to what would have if all had come evenly from the first to the
    last. 0 for fewer than two. Pure."""
    if len(times_s) < 2:
        return 0.0
    ordered = sorted(times_s)
    peak, begin = 0, 0
    for end, at_s in enumerate(ordered):
        while ordered[begin] <= at_s - window_s:
            begin += 1
        peak = max(peak, end - begin + 1)
    duration_s = max(window_s, ordered[-1] - ordered[0])
    return peak / (len(ordered) * window_s / duration_s)

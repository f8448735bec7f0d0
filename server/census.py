"""Which rooms have members, over all nodes: asked for when somebody wants to know, kept nowhere.

The asking node says on ``CONTROL`` which page it wants; every node answers with the first names of its own, sorted, so
the first names of all of them together are complete, however many rooms there are.
"""

from __future__ import annotations

import asyncio
import heapq
import secrets
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from broker.base import Broker
from server.names import room_matches
from server.payload import CONTROL, CensusAnswer, CensusSignal, encode_signal

if TYPE_CHECKING:
    from server.hub import LocalHub

WITHIN_S = 2.0
"""A node that has not answered by then is named as missing."""
MAX_ROOMS = 500


class RoomsPage(NamedTuple):
    rooms: list[tuple[str, int]]
    """Sorted by name, with the number of connections on all nodes."""
    more: bool
    missing: list[str]
    """Nodes that live and did not answer."""


class Answers:
    """What has come in for one question. Pure but for the event."""

    def __init__(self, limit: int) -> None:
        self.complete = asyncio.Event()
        self._limit = limit
        self._nodes: set[str] = set()
        self._expected: set[str] | None = None
        self._counts: Counter[str] = Counter()
        self._more = False

    def expect(self, nodes: set[str]) -> None:
        self._expected = nodes
        self._check()

    def add(self, answer: CensusAnswer) -> None:
        if answer.node in self._nodes:
            return
        self._nodes.add(answer.node)
        for room, connections in answer.rooms:
            self._counts[room] += connections
        self._more = self._more or len(answer.rooms) >= self._limit
        self._check()

    def _check(self) -> None:
        if self._expected is not None and self._expected <= self._nodes:
            self.complete.set()

    def page(self) -> RoomsPage:
        names = sorted(self._counts)
        rooms = [(name, self._counts[name]) for name in names[: self._limit]]
        missing = sorted((self._expected or set()) - self._nodes)
        return RoomsPage(rooms, self._more or len(names) > self._limit, missing)


class Questions:
    """Those that are open, of a node or of the command line."""

    def __init__(self) -> None:
        self._open: dict[str, Answers] = {}

    def answered(self, answer: CensusAnswer) -> None:
        answers = self._open.get(answer.query)
        if answers is not None:
            answers.add(answer)

    async def ask(self, broker: Broker, reply_to: str, after: str, pattern: str, limit: int) -> RoomsPage:
        """One page of rooms. ``reply_to`` is subscribed, and what comes there is told to :meth:`answered`. Raises
        :class:`broker.base.BrokerError`."""
        query = secrets.token_hex(8)
        answers = self._open[query] = Answers(limit)
        try:
            await broker.publish(CONTROL, encode_signal(CensusSignal(query, reply_to, after, pattern, limit)))
            answers.expect({str(node["node"]) for node in await broker.nodes()})
            try:
                async with asyncio.timeout(WITHIN_S):
                    await answers.complete.wait()
            except TimeoutError:
                pass
            return answers.page()
        finally:
            del self._open[query]


def reply_channel(node_id: str) -> str:
    """Where one node hears its answers. No request has such a path: they begin with a slash."""
    return f"path:.census:{node_id}"


class Census(Questions):
    """A node's side: it asks, and answers."""

    def __init__(self, hub: LocalHub) -> None:
        super().__init__()
        self._hub = hub

    def asked(self, question: CensusSignal) -> None:
        hub = self._hub
        names = (
            name
            for name in hub.feed.rooms
            if name > question.after and hub.rooms.members(name) and room_matches(question.pattern, name)
        )
        found = heapq.nsmallest(min(question.limit, MAX_ROOMS), names)
        rooms = tuple((name, len(hub.rooms.members(name))) for name in found)
        answer = CensusAnswer(question.query, hub.broker.node_id, rooms)
        hub.broker.publish(question.reply_to, encode_signal(answer))

    async def rooms(self, after: str, pattern: str, limit: int) -> RoomsPage:
        """One page of the rooms that have members. Raises :class:`broker.base.BrokerError`."""
        channel = reply_channel(self._hub.broker.node_id)
        subscribed = self._hub.interest.acquire(channel)
        try:
            if subscribed is not None:
                await asyncio.shield(subscribed)
            return await self.ask(self._hub.broker, channel, after, pattern, limit)
        finally:
            self._hub.interest.release(channel)

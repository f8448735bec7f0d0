"""What a slow reader is told once it has caught up: of all that gave way, the latest on each topic. Pure.

Bounded: over ``MAX_BYTES`` presence is kept as the bare fact that a room's list has to be sent, and of typing and
receipts the longest known goes (typing is at most once; marks are told whole with the next join).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from server.frames import Ephemeral, Topic

MAX_BYTES: Final = 32 * 1024
"""Of payloads and ``ENTRY_BYTES`` for each. With the outbound buffer this stays below 300 KiB per reader."""
ENTRY_BYTES: Final = 160
"""What an entry costs beside its payload, which all slow readers share."""


class Backlog:
    __slots__ = ("_bytes", "_presence", "_rest", "lists")

    def __init__(self) -> None:
        self._presence: dict[str | None, dict[str, Ephemeral]] = {}
        self._rest: dict[Topic, Ephemeral] = {}
        self.lists: set[str | None] = set()
        """Rooms (None: everywhere) of which more has changed than is kept: send the list of who is there."""
        self._bytes = 0

    def put(self, part: Ephemeral) -> Iterator[str]:
        """Keep it. Gives the kind of each event that will not be sent because of it; go through all of them."""
        kind, room, about = part.topic
        if kind == "presence" and (room in self.lists or not about):
            self.lists.add(room)
            yield kind
            yield from self._give_up(room)
            return
        if kind == "presence":
            before = self._presence.setdefault(room, {}).pop(about, None)
            self._presence[room][about] = part
        else:
            before = self._rest.pop(part.topic, None)
            self._rest[part.topic] = part
        self._bytes += _size(part)
        if before is not None:
            self._bytes -= _size(before)
            yield kind
        while self._bytes > MAX_BYTES:
            yield from self._shrink()

    def _shrink(self) -> Iterator[str]:
        for room in self._presence:
            self.lists.add(room)
            yield from self._give_up(room)
            return
        oldest = self._rest.pop(next(iter(self._rest)))
        self._bytes -= _size(oldest)
        yield oldest.topic.kind

    def _give_up(self, room: str | None) -> Iterator[str]:
        """The presence of a room."""
        for part in self._presence.pop(room, {}).values():
            self._bytes -= _size(part)
            yield part.topic.kind

    def forget(self, room: str) -> None:
        """The reader has left it and is told nothing of it any more."""
        for _ in self._give_up(room):
            pass
        self.lists.discard(room)
        for topic in [topic for topic in self._rest if topic.room == room]:
            self._bytes -= _size(self._rest.pop(topic))

    def parts(self) -> list[Ephemeral]:
        """All that is kept, per topic the latest."""
        return [*(part for users in self._presence.values() for part in users.values()), *self._rest.values()]


def _size(part: Ephemeral) -> int:
    return len(part.payload) + ENTRY_BYTES

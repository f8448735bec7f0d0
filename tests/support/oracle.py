"""The linearised oracle (T1 of the reliability notes): what publishers were told must be what subscribers saw.

Publishers record every ack, subscribers every event of their rooms. ``check`` then demands of each subscriber: from
where it began, every offset once and in order, each with the payload and tag that its publisher was told, up to the
last acknowledged one; a break only where the client was told of a reset. And the log holds every publish once.
"""

from __future__ import annotations

from roomcast_client import Ack, Message, Position, Reset

MAX_PROBLEMS = 20
"""Shown of a failed check; one fault usually shows in many logs."""


class Follower:
    """One subscriber's view of one room, from the position at which it joined."""

    def __init__(self, name: str, room: str, start: Position) -> None:
        self.name = name
        self.room = room
        self.start = start
        self.seen: list[Message | Reset] = []

    @property
    def position(self) -> Position:
        return self.seen[-1].position if self.seen else self.start

    @property
    def resets(self) -> int:
        return sum(isinstance(event, Reset) for event in self.seen)

    @property
    def messages(self) -> int:
        return len(self.seen) - self.resets


class Oracle:
    """Payloads are strings, each published once in its life."""

    def __init__(self) -> None:
        self.followers: list[Follower] = []
        self._acks: dict[tuple[str, str, int], tuple[str, str]] = {}
        self._place: dict[tuple[str, str], tuple[str, int]] = {}
        self._in_doubt: set[tuple[str, str]] = set()
        self._top: dict[str, tuple[str, int]] = {}
        self._problems: list[str] = []

    def acked(self, room: str, data: str, ack: Ack) -> None:
        """The publisher was told: this payload is in the log, there."""
        place = (room, ack.epoch, ack.offset)
        if place in self._acks:
            self._problems.append(f"{place} was acknowledged twice: {self._acks[place]} and {(ack.tag, data)}")
        self._acks[place] = (ack.tag, data)
        self._place[room, data] = (ack.epoch, ack.offset)
        epoch, offset = self._top.get(room, (ack.epoch, 0))
        self._top[room] = (ack.epoch, max(offset, ack.offset) if epoch == ack.epoch else ack.offset)

    def in_doubt(self, room: str, data: str) -> None:
        """The publisher was not told: this payload may be in the log, once, or not."""
        self._in_doubt.add((room, data))

    def follow(self, name: str, room: str, start: Position) -> Follower:
        follower = Follower(name, room, start)
        self.followers.append(follower)
        return follower

    @property
    def publishes(self) -> int:
        """How many were acknowledged."""
        return len(self._place)

    def behind(self) -> list[Follower]:
        """Those who have not seen the last acknowledged message of their room."""
        return [follower for follower in self.followers if self._is_behind(follower)]

    def _is_behind(self, follower: Follower) -> bool:
        top = self._top.get(follower.room)
        if top is None:
            return False
        position = follower.position
        return position.epoch != top[0] or position.offset < top[1]

    def problems(self) -> list[str]:
        """All that contradicts the promise, in words."""
        problems = list(self._problems)
        agreed: dict[tuple[str, str, int], tuple[str, str]] = dict(self._acks)
        places = dict(self._place)
        for follower in self.followers:
            problems += [
                f"{follower.name} in {follower.room}: {text}" for text in self._follow(follower, agreed, places)
            ]
            if self._is_behind(follower):
                position, top = follower.position, self._top[follower.room]
                problems.append(f"{follower.name} in {follower.room}: ends at {position}, the log at {top}")
        return problems

    def _follow(
        self,
        follower: Follower,
        agreed: dict[tuple[str, str, int], tuple[str, str]],
        places: dict[tuple[str, str], tuple[str, int]],
    ) -> list[str]:
        problems = []
        at = follower.start
        for event in follower.seen:
            if isinstance(event, Message):
                if event.epoch != at.epoch:
                    problems.append(f"epoch {event.epoch} after {at.epoch} without a reset")
                elif event.offset != at.offset + 1:
                    problems.append(f"offset {event.offset} after {at.offset} without a reset")
                problems += self._compare(event, agreed, places)
            at = event.position
        return problems

    def _compare(
        self,
        message: Message,
        agreed: dict[tuple[str, str, int], tuple[str, str]],
        places: dict[tuple[str, str], tuple[str, int]],
    ) -> list[str]:
        """With what the publisher was told; where it was told nothing, with what the others saw."""
        place, what = (message.room, message.epoch, message.offset), (message.tag, message.data)
        if place not in agreed and (message.room, message.data) not in self._in_doubt | places.keys():
            return [f"{what} at offset {message.offset} was never published"]
        if agreed.setdefault(place, what) != what:
            return [f"offset {message.offset} is {what}, elsewhere {agreed[place]}"]
        first = places.setdefault((message.room, message.data), (message.epoch, message.offset))
        if first != (message.epoch, message.offset):
            return [f"{message.data!r} is in the log twice: {first} and {(message.epoch, message.offset)}"]
        return []

    def check(self) -> None:
        """AssertionError with the first problems, if there is one."""
        problems = self.problems()
        if problems:
            shown = "\n".join(problems[:MAX_PROBLEMS])
            raise AssertionError(f"{len(problems)} contradictions to what was acknowledged:\n{shown}")

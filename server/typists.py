"""Who is typing where, as one node knows it. Pure: time comes in.

The node of a typist says it at most once a second (:class:`Keyboards`). Every node that hears it holds the deadline
itself (:class:`Typists`), so a node that is killed leaves nobody typing for ever.
"""

from __future__ import annotations

from typing import NamedTuple

from server.payload import Origin

TYPING_S = 6.0
"""Typing ends so long after the last time it was said."""
SAY_EVERY_S = 1.0
"""Not more often per user and room, whatever the keyboard does."""


class Typist(NamedTuple):
    room: str
    user: str


class _State(NamedTuple):
    deadline_s: float
    origin: Origin


class Typists:
    """The receiving side. All deadlines are equally long, so the oldest is always the first."""

    def __init__(self) -> None:
        self._typing: dict[Typist, _State] = {}
        self._rooms: dict[str, dict[str, None]] = {}

    def __len__(self) -> int:
        """How many are typing."""
        return len(self._typing)

    def started(self, typist: Typist, origin: Origin, now_s: float) -> None:
        """It was said (again) that they type."""
        self._typing.pop(typist, None)
        self._typing[typist] = _State(now_s + TYPING_S, origin)
        self._rooms.setdefault(typist.room, {})[typist.user] = None

    def stopped(self, typist: Typist) -> Origin | None:
        """They stopped, left, or sent their message. Returns who must not be told, or None if they were not typing."""
        state = self._typing.pop(typist, None)
        if state is None:
            return None
        users = self._rooms[typist.room]
        del users[typist.user]
        if not users:
            del self._rooms[typist.room]
        return state.origin

    def users(self, room: str) -> tuple[str, ...]:
        """Who types in the room, in the order in which they began."""
        return tuple(self._rooms.get(room, ()))

    def next_deadline_s(self) -> float | None:
        for state in self._typing.values():
            return state.deadline_s
        return None

    def due(self, now_s: float) -> list[tuple[Typist, Origin]]:
        """Those whose time is over; they are forgotten."""
        over = []
        for typist, state in self._typing.items():
            if state.deadline_s > now_s:
                break
            over.append(typist)
        return [(typist, origin) for typist in over if (origin := self.stopped(typist)) is not None]

    def forget(self, room: str) -> None:
        """Nobody here is in the room any more."""
        for user in self.users(room):
            self.stopped(Typist(room, user))


class _Key(NamedTuple):
    said: bool
    said_at_s: float
    wanted: bool | None
    """What is to be said when the second is over; None if nothing."""
    origin: Origin


class Keyboards:
    """The sending side: what the connections of this node said, thinned out to one signal a second."""

    def __init__(self) -> None:
        self._keys: dict[Typist, _Key] = {}

    def press(self, typist: Typist, typing: bool, origin: Origin, now_s: float) -> bool:
        """True: publish it now. False: it is said already, or will be when the second is over."""
        key = self._keys.get(typist)
        if key is None:
            if typing:
                self._keys[typist] = _Key(True, now_s, None, origin)
            return typing
        if now_s - key.said_at_s >= SAY_EVERY_S:
            if typing or key.said:
                self._keys[typist] = _Key(typing, now_s, None, origin)
            return typing or key.said
        self._keys[typist] = key._replace(wanted=typing, origin=origin)
        return False

    def lifted(self, typist: Typist) -> bool:
        """Their last connection here left the room, or their message was sent. True if a stop must be published: the
        others still believe they type."""
        key = self._keys.pop(typist, None)
        return key is not None and key.said

    def due(self, now_s: float) -> list[tuple[Typist, bool, Origin]]:
        """What is to be published now, the second being over. What the others have ended by themselves is forgotten."""
        say = []
        for typist, key in tuple(self._keys.items()):
            quiet_s = now_s - key.said_at_s
            if key.wanted is None:
                if quiet_s >= (TYPING_S if key.said else SAY_EVERY_S):
                    del self._keys[typist]
            elif quiet_s >= SAY_EVERY_S:
                if key.wanted or key.said:
                    say.append((typist, key.wanted, key.origin))
                self._keys[typist] = _Key(key.wanted, now_s, None, key.origin)
        return say

    def __len__(self) -> int:
        return len(self._keys)

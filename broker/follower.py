"""One reader's copy of who is in a scope, kept up by changes, healed by rosters. Pure. Theory: broker/presence.py."""

from __future__ import annotations

from typing import Literal, NamedTuple

from broker.base import Change, Roster

Verdict = Literal["changed", "known", "behind"]


class Difference(NamedTuple):
    user: str
    online: bool


class Follower:
    """Begins empty and ``behind``: read the roster after the subscription is confirmed and give it to ``replace``.

    ``doubtful`` users are in the copy but were not in a roster that was still settling: read it again when it has.
    """

    __slots__ = ("doubtful", "epoch", "users", "version")

    def __init__(self) -> None:
        self.epoch = b""
        self.version = 0
        self.users: set[str] = set()
        self.doubtful: set[str] = set()

    def apply(self, change: Change) -> Verdict:
        """``changed``: this user came or went, tell it. ``known``: nothing new. ``behind``: the copy is unchanged and
        may be wrong, read the roster."""
        if change.epoch != self.epoch or change.version > self.version + 1:
            return "behind"
        if change.version <= self.version:
            return "known"
        self.version = change.version
        self.doubtful.discard(change.user)
        if (change.user in self.users) == change.online:
            return "known"
        if change.online:
            self.users.add(change.user)
        else:
            self.users.remove(change.user)
        return "changed"

    def replace(self, roster: Roster, *, settling: bool) -> list[Difference]:
        """Take over what was read; the differences to what was known. While settling nobody is said to have gone."""
        came, missing = roster.users - self.users, self.users - roster.users
        self.epoch, self.version = roster.epoch, roster.version
        self.users |= came
        self.doubtful = missing if settling else set()
        gone = set() if settling else missing
        self.users -= gone
        return [Difference(user, False) for user in sorted(gone)] + [Difference(user, True) for user in sorted(came)]

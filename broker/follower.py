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

    __slots__ = ("doubtful", "users", "versions")

    def __init__(self) -> None:
        self.versions: dict[bytes, int] = {}
        self.users: set[str] = set()
        self.doubtful: set[str] = set()

    def apply(self, change: Change) -> Verdict:
        """``changed``: this user came or went, tell it. ``known``: nothing new. ``behind``: the copy is unchanged and
        may be wrong, read the roster."""
        version = self.versions.get(change.epoch)
        if version is None or change.version > version + 1:
            return "behind"
        if change.version <= version:
            return "known"
        self.versions[change.epoch] = change.version
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
        self.versions = dict(roster.versions)
        self.users |= came
        self.doubtful = missing if settling else set()
        gone = set() if settling else missing
        self.users -= gone
        return [Difference(user, False) for user in sorted(gone)] + [Difference(user, True) for user in sorted(came)]

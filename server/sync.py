"""Whether a room's members have seen everything: the node's position in the room's log, as a pure state machine.

Redis pub/sub forgets. So a node follows the links of what it hears: LIVE, each entry must be the next one and name the
tag of the one before. Anything else makes it SYNC: what arrives is kept aside, the log is read from the position on,
what was missed is delivered, then what was kept aside, and the room is LIVE again.

Only a read decides that the log was lost or forked (:class:`Reset`): what comes over pub/sub may be old, doubled or
from a server that is no longer the master; the read goes to the one that counts. A fork cannot hide behind equal
offsets, because each entry carries a random tag and that of the entry before (docs/design.md, "Why a tag").
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from broker.base import Entry, Page, Position

MAX_KEPT_ENTRIES = 1000
MAX_KEPT_BYTES = 256 * 1024
"""What is kept aside in SYNC. Over it all of it is dropped and the log is read once more instead."""


class Read(NamedTuple):
    """Read the log after this offset (None: only its top) and give the page to :meth:`RoomLog.page`."""

    since: int | None


class Deliver(NamedTuple):
    """These come next, in this order."""

    entries: list[Entry]


class Reset(NamedTuple):
    """The log behind the room was lost or forked; the members continue from here."""

    position: Position


Effect = Read | Deliver | Reset


class RoomLog:
    """Starts in SYNC, knowing nothing. At any time at most one read is under way; its page is that of the latest
    :class:`Read`, begun when or after that was returned. A read that failed is simply begun again (:meth:`read`)."""

    __slots__ = ("_again", "_asked", "_kept", "_kept_bytes", "live", "position")

    def __init__(self) -> None:
        self.position: Position | None = None
        """After the last entry that was delivered; None until the first read."""
        self.live = False
        self._asked = False  # a look at the log is under way or about to begin
        self._again = False  # it may have looked too early: look again. Whatever comes before that need not be kept
        self._kept: list[Entry] = []  # what arrived since the latest look at the log began
        self._kept_bytes = 0

    def frame(self, entry: Entry) -> bool | Read:
        """Judge one entry that arrived. True: deliver it now. False: drop it, or it is kept. Read: the room is in SYNC
        from now on."""
        position = self.position
        if self.live and position is not None:
            if entry.epoch == position.epoch:
                if entry.offset == position.offset + 1 and entry.prev == position.tag:
                    self.position = Position(entry.epoch, entry.offset, entry.tag)
                    return True
                if entry.offset <= position.offset:
                    return False  # doubled or late; a rollback always brings a subscriber event as well
            self.live = False
            return self.read()
        self._keep(entry)
        return False

    def suspect(self) -> None:
        """Something may have been missed: SYNC. The caller asks the broker for the top (:meth:`verify`) or reads,
        unless a read is under way already: that one may have looked too early, so another follows it."""
        self.live = False
        self._again = self._asked
        self._asked = True

    def read(self) -> Read:
        """What to read now. Call it when a read begins (again). What arrived before it, the read knows, and better: an
        entry it does not know is of a former life of the log."""
        self._asked = True
        self._again = False
        self._drop_kept()
        return Read(None if self.position is None else self.position.offset)

    def verify(self, top: Position | None) -> list[Effect]:
        """Like :meth:`page` where only the top was asked for: if the room stands there, nothing was missed."""
        if self._again or top is None or top != self.position:
            return [self.read()]
        return self._replay(top)

    def page(self, page: Page) -> list[Effect]:
        """Take what a read found. The last effect is a Read if there is more to read; else the room is LIVE."""
        effects: list[Effect] = []
        position, top = self.position, page.top
        if position is None:
            position = top
        else:
            missed = recover(position, page)
            if missed is None:
                position = top
                effects.append(Reset(top))
            elif missed:
                position = _after(missed[-1])
                effects.append(Deliver(missed))
        self.position = position
        if position.offset < top.offset or self._again:
            return [*effects, self.read()]
        return effects + self._replay(position)

    def _replay(self, position: Position) -> list[Effect]:
        """The position is at the log's top as the read saw it: go on with what arrived meanwhile."""
        entries: list[Entry] = []
        effects: list[Effect] = []
        follows = True
        for entry in self._kept:
            if entry.epoch == position.epoch and entry.offset <= position.offset:
                continue
            follows = linked(position, (entry,))
            if not follows:
                break
            entries.append(entry)
            position = _after(entry)
        self.position = position
        if entries:
            effects.append(Deliver(entries))
        if not follows:
            return [*effects, self.read()]
        self._drop_kept()
        self._asked = False
        self.live = True
        return effects

    def _keep(self, entry: Entry) -> None:
        if self._again:
            return
        self._kept.append(entry)
        self._kept_bytes += len(entry.payload)
        if len(self._kept) > MAX_KEPT_ENTRIES or self._kept_bytes > MAX_KEPT_BYTES:
            self._drop_kept()
            self._again = True

    def _drop_kept(self) -> None:
        self._kept = []
        self._kept_bytes = 0


def recover(at: Position, page: Page) -> list[Entry] | None:
    """What somebody who stands ``at`` has missed, as far as the page goes; None if that cannot be told without a hole:
    another epoch, a fork, a position ahead of the log, or entries that are no longer kept.

    ``page`` must be a read of the log after ``at.offset``.
    """
    top = page.top
    if at.epoch != top.epoch or at.offset > top.offset:
        return None
    if at.offset == top.offset:
        return [] if at.tag == top.tag else None
    return page.entries if page.entries and linked(at, page.entries) else None


def linked(at: Position, entries: Sequence[Entry]) -> bool:
    """Whether each entry follows the one before, and the first one ``at``."""
    epoch, offset, tag = at
    for entry in entries:
        if entry.offset != offset + 1 or entry.prev != tag or entry.epoch != epoch:
            return False
        offset, tag = entry.offset, entry.tag
    return True


def _after(entry: Entry) -> Position:
    return Position(entry.epoch, entry.offset, entry.tag)

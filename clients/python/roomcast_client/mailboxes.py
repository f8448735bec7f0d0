"""What happened in the rooms and was not read yet, one inbox each."""

from __future__ import annotations

from roomcast_client.events import Position, RoomEvent
from roomcast_client.inbox import Inbox


class Mailbox:
    def __init__(self, start: Position | None) -> None:
        self.inbox: Inbox[RoomEvent] = Inbox()
        self.parked = False
        """Full: nothing more comes until the machine is told that this room has caught up."""
        self.start = start
        """Where the room was entered, if that was decided before the first event."""


class Mailboxes:
    def __init__(self) -> None:
        self._all: dict[str, Mailbox] = {}
        self._unclaimed: set[str] = set()

    def has(self, name: str) -> bool:
        return name in self._all

    def open(self, name: str, start: Position | None, *, claimed: bool = True) -> Mailbox:
        """``claimed=False``: the server's application put this client into the room, and nobody here knows yet."""
        mailbox = self._all[name] = Mailbox(start)
        if not claimed:
            self._unclaimed.add(name)
        return mailbox

    def claim(self, name: str) -> Mailbox | None:
        """The mailbox of a room this client was put into, the first time it is asked for."""
        if name not in self._unclaimed:
            return None
        self._unclaimed.discard(name)
        return self._all[name]

    def close(self, name: str, mailbox: Mailbox) -> bool:
        """Nothing more comes in; what is there can be read. False if that was done already."""
        if self._all.get(name) is not mailbox:
            return False
        del self._all[name]
        self._unclaimed.discard(name)
        return True

    def put(self, name: str, event: RoomEvent, size: int) -> bool:
        """True when no more must come until this room has caught up."""
        mailbox = self._all.get(name)
        if mailbox is None:
            return False
        mailbox.inbox.put(event, size)
        mailbox.parked = mailbox.parked or mailbox.inbox.full
        return mailbox.parked

    def end(self, name: str, error: Exception) -> None:
        """Whoever reads the room gets this after what is there."""
        mailbox = self._all.get(name)
        if mailbox is not None:
            self.close(name, mailbox)
            mailbox.inbox.end(error)

    def end_all(self, error: Exception) -> None:
        for mailbox in self._all.values():
            mailbox.inbox.end(error)

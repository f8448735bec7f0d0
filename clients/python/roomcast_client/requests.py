"""What was asked and is not answered yet. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from roomcast_client.connection import Connection
from roomcast_client.errors import OutcomeUnknown, Refused, RoomcastError
from roomcast_client.events import Ack, Roster, Trouble
from roomcast_client.outbox import Outbox, Request
from roomcast_client.parsing import parse_roster
from roomcast_client.room_log import Frame, parse_message

NOT_NOW: Final = frozenset({"unavailable", "timeout", "rate_limited"})
"""Refusals that say nothing against the request itself."""


class Requests:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._outbox = Outbox()
        self._direct: dict[int, tuple[int | None, float]] = {}
        self._rosters: dict[int, Roster] = {}

    @property
    def idle(self) -> bool:
        return not self._direct and self._outbox.empty

    # Asking.

    def add(self, request: Request) -> None:
        self._outbox.add(request)

    def launch(self, now: float, live: Callable[[str], bool]) -> None:
        """Send those whose turn it is; messages only into rooms that are live."""
        if not self._connection.connected:
            return
        for number, request in self._outbox.launch(now, live, self._connection.next_id):
            self._connection.send(request.frame | {"id": number}, request.data)

    def directly(self, frame: dict[str, Any], now: float, ticket: int | None) -> None:
        """Not through the outbox: it must keep its place among the joins. Not repeated after a reconnect."""
        if self._connection.connected:
            number = self._connection.next_id()
            self._direct[number] = (ticket, now)
            self._connection.send(frame | {"id": number})
        elif ticket is not None:
            self._connection.done(ticket, None)

    # Answers.

    def answered(self, number: int, frame: Frame, error: Refused | None, now: float, luck: float) -> bool:
        """False if the answer is to nothing of this."""
        request = self._outbox.answered(number)
        if request is not None:
            roster = self._rosters.pop(number, None)
            if error is None:
                self._outbox.succeeded()
                self._connection.done(request.ticket, roster or _answer(request, frame))
            elif error.code in NOT_NOW:
                request.maybe_done = request.maybe_done or error.code == "timeout"
                self._outbox.again(request, now, luck)
            else:
                self._connection.failed(request.ticket, error)
            return True
        if number not in self._direct:
            return False
        ticket, _ = self._direct.pop(number)
        if ticket is not None:
            self._connection.done(ticket, None)
        elif error is not None:
            self._connection.tell(Trouble(None, error.code, error.message))
        return True

    def roster(self, frame: Frame) -> bool:
        """A ``presence_list``: True if it is what an unanswered ``get_presence`` asked for."""
        name = frame.get("room")
        asked = self._outbox.flying(lambda each: each.frame["op"] == "get_presence" and each.room == name)
        if asked is not None:
            self._rosters[asked] = parse_roster(frame)
        return asked is not None

    # Ends.

    def session_lost(self) -> None:
        """The server remembers retry keys per session: under another one a retry could be a second message."""
        for request in self._outbox.take(lambda each: each.keyed and each.maybe_done):
            text = "sent, but the session was lost before the ack: it may be in the log. Look into room.history()"
            self._connection.failed(request.ticket, OutcomeUnknown(text))

    def disconnected(self, member: Callable[[str], bool]) -> None:
        """What was on its way is sent again, unless its room was left meanwhile."""
        self._outbox.disconnected()
        for request in self._outbox.take(lambda each: each.room is not None and not member(each.room)):
            self._connection.failed(request.ticket, request.expired())
        self._rosters.clear()
        self._all_left()

    def overdue(self, now: float) -> None:
        for request in self._outbox.overdue(now):
            self._connection.failed(request.ticket, request.expired())

    def waiting_since(self) -> list[float]:
        """When what is unanswered was sent, the oldest of each kind."""
        since = [at for _, at in self._direct.values()]
        oldest = self._outbox.oldest_sent_at()
        return since if oldest is None else [*since, oldest]

    def abandon(self, room: str, error: RoomcastError) -> None:
        """Nothing more can be asked in this room. What was sent and not answered may be done for all that."""
        for request in self._outbox.take(lambda each: each.room == room):
            unknown = request.keyed and request.maybe_done
            self._connection.failed(request.ticket, request.expired() if unknown else error)

    def stop(self, error: RoomcastError) -> None:
        for request in self._outbox.take_all():
            self._connection.failed(request.ticket, error)
        self._all_left()

    def _all_left(self) -> None:
        """Whoever is not connected is in no room: a leave underway is done."""
        for ticket, _ in self._direct.values():
            if ticket is not None:
                self._connection.done(ticket, None)
        self._direct.clear()


def _answer(request: Request, frame: Frame) -> Any:
    op = request.frame["op"]
    if op == "message":
        return Ack(str(frame["epoch"]), int(frame["offset"]), str(frame["tag"]))
    if op == "history":
        room, epoch = str(frame["room"]), str(frame["epoch"])
        return [parse_message(room, epoch, each) for each in frame["messages"] if each["type"] == "message"]
    return None

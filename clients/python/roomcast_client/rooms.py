"""The rooms the application is in, and the way back into them after whatever happened. Pure."""

from __future__ import annotations

from roomcast_client.connection import Connection
from roomcast_client.effects import Ended, Entered
from roomcast_client.errors import Closed, Refused, Removed, RoomcastError, Unavailable
from roomcast_client.events import Joined, Message, Position, PutIn, PutOut, Status, Trouble
from roomcast_client.membership import Membership
from roomcast_client.parsing import parse_marks, parse_members, parse_room_event
from roomcast_client.policy import backoff_s
from roomcast_client.requests import NOT_NOW, Requests
from roomcast_client.room_log import Frame, Hole


class Rooms:
    def __init__(self, connection: Connection, requests: Requests) -> None:
        self._connection = connection
        self._requests = requests
        self._rooms: dict[str, Membership] = {}

    @property
    def idle(self) -> bool:
        return not any(room.unsettled for room in self._rooms.values())

    def has(self, name: str) -> bool:
        return name in self._rooms

    def is_live(self, name: str) -> bool:
        room = self._rooms.get(name)
        return room is not None and room.live

    # The application.

    def join(self, ticket: int, room: Membership, now: float, timeout_s: float) -> None:
        room.ticket, room.deadline = ticket, now + timeout_s
        self._rooms[room.name] = room
        if self._connection.connected:
            self._join(room, now)

    def leave(self, ticket: int, name: str, now: float) -> None:
        self._forget(name, Closed(f"left {name!r}"))
        self._requests.directly({"op": "leave", "room": name}, now, ticket)

    def receipt(self, name: str, status: Status, message_id: int | str) -> None:
        room = self._rooms.get(name)
        if room is not None:
            new = isinstance(message_id, str) or room.mark(status, message_id)
            if new and room.live:
                self._receipt(name, status, message_id)

    def typing(self, name: str, typing: bool, now: float) -> None:
        room = self._rooms.get(name)
        if room is not None and room.live and room.typing(typing, now):
            self._connection.send({"op": "typing", "room": name, "typing": typing})

    def park(self, name: str) -> None:
        room = self._rooms.get(name)
        if room is not None:
            room.parked = True

    def unpark(self, name: str, now: float) -> None:
        room = self._rooms.get(name)
        if room is not None and room.parked:
            room.parked = False
            if room.behind and room.live:
                self._join(room, now)

    # The connection, and time.

    def welcomed(self, now: float) -> None:
        for room in self._rooms.values():
            self._join(room, now)

    def disconnected(self) -> None:
        for room in self._rooms.values():
            room.disconnected()

    def tick(self, now: float) -> None:
        for room in list(self._rooms.values()):
            if room.ticket is not None and now >= room.deadline:
                self._forget(room.name, Unavailable(f"could not join {room.name!r} in time: try again"))
                self._requests.directly({"op": "leave", "room": room.name}, now, None)
            elif room.retry_at is not None and now >= room.retry_at and self._connection.connected:
                self._join(room, now)

    def waiting_since(self) -> list[float]:
        return [room.joined_at for room in self._rooms.values() if room.joining is not None]

    def stop(self, error: RoomcastError) -> None:
        for room in self._rooms.values():
            if room.ticket is not None:
                self._connection.failed(room.ticket, error)
        self._rooms.clear()

    # What the server says of a room.

    def told(self, kind: str, name: object, frame: Frame, now: float) -> None:
        """An event that names a room, whether this client is in it or not."""
        room = self._rooms.get(name) if isinstance(name, str) else None
        if kind in ("message", "position", "reset"):
            if room is not None and room.live:  # else left, or being joined: what counts is the reply
                self._logged(room, kind, frame, now)
        elif kind == "error":
            if room is None or room.joining is None:  # a refused join is answered, too
                told_name = name if isinstance(name, str) else None
                self._connection.tell(Trouble(told_name, frame.get("code", ""), frame["message"]))
        elif kind == "joined":
            if isinstance(name, str) and room is None:
                self._put_in(name, frame)
        elif kind == "left":
            if room is not None:
                self._put_out(room, now)
        elif room is not None and not room.parked and (event := parse_room_event(room.name, frame)) is not None:
            self._connection.tell_room(room.name, event)

    def _logged(self, room: Membership, kind: str, frame: Frame, now: float) -> None:
        if room.parked:
            room.behind = True
        elif kind == "reset":
            self._connection.tell_room(room.name, room.log.reset(frame))
        else:
            try:
                message = room.log.live(frame)
            except Hole:
                self._join(room, now)
            else:
                if message is not None:
                    self._connection.tell_room(room.name, message)

    def _put_in(self, name: str, frame: Frame) -> None:
        """By the server's application. On this connection it is live already; on later ones the client joins itself."""
        position = Position(str(frame["epoch"]), int(frame["offset"]), str(frame["tag"]))
        room = self._rooms[name] = Membership(name, presence=False, history=0, resume=position)
        room.live = True
        self._connection.do(Entered(name, position))
        self._connection.tell(PutIn(name, position))

    def _put_out(self, room: Membership, now: float) -> None:
        if room.joining is not None:
            self._join(room, now)  # asked for at about the same time: what the server says to the later join counts
        elif room.live:
            error = Removed(f"the application took this client out of {room.name!r}")
            self._forget(room.name, error)
            self._connection.tell(PutOut(room.name))
            self._connection.do(Ended(room.name, error))

    def answered(self, number: int, frame: Frame, error: Refused | None, now: float, luck: float) -> None:
        """A reply to a join, if this is one."""
        for room in self._rooms.values():
            if room.joining == number:
                if error is None:
                    self._joined(room, frame, now)
                else:
                    self._not_joined(room, error, now, luck)
                return

    def _join(self, room: Membership, now: float) -> None:
        self._connection.send(room.join(self._connection.next_id(), now))

    def _joined(self, room: Membership, frame: Frame, now: float) -> None:
        more = frame.get("more") is True
        if room.log.position is not None and (room.parked or not room.resumed):
            # Parked when it was sent, or since: being live is enough; what was missed is asked for later.
            room.joining, room.behind, room.failures = None, True, 0
            room.live = not more
            if more or not room.parked:
                self._join(room, now)
            self._enter(room)
            return
        events = room.log.reply(frame, room.resumed)
        room.joining, room.behind, room.failures = None, False, 0
        for event in events:
            self._connection.tell_room(room.name, event)
        room.replayed += sum(isinstance(event, Message) for event in events)
        if more:
            self._join(room, now)
            return
        room.live = True
        recovered = frame.get("recovered")
        joined = Joined(room.name, recovered, room.replayed, parse_marks(frame), frame.get("unread"))
        room.replayed = 0
        self._connection.tell_room(room.name, joined)
        for roster in parse_members(room.name, frame):
            self._connection.tell_room(room.name, roster)
        self._enter(room)

    def _enter(self, room: Membership) -> None:
        if not room.live:
            return
        for status, message_id in room.marks().items():
            self._receipt(room.name, status, message_id)
        if room.ticket is not None:
            self._connection.done(room.ticket, room.log.position)
            room.ticket = None

    def _not_joined(self, room: Membership, error: Refused, now: float, luck: float) -> None:
        room.joining = None
        waited_for = room.ticket is not None
        if error.code in NOT_NOW or (error.code == "internal" and not waited_for):
            room.failures += 1
            room.retry_at = now + 0.1 + backoff_s(min(room.failures, 4), luck)
            return
        self._forget(room.name, error)
        if not waited_for:
            self._connection.tell(Trouble(room.name, error.code, error.message))
            self._connection.do(Ended(room.name, error))

    def _forget(self, name: str, error: RoomcastError) -> None:
        room = self._rooms.pop(name, None)
        if room is not None and room.ticket is not None:
            self._connection.failed(room.ticket, error)
        self._requests.abandon(name, error)

    def _receipt(self, name: str, status: Status, message_id: int | str) -> None:
        self._connection.send({"op": "receipt", "room": name, "message_id": message_id, "status": status})

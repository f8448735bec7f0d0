"""The client as a state machine: what happened goes in, what to do comes out. Pure: no I/O, no clock, no chance.

Every method takes the time (``now``, seconds of any steady clock) and, where it may wait, ``luck`` in [0, 1); it
returns the effects in the order in which they must take place. ``tick`` is called a few times a second unless ``idle``.
What it promises for each room is in room_log.py: every message once, in order, no hole but after a reset. For messages
sent: the same retry key until an ack, a refusal or the deadline, in the order of the calls.
"""

from __future__ import annotations

from typing import Any, Final

from roomcast_client.effects import (
    Connect,
    Done,
    Drop,
    Effect,
    Ended,
    Failed,
    NewToken,
    Send,
    Stop,
    Tell,
    TellRoom,
)
from roomcast_client.errors import Closed, OutcomeUnknown, Refused, RoomcastError, Unavailable
from roomcast_client.events import Ack, Connected, Draining, Joined, Lost, Message, Position, Roster, Status, Trouble
from roomcast_client.membership import Membership
from roomcast_client.outbox import Outbox, Request
from roomcast_client.parsing import parse_client_event, parse_marks, parse_members, parse_room_event, parse_roster
from roomcast_client.policy import STABLE_S, Verdict, after_close, backoff_s
from roomcast_client.room_log import Frame, Hole, Violation, parse_message

REPLY_S: Final = 15.0
"""The server answers everything within seconds. No answer for so long: the connection is worth nothing."""
_NOT_NOW: Final = frozenset({"unavailable", "timeout", "rate_limited"})
"""Refusals that say nothing against the request itself."""


class Machine:
    def __init__(self) -> None:
        self.session: str | None = None
        """Sent with every connection, so that retry keys keep their meaning."""
        self.max_message = 64 * 1024
        self.connected = False
        """Welcomed, and not yet on the way out."""
        self._open = False
        self._opened_at = 0.0
        self._ever = False
        self._failures = 0
        self._stopped = False
        self._retry_after_s: float | None = None
        self._rooms: dict[str, Membership] = {}
        self._outbox = Outbox()
        self._direct: dict[int, tuple[int | None, float]] = {}
        self._rosters: dict[int, Roster] = {}
        self._last_id = 0
        self._effects: list[Effect] = []

    @property
    def idle(self) -> bool:
        """Nothing waits for time to pass."""
        if self._direct or not self._outbox.empty or self._open != self.connected:
            return False
        return not any(room.unsettled for room in self._rooms.values())

    # The connection.

    def opened(self, now: float) -> list[Effect]:
        """The handshake is done. Nothing is sent before the welcome: it tells the session."""
        self._open, self._opened_at, self._retry_after_s = True, now, None
        return self._flush()

    def disconnected(self, verdict: Verdict, code: int, reason: str, now: float, luck: float) -> list[Effect]:
        """The connection ended, or an attempt failed."""
        if self.connected and now - self._opened_at >= STABLE_S:
            self._failures = 0
        self._open = self.connected = False
        for room in self._rooms.values():
            room.disconnected()
        self._outbox.disconnected()
        for request in self._outbox.take(lambda request: request.room is not None and request.room not in self._rooms):
            self._effects.append(Failed(request.ticket, request.expired()))  # its room was left meanwhile
        self._rosters.clear()
        for ticket, _ in self._direct.values():
            if ticket is not None:
                self._effects.append(Done(ticket, None))  # a leave: whoever is not connected is in no room
        self._direct.clear()
        if verdict.fatal or self._stopped:
            return self._flush()
        attempt = max(self._failures, verdict.least_attempt)
        self._failures = attempt + 1
        after_s = self._retry_after_s if self._retry_after_s is not None else backoff_s(attempt, luck)
        self._effects += [Tell(Lost(code, reason, after_s)), Connect(after_s)]
        return self._flush()

    def closed(self, code: int, reason: str, now: float, luck: float) -> list[Effect]:
        """As ``disconnected``, by WebSocket close code."""
        return self.disconnected(after_close(code), code, reason, now, luck)

    def forgive(self) -> None:
        """What failed before says nothing about the next attempt: the back-off starts over."""
        self._failures = 0

    def stop(self, error: RoomcastError) -> list[Effect]:
        """End everything; the machine is of no further use."""
        tickets = [request.ticket for request in self._outbox.take_all()]
        tickets += [room.ticket for room in self._rooms.values() if room.ticket is not None]
        self._effects += [Failed(ticket, error) for ticket in tickets]
        self._rooms.clear()
        self._stopped = True
        self._open = self.connected = False
        self._effects.append(Stop(error))
        return self._flush()

    # The application.

    def join(
        self,
        ticket: int,
        room: str,
        now: float,
        *,
        presence: bool,
        history: int,
        resume: Position | None,
        timeout_s: float,
    ) -> list[Effect]:
        """``Done(ticket, position)`` when live; then in the room until ``leave``, over all reconnects."""
        membership = Membership(room, presence=presence, history=history, resume=resume)
        membership.ticket, membership.deadline = ticket, now + timeout_s
        self._rooms[room] = membership
        if self.connected:
            self._join(membership, now)
        return self._flush()

    def leave(self, ticket: int, room: str, now: float) -> list[Effect]:
        """``Done(ticket, None)`` when nothing more of the room will come."""
        self._forget(room, Closed(f"left {room!r}"))
        self._request_directly({"op": "leave", "room": room}, now, ticket)
        return self._flush()

    def request(
        self,
        ticket: int,
        frame: dict[str, Any],
        now: float,
        *,
        data: str | None = None,
        room: str | None = None,
        timeout_s: float,
    ) -> list[Effect]:
        """Ends in ``Done(ticket, answer)`` or ``Failed``. Repeated after reconnects: give a message a ``key``."""
        if room is not None and room not in self._rooms:
            self._effects.append(Failed(ticket, Closed(f"not in {room!r}: join it first")))
            return self._flush()
        keyed = frame["op"] == "message"
        self._outbox.add(Request(ticket, frame, data, room, now + timeout_s, keyed))
        self._launch(now)
        return self._flush()

    def receipt(self, room: str, status: Status, message_id: int | str) -> list[Effect]:
        """Integers are high-water marks: told again after a reconnect. Strings are told once or never."""
        membership = self._rooms.get(room)
        if membership is not None:
            new = isinstance(message_id, str) or membership.mark(status, message_id)
            if new and membership.live:
                self._receipt(room, status, message_id)
        return self._flush()

    def typing(self, room: str, typing: bool, now: float) -> list[Effect]:
        """At most once, and as seldom as the server needs it."""
        membership = self._rooms.get(room)
        if membership is not None and membership.live and membership.typing(typing, now):
            self._effects.append(Send({"op": "typing", "room": room, "typing": typing}))
        return self._flush()

    def auth(self, token: str, now: float) -> list[Effect]:
        """The answer to :class:`NewToken`."""
        self._request_directly({"op": "auth", "token": token}, now, None)
        return self._flush()

    def park(self, room: str) -> list[Effect]:
        """The application is slow: give it nothing more of this room."""
        membership = self._rooms.get(room)
        if membership is not None:
            membership.parked = True
        return self._flush()

    def unpark(self, room: str, now: float) -> list[Effect]:
        """It has caught up: go on from the position."""
        membership = self._rooms.get(room)
        if membership is not None and membership.parked:
            membership.parked = False
            if membership.behind and membership.live:
                self._join(membership, now)
        return self._flush()

    # Time.

    def tick(self, now: float, luck: float) -> list[Effect]:
        for request in self._outbox.overdue(now):
            self._effects.append(Failed(request.ticket, request.expired()))
        for room in list(self._rooms.values()):
            if room.ticket is not None and now >= room.deadline:
                self._forget(room.name, Unavailable(f"could not join {room.name!r} in time: try again"))
                self._request_directly({"op": "leave", "room": room.name}, now, None)
            elif room.retry_at is not None and now >= room.retry_at and self.connected:
                self._join(room, now)
        if self._open:
            since = [at for _, at in self._direct.values()]
            since += [room.joined_at for room in self._rooms.values() if room.joining is not None]
            oldest = self._outbox.oldest_sent_at()
            since += [oldest] if oldest is not None else []
            since += [self._opened_at] if not self.connected else []
            if since and now - min(since) >= REPLY_S:
                self._drop(f"no answer for {REPLY_S:g} s")
        self._launch(now)
        return self._flush()

    # What the server says.

    def received(self, frame: Any, now: float, luck: float) -> list[Effect]:
        """One frame. What is unknown is ignored: the protocol may grow. What contradicts it ends the connection."""
        if not self._open:
            return self._flush()
        try:
            op = frame["op"]
            if op == "broadcast":
                self._broadcast(frame, now)
            elif op == "reply":
                self._reply(frame, now, luck)
            elif op == "welcome":
                self._welcome(frame, now)
            elif op == "drain":
                self._retry_after_s = min(float(frame["retry_after_ms"]), 60_000) / 1000
                self._effects.append(Tell(Draining(self._retry_after_s)))
            elif op == "auth_expiring":
                self._effects.append(NewToken())
            elif (event := parse_client_event(frame)) is not None:
                self._effects.append(Tell(event))
        except Violation as error:
            self._drop(f"protocol error: {error}")
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            self._drop(f"protocol error: a frame without sense ({error!r})")
        self._launch(now)
        return self._flush()

    def _welcome(self, frame: Frame, now: float) -> None:
        if self.connected:
            return
        session, self.max_message = str(frame["session"]), int(frame["max_message"])
        if self.session is not None and session != self.session:
            # The server remembers retry keys per session: under another one a retry could be a second message.
            for request in self._outbox.take(lambda request: request.keyed and request.maybe_done):
                text = "sent, but the session was lost before the ack: it may be in the log. Look into room.history()"
                self._effects.append(Failed(request.ticket, OutcomeUnknown(text)))
        self.session = session
        self.connected = True
        self._effects.append(Tell(Connected(str(frame["node"]), frame.get("user_id"), self._ever)))
        self._ever = True
        for room in self._rooms.values():
            self._join(room, now)

    def _broadcast(self, frame: Frame, now: float) -> None:
        kind, name = frame["type"], frame.get("room")
        if kind in ("message", "position", "reset"):
            room = self._rooms.get(name) if isinstance(name, str) else None
            if room is None or not room.live:
                return  # left, or being joined: what counts is the reply
            if room.parked:
                room.behind = True
            elif kind == "reset":
                self._effects.append(TellRoom(room.name, room.log.reset(frame)))
            else:
                try:
                    message = room.log.live(frame)
                except Hole:
                    self._join(room, now)
                else:
                    if message is not None:
                        self._effects.append(TellRoom(room.name, message))
        elif kind == "presence_list" and (asked := self._asked(name)) is not None:
            self._rosters[asked] = parse_roster(frame)
        elif kind == "error":
            room = self._rooms.get(name) if isinstance(name, str) else None
            if room is None or room.joining is None:  # a refused join is answered, too
                self._effects.append(Tell(Trouble(name, frame.get("code", ""), frame["message"])))
        elif isinstance(name, str):
            room = self._rooms.get(name)
            event = parse_room_event(name, frame)
            if room is not None and event is not None and not room.parked:
                self._effects.append(TellRoom(name, event))
        elif (client_event := parse_client_event(frame)) is not None:
            self._effects.append(Tell(client_event))

    def _reply(self, frame: Frame, now: float, luck: float) -> None:
        number = frame["id"]
        ok = frame["ok"] is True
        error = None if ok else Refused(str(frame.get("code", "internal")), str(frame.get("message", "")))
        request = self._outbox.answered(number)
        if request is not None:
            if error is None:
                self._outbox.succeeded()
                self._effects.append(Done(request.ticket, self._answer(number, request, frame)))
            elif error.code in _NOT_NOW:
                request.maybe_done = request.maybe_done or error.code == "timeout"
                self._outbox.again(request, now, luck)
            else:
                self._effects.append(Failed(request.ticket, error))
            self._rosters.pop(number, None)
            return
        if number in self._direct:
            ticket, _ = self._direct.pop(number)
            if ticket is not None:
                self._effects.append(Done(ticket, None))
            elif error is not None:
                self._effects.append(Tell(Trouble(None, error.code, error.message)))
            return
        for room in self._rooms.values():
            if room.joining == number:
                if error is None:
                    self._joined(room, frame, now)
                else:
                    self._not_joined(room, error, now, luck)
                return

    def _answer(self, number: int, request: Request, frame: Frame) -> Any:
        op = request.frame["op"]
        if op == "message":
            return Ack(str(frame["epoch"]), int(frame["offset"]), str(frame["tag"]))
        if op == "history":
            room, epoch = str(frame["room"]), str(frame["epoch"])
            return [parse_message(room, epoch, each) for each in frame["messages"] if each["type"] == "message"]
        if op == "get_presence":
            return self._rosters.get(number)
        return None

    # Rooms.

    def _join(self, room: Membership, now: float) -> None:
        self._effects.append(Send(room.join(self._next_id(), now)))

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
        self._effects += [TellRoom(room.name, event) for event in events]
        room.replayed += sum(isinstance(event, Message) for event in events)
        if more:
            self._join(room, now)
            return
        room.live = True
        recovered = frame.get("recovered")
        joined = Joined(room.name, recovered, room.replayed, parse_marks(frame), frame.get("unread"))
        room.replayed = 0
        self._effects.append(TellRoom(room.name, joined))
        self._effects += [TellRoom(room.name, event) for event in parse_members(room.name, frame)]
        self._enter(room)

    def _enter(self, room: Membership) -> None:
        if not room.live:
            return
        for status, message_id in room.marks().items():
            self._receipt(room.name, status, message_id)
        if room.ticket is not None:
            self._effects.append(Done(room.ticket, room.log.position))
            room.ticket = None

    def _not_joined(self, room: Membership, error: Refused, now: float, luck: float) -> None:
        room.joining = None
        if error.code in _NOT_NOW or (error.code == "internal" and room.ticket is None):
            room.failures += 1
            room.retry_at = now + 0.1 + backoff_s(min(room.failures, 4), luck)
        elif room.ticket is not None:
            self._forget(room.name, error)
        else:
            self._forget(room.name, error)
            self._effects += [Tell(Trouble(room.name, error.code, error.message)), Ended(room.name, error)]

    def _forget(self, name: str, error: RoomcastError) -> None:
        room = self._rooms.pop(name, None)
        if room is not None and room.ticket is not None:
            self._effects.append(Failed(room.ticket, error))
        for request in self._outbox.take(lambda request: request.room == name):
            self._effects.append(Failed(request.ticket, error))

    # Frames.

    def _receipt(self, room: str, status: Status, message_id: int | str) -> None:
        self._effects.append(Send({"op": "receipt", "room": room, "message_id": message_id, "status": status}))

    def _request_directly(self, frame: dict[str, Any], now: float, ticket: int | None) -> None:
        """Not through the outbox: it must keep its place among the joins. Not repeated after a reconnect."""
        if self.connected:
            number = self._next_id()
            self._direct[number] = (ticket, now)
            self._effects.append(Send(frame | {"id": number}))
        elif ticket is not None:
            self._effects.append(Done(ticket, None))

    def _launch(self, now: float) -> None:
        if not self.connected:
            return
        for number, request in self._outbox.launch(now, self._is_live, self._next_id):
            self._effects.append(Send(request.frame | {"id": number}, request.data))

    def _is_live(self, name: str) -> bool:
        room = self._rooms.get(name)
        return room is not None and room.live

    def _asked(self, room: object) -> int | None:
        """The id of an unanswered ``get_presence`` for this room (``None``: for everybody)."""
        return self._outbox.flying(lambda request: request.frame["op"] == "get_presence" and request.room == room)

    def _next_id(self) -> int:
        self._last_id += 1
        return self._last_id

    def _drop(self, reason: str) -> None:
        if self._open:
            self._open = self.connected = False
            self._effects.append(Drop(reason))

    def _flush(self) -> list[Effect]:
        effects, self._effects = self._effects, []
        return effects

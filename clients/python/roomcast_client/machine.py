"""The client as a state machine: what happened goes in, what to do comes out. Pure: no I/O, no clock, no chance.

Every method takes the time (``now``, seconds of any steady clock) and, where it may wait, ``luck`` in [0, 1); it
returns the effects in the order in which they must take place. ``tick`` is called a few times a second unless ``idle``.
What it promises for each room is in room_log.py: every message once, in order, no hole but after a reset. For messages
sent: the same retry key until an ack, a refusal or the deadline, in the order of the calls.
"""

from __future__ import annotations

from typing import Any, Final

from roomcast_client.connection import Connection
from roomcast_client.effects import Effect, NewToken, Stop
from roomcast_client.errors import Closed, Refused, RoomcastError
from roomcast_client.events import Position, Status
from roomcast_client.membership import Membership
from roomcast_client.outbox import Request
from roomcast_client.parsing import parse_client_event
from roomcast_client.policy import Verdict, after_close
from roomcast_client.requests import Requests
from roomcast_client.room_log import Frame, Violation
from roomcast_client.rooms import Rooms

REPLY_S: Final = 15.0
"""The server answers everything within seconds. No answer for so long: the connection is worth nothing."""


class Machine:
    def __init__(self) -> None:
        self._connection = Connection()
        self._requests = Requests(self._connection)
        self._rooms = Rooms(self._connection, self._requests)

    @property
    def session(self) -> str | None:
        """Sent with every connection, so that retry keys keep their meaning."""
        return self._connection.session

    @property
    def max_message(self) -> int:
        return self._connection.max_message

    @property
    def connected(self) -> bool:
        """Welcomed, and not yet on the way out."""
        return self._connection.connected

    @property
    def idle(self) -> bool:
        """Nothing waits for time to pass."""
        settled = self._connection.open == self._connection.connected
        return settled and self._requests.idle and self._rooms.idle

    # The connection.

    def opened(self, now: float) -> list[Effect]:
        """The handshake is done. Nothing is sent before the welcome: it tells the session."""
        self._connection.opened(now)
        return self._connection.flush()

    def disconnected(self, verdict: Verdict, code: int, reason: str, now: float, luck: float) -> list[Effect]:
        """The connection ended, or an attempt failed."""
        self._connection.ended(now)
        self._rooms.disconnected()
        self._requests.disconnected(self._rooms.has)
        self._connection.again(verdict, code, reason, luck)
        return self._connection.flush()

    def closed(self, code: int, reason: str, now: float, luck: float) -> list[Effect]:
        """As ``disconnected``, by WebSocket close code."""
        return self.disconnected(after_close(code), code, reason, now, luck)

    def denied(self) -> bool:
        """A fresh token was refused (4001): True if the next one is worth a try."""
        return self._connection.denied()

    def forgive(self) -> None:
        """What failed before says nothing about the next attempt: the back-off starts over."""
        self._connection.forgive()

    def stop(self, error: RoomcastError) -> list[Effect]:
        """End everything; the machine is of no further use."""
        self._requests.stop(error)
        self._rooms.stop(error)
        self._connection.stop()
        self._connection.do(Stop(error))
        return self._connection.flush()

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
        self._rooms.join(ticket, membership, now, timeout_s)
        return self._connection.flush()

    def leave(self, ticket: int, room: str, now: float) -> list[Effect]:
        """``Done(ticket, None)`` when nothing more of the room will come."""
        self._rooms.leave(ticket, room, now)
        return self._connection.flush()

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
        if room is not None and not self._rooms.has(room):
            self._connection.failed(ticket, Closed(f"not in {room!r}: join it first"))
            return self._connection.flush()
        keyed = frame["op"] == "message"
        self._requests.add(Request(ticket, frame, data, room, now + timeout_s, keyed))
        return self._launch(now)

    def receipt(self, room: str, status: Status, message_id: int | str) -> list[Effect]:
        """Integers are high-water marks: told again after a reconnect. Strings are told once or never."""
        self._rooms.receipt(room, status, message_id)
        return self._connection.flush()

    def typing(self, room: str, typing: bool, now: float) -> list[Effect]:
        """At most once, and as seldom as the server needs it."""
        self._rooms.typing(room, typing, now)
        return self._connection.flush()

    def auth(self, token: str, now: float) -> list[Effect]:
        """The answer to :class:`NewToken`."""
        self._requests.directly({"op": "auth", "token": token}, now, None)
        return self._connection.flush()

    def park(self, room: str) -> list[Effect]:
        """The application is slow: give it nothing more of this room."""
        self._rooms.park(room)
        return self._connection.flush()

    def unpark(self, room: str, now: float) -> list[Effect]:
        """It has caught up: go on from the position."""
        self._rooms.unpark(room, now)
        return self._connection.flush()

    # Time.

    def tick(self, now: float, luck: float) -> list[Effect]:
        self._requests.overdue(now)
        self._rooms.tick(now)
        if self._connection.open:
            since = [*self._requests.waiting_since(), *self._rooms.waiting_since()]
            since += [self._connection.opened_at] if not self._connection.connected else []
            if since and now - min(since) >= REPLY_S:
                self._connection.drop(f"no answer for {REPLY_S:g} s")
        return self._launch(now)

    # What the server says.

    def received(self, frame: Any, now: float, luck: float) -> list[Effect]:
        """One frame. What is unknown is ignored: the protocol may grow. What contradicts it ends the connection."""
        if not self._connection.open:
            return self._connection.flush()
        try:
            self._handle(frame, now, luck)
        except Violation as error:
            self._connection.drop(f"protocol error: {error}")
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            self._connection.drop(f"protocol error: a frame without sense ({error!r})")
        return self._launch(now)

    def _handle(self, frame: Frame, now: float, luck: float) -> None:
        op = frame["op"]
        if op == "broadcast":
            self._broadcast(frame, now)
        elif op == "reply":
            error = None
            if frame["ok"] is not True:
                error = Refused(str(frame.get("code", "internal")), str(frame.get("message", "")))
            if not self._requests.answered(frame["id"], frame, error, now, luck):
                self._rooms.answered(frame["id"], frame, error, now, luck)
        elif op == "welcome":
            if not self._connection.connected:
                if self._connection.welcomed(frame):
                    self._requests.session_lost()
                self._rooms.welcomed(now)
        elif op == "drain":
            self._connection.draining(frame)
        elif op == "backoff":
            self._connection.back_off(frame)
        elif op == "auth_expiring":
            self._connection.do(NewToken())
        elif (event := parse_client_event(frame)) is not None:
            self._connection.tell(event)

    def _broadcast(self, frame: Frame, now: float) -> None:
        kind, name = frame["type"], frame.get("room")
        if kind == "presence_list" and self._requests.roster(frame):
            return
        if kind == "error" or name is not None:
            self._rooms.told(kind, name, frame, now)
        elif (event := parse_client_event(frame)) is not None:
            self._connection.tell(event)

    def _launch(self, now: float) -> list[Effect]:
        self._requests.launch(now, self._rooms.is_live)
        return self._connection.flush()

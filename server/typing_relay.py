"""Typing between clients and nodes: drives the tables of server/typists.py with a clock, the broker and the members.

Ends by itself 6 s after it was last said, on leave, on disconnect, and on the user's message.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from broker.base import Broker
from server import events
from server.connection import Connection
from server.frames import Ephemeral, Topic
from server.outbox import Outbox
from server.payload import Origin, TypingSignal, encode_signal
from server.registry import Registry
from server.typists import Keyboards, Typist, Typists

LOOK_EVERY_S = 0.1
"""How often what was held back is looked at, while anybody types here."""

Send = Callable[[str, Outbox], None]


class TypingRelay:
    def __init__(self, broker: Broker, members: Registry[str, Connection], send: Send) -> None:
        """``send(room, outbox)`` gives an outbox to the members of a room at once."""
        self._broker = broker
        self._members = members
        self._send = send
        self._keyboards = Keyboards()
        self._typists = Typists()
        self._look: asyncio.TimerHandle | None = None
        self._end: asyncio.TimerHandle | None = None

    # From connections of this node.

    def said(self, connection: Connection, room: str, user: str, typing: bool) -> None:
        """A member said whether they type. Published at most once a second per user and room."""
        origin = Origin(self._broker.node_id, connection.id)
        typist = Typist(room, user)
        if self._keyboards.press(typist, typing, origin, self._now_s()):
            self._publish(typist, typing, origin)
        if len(self._keyboards) and self._look is None:
            self._look = asyncio.get_running_loop().call_later(LOOK_EVERY_S, self._look_again)

    def gone(self, connection: Connection, room: str) -> None:
        """The connection has left the room. If it was its user's last one here, they type no more."""
        user = connection.user
        if user is None or any(member.user == user for member in self._members.members(room)):
            return
        typist = Typist(room, user)
        if self._keyboards.lifted(typist):
            self._publish(typist, False, Origin(self._broker.node_id, connection.id))

    # From the broker.

    def heard(self, room: str, signal: TypingSignal, outbox: Outbox) -> None:
        typist = Typist(room, signal.user)
        if signal.typing:
            self._typists.started(typist, signal.origin, self._now_s())
            self._arm()
        elif self._typists.stopped(typist) is None:
            return
        self._add(typist, signal.typing, signal.origin, outbox)

    def message(self, room: str, author: str, outbox: Outbox) -> None:
        """A message of the room: its author types no more."""
        if not self._keyboards and not self._typists:
            return
        typist = Typist(room, author)
        self._keyboards.lifted(typist)
        origin = self._typists.stopped(typist)
        if origin is not None:
            self._add(typist, False, origin, outbox)

    def users(self, room: str) -> tuple[str, ...]:
        """Who types in the room, as far as this node knows."""
        return self._typists.users(room)

    def forget(self, room: str) -> None:
        """The room was given up."""
        self._typists.forget(room)

    # Time.

    def _look_again(self) -> None:
        self._look = None
        for typist, typing, origin in self._keyboards.due(self._now_s()):
            self._publish(typist, typing, origin)
        if len(self._keyboards):
            self._look = asyncio.get_running_loop().call_later(LOOK_EVERY_S, self._look_again)

    def _arm(self) -> None:
        deadline_s = self._typists.next_deadline_s()
        if self._end is None and deadline_s is not None:
            self._end = asyncio.get_running_loop().call_at(deadline_s, self._end_due)

    def _end_due(self) -> None:
        self._end = None
        for typist, origin in self._typists.due(self._now_s()):
            outbox = Outbox()
            self._add(typist, False, origin, outbox)
            self._send(typist.room, outbox)
        self._arm()

    def _now_s(self) -> float:
        return asyncio.get_running_loop().time()

    def _publish(self, typist: Typist, typing: bool, origin: Origin) -> None:
        self._broker.publish(f"room:{typist.room}", encode_signal(TypingSignal(typist.user, typing, origin)))

    def _add(self, typist: Typist, typing: bool, origin: Origin, outbox: Outbox) -> None:
        but: tuple[Connection, ...] = ()
        if origin.node == self._broker.node_id:
            but = tuple(c for c in self._members.members(typist.room) if c.id == origin.connection)
        event = events.typing(typist.room, typist.user, typing)
        outbox.add(Ephemeral(event, Topic("typing", typist.room, typist.user)), but)

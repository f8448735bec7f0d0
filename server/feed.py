"""Keeps a node's rooms in step with their logs, and turns what arrives into what members get.

What arrives is judged by the pure state machine in server/sync.py; this file does what it asks for: deliver, read the
log, tell of a reset.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence

import orjson

from broker.base import Broker, Entry, History, Item, Position, Signal, Unavailable
from server import events
from server.connection import Connection
from server.frames import Ephemeral, Prepared, Topic
from server.metrics import Counts
from server.outbox import Outbox
from server.payload import ReceiptSignal, TypingSignal, author_of, decode_message, decode_signal
from server.reads import PAGE_ENTRIES, Reads
from server.receipts import Receipts
from server.registry import Registry
from server.sync import Deliver, Effect, Read, RoomLog
from server.tasks import Tasks
from server.typing_relay import TypingRelay

logger = logging.getLogger("server.feed")


class Room:
    __slots__ = ("head", "history", "log", "name", "synced", "syncing")

    def __init__(self, name: str, history: History) -> None:
        self.name = name
        self.history = history
        self.head = events.message_head(name)
        self.log = RoomLog()
        self.syncing = False
        """A task is reading the log."""
        self.synced: asyncio.Future[None] | None = None
        """What waits for the room to be LIVE shares it."""

    @property
    def top(self) -> Position:
        """Where the node stands in the log. Known from the first read on."""
        position = self.log.position
        assert position is not None, "await synced() first"
        return position

    def fail(self, why: str) -> None:
        """What waits for the room to be LIVE waits in vain."""
        waiting, self.synced = self.synced, None
        if waiting is not None and not waiting.done():
            waiting.set_exception(Unavailable(why))
            waiting.exception()  # looked at: whoever waited may be gone


class Feed:
    def __init__(
        self,
        broker: Broker,
        tasks: Tasks,
        counts: Counts,
        members: Registry[str, Connection],
        sessions: Registry[str, Connection],
        receipts: Receipts,
        send: Callable[[str, Outbox], None],
    ) -> None:
        """``send(room, outbox)`` gives an outbox to the members of a room at once."""
        self.rooms: dict[str, Room] = {}
        self.typing = TypingRelay(broker, members, send)
        self.reads = Reads(broker, tasks)
        self._broker = broker
        self._tasks = tasks
        self._counts = counts
        self._members = members
        self._sessions = sessions
        self._receipts = receipts
        self._send = send

    def open(self, name: str, history: History) -> Room:
        """The room of that name, whose channel is subscribed. Await :meth:`synced` before its position counts."""
        room = self.rooms.get(name)
        if room is None:
            room = self.rooms[name] = Room(name, history)
        return room

    def has_reached(self, name: str, offset: int) -> bool:
        """Whether a message of that offset has arrived here in the room's present epoch."""
        room = self.rooms.get(name)
        return room is not None and room.log.position is not None and 1 <= offset <= room.top.offset

    def forget(self, name: str) -> None:
        """Its channel is being given up: what is known of its log is worth nothing from now on."""
        room = self.rooms.pop(name, None)
        if room is not None:
            self.typing.forget(name)
            self._receipts.forget(name)
            room.fail("the room was given up meanwhile: join again")

    # What arrives.

    def outbox(self, name: str, items: Sequence[Item]) -> Outbox:
        """Turn what one tick brought for a room into what its members get."""
        outbox = Outbox()
        room = self.rooms.get(name)
        if room is None:
            return outbox  # a straggler after the room was given up
        for item in items:
            if isinstance(item, Entry):
                verdict = room.log.frame(item)
                if verdict is True:
                    self._add(room, item, outbox)
                elif verdict is not False:
                    self._start_sync(room, verdict)
            elif isinstance(item, Signal):
                self._add_signal(room, item, outbox)
        self._counts.messages_out += len(outbox)
        return outbox

    def _add(self, room: Room, entry: Entry, outbox: Outbox) -> None:
        try:
            excluded, tail = decode_message(entry.payload)
        except ValueError:
            self._counts.foreign += 1
            return
        author = author_of(tail)
        if author is not None:
            self.typing.message(room.name, author, outbox)
            self._receipts.heard(room.name, author, "read", entry.offset)
        part = Prepared(events.message_frame(room.head, entry.offset, entry.tag, tail))
        if excluded:
            mine = [
                connection
                for connection in self._sessions.members(excluded.decode())
                if connection.user == author and self._members.has(room.name, connection)
            ]
            outbox.add(part, mine, Prepared(events.position(room.name, entry.offset, entry.tag)))
        else:
            outbox.add(part)

    def _add_signal(self, room: Room, item: Signal, outbox: Outbox) -> None:
        try:
            signal = decode_signal(item.payload)
        except ValueError:
            self._counts.foreign += 1
            return
        if isinstance(signal, TypingSignal):
            self.typing.heard(room.name, signal, outbox)
        elif isinstance(signal, ReceiptSignal):
            is_mark = isinstance(signal.message_id, int) and self.has_reached(room.name, signal.message_id)
            if is_mark:
                self._receipts.heard(room.name, signal.user, signal.status, int(signal.message_id))
            sender = signal.origin
            mine = sender.node == self._broker.node_id
            but = [c for c in self._members.members(room.name) if c.id == sender.connection] if mine else ()
            outbox.add(_receipt(room.name, signal, is_mark), but)

    def as_sent(self, room: Room, entry: Entry, connection: Connection) -> orjson.Fragment:
        """One message as this connection gets it: whole, or only its position if its session, as the same user, asked
        not to get it back."""
        excluded, tail = decode_message(entry.payload)
        if excluded and excluded.decode() == connection.session and author_of(tail) == connection.user:
            return orjson.Fragment(events.position(room.name, entry.offset, entry.tag))
        return orjson.Fragment(events.message_frame(room.head, entry.offset, entry.tag, tail))

    # Staying in step with the log.

    def verify(self, names: Sequence[str]) -> None:
        """These rooms may have missed something: see where their logs stand, and read those that moved."""
        suspects = [self.rooms[name] for name in names if name in self.rooms]
        for room in suspects:
            room.log.suspect()
            self._receipts.forget(room.name)
        idle = [room for room in suspects if not room.syncing]
        for room in idle:
            room.syncing = True
        if idle:
            self._tasks.spawn(self._verify(idle), "verify rooms")

    async def _verify(self, rooms: list[Room]) -> None:
        try:
            tops = await self._broker.tops([room.name for room in rooms])
        except Unavailable:
            self._give_up(rooms)
            return
        for room, top in zip(rooms, tops, strict=True):
            room.syncing = False
            self._do(room, room.log.verify(top))

    def retry(self) -> None:
        """The broker is back: go on with what could not be read."""
        self.verify([room.name for room in self.rooms.values() if not room.log.live])

    def _start_sync(self, room: Room, read: Read) -> None:
        if not room.syncing:
            room.syncing = True
            self._tasks.spawn(self._sync(room, read), "read a room's log")

    async def _sync(self, room: Room, read: Read) -> None:
        """Read until the room is LIVE. At most one runs per room, whoever waits for it."""
        pending: Read | None = read
        while pending is not None:
            try:
                page = await self._broker.read(room.name, pending.since, PAGE_ENTRIES)
            except Unavailable:
                self._give_up([room])
                return
            pending = self._carry_out(room, room.log.page(page))
        room.syncing = False
        self._is_live(room)

    def _do(self, room: Room, effects: list[Effect]) -> None:
        pending = self._carry_out(room, effects)
        if pending is not None:
            self._start_sync(room, pending)
        else:
            self._is_live(room)

    def _carry_out(self, room: Room, effects: Iterable[Effect]) -> Read | None:
        """Deliver and tell of resets; give back what is to be read next."""
        outbox = Outbox()
        pending = None
        for effect in effects:
            if isinstance(effect, Deliver):
                for entry in effect.entries:
                    self._add(room, entry, outbox)
            elif isinstance(effect, Read):
                pending = effect
            else:
                logger.warning("the log of a room was lost or forked: its members are told to start again")
                self._receipts.forget(room.name)  # marks of another epoch count as nothing
                outbox.add(Prepared(events.reset(room.name, *effect.position)))
        self._send(room.name, outbox)
        return pending

    async def synced(self, room: Room) -> None:
        """Return when the room is LIVE. Raises :class:`Unavailable` when the log cannot be read."""
        if room.log.live:
            return
        if room.synced is None:
            room.synced = asyncio.get_running_loop().create_future()
        waiting = room.synced
        if not room.syncing:
            self._start_sync(room, room.log.read())
        await asyncio.shield(waiting)

    def _is_live(self, room: Room) -> None:
        waiting, room.synced = room.synced, None
        if waiting is not None and not waiting.done():
            waiting.set_result(None)

    def _give_up(self, rooms: Iterable[Room]) -> None:
        """The log cannot be read now; :meth:`retry` goes on."""
        for room in rooms:
            room.syncing = False
            room.fail("the room's log cannot be read now: try again after `restored`")


def _receipt(room: str, signal: ReceiptSignal, is_mark: bool) -> Ephemeral:
    """Marks only rise, so a later one says all; what is relayed only says each its own."""
    about = f"{signal.status} {signal.user}" if is_mark else f"{signal.status} {signal.user} {signal.message_id}"
    event = events.receipt(room, signal.message_id, signal.user, signal.status)
    return Ephemeral(event, Topic("receipt", room, about))

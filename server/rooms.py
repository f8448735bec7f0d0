"""The rooms of a node: who is in them, where each stands in its log, and how a client gets in without a gap.

A room is known from its first join until its channel is given up, a linger after the last leave. What arrives is judged
by the pure state machine in server/sync.py; this file does what it asks for: deliver, read the log, tell of a reset.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, NamedTuple

import orjson

from broker.base import MAX_OFFSET, Broker, Entry, History, Item, Position, Signal, Unavailable
from server import events, protocol
from server.connection import Connection
from server.frames import Prepared
from server.interest import Interest
from server.metrics import Metrics
from server.outbox import Outbox
from server.payload import ReceiptSignal, TypingSignal, decode_message, decode_signal
from server.refusal import Refusal
from server.registry import Registry
from server.settings import Settings
from server.sync import Deliver, Effect, Read, RoomLog, recover
from server.tasks import Tasks

logger = logging.getLogger("server.rooms")

PAGE_ENTRIES = 100
"""Entries of one read: a page is one reply of Redis, and while it is made Redis serves nobody else."""
REPLY_ENTRIES, REPLY_BYTES = 500, 128 * 1024
"""Of one join or history reply; the client asks again for more."""


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


class Answer(NamedTuple):
    """What a join found: where the client stands after ``entries``."""

    position: Position
    entries: list[Entry]
    recovered: bool | None
    more: bool


class Rooms:
    def __init__(
        self,
        broker: Broker,
        interest: Interest,
        tasks: Tasks,
        settings: Settings,
        metrics: Metrics,
        sessions: Registry[str, Connection],
        send: Callable[[Outbox, AbstractSet[Connection]], None],
    ) -> None:
        """``send`` gives an outbox to members at once (the hub's)."""
        self._broker = broker
        self._interest = interest
        self._tasks = tasks
        self._settings = settings
        self._counts = metrics.counts
        self._send = send
        self._sessions = sessions
        self._registry: Registry[str, Connection] = Registry()
        self._rooms: dict[str, Room] = {}

    # Who is where.

    def has(self, name: str, connection: Connection) -> bool:
        return self._registry.has(name, connection)

    def members(self, name: str) -> AbstractSet[Connection]:
        return self._registry.members(name)

    def history(self, name: str) -> History:
        room = self._rooms.get(name)
        return room.history if room is not None else self._settings.history_of(name)

    def leave(self, connection: Connection, name: str) -> None:
        """Idempotent. Nothing of the room is delivered to the connection afterwards."""
        if self._registry.has(name, connection):
            self._registry.remove(name, connection)
            self._left(name)

    def drop(self, connection: Connection) -> None:
        """The connection is gone: it leaves all its rooms."""
        names = self._registry.groups(connection)
        self._registry.discard(connection)
        for name in names:
            self._left(name)

    def _left(self, name: str) -> None:
        self._counts.rooms = len(self._registry)
        self._interest.release(f"room:{name}")

    def forget(self, name: str) -> None:
        """Its channel is being given up: what is known of its log is worth nothing from now on."""
        room = self._rooms.pop(name, None)
        if room is not None:
            _fail(room, "the room was given up meanwhile: join again")

    # Joining.

    def join(self, connection: Connection, request: protocol.Join) -> Coroutine[Any, Any, None] | None:
        """Let the connection in. Raises :class:`Refusal`; a coroutine if the log must be read first."""
        name = request.room
        member = self._registry.has(name, connection)
        if not member and self._registry.count(connection) >= self._settings.max_rooms:
            raise Refusal("too_many_rooms", f"at most {self._settings.max_rooms} rooms: leave one first")
        room = self._rooms.get(name)
        if member:
            self._registry.remove(name, connection)  # joining again positions anew: nothing live until the reply
            subscribed = None
        else:
            subscribed = self._interest.acquire(f"room:{name}")
        if room is None:
            room = self._rooms[name] = Room(name, self._settings.history_of(name))
        if subscribed is None and room.log.live and request.resume is None and not request.history:
            position = room.log.position
            assert position is not None
            self._enter(connection, room, request, Answer(position, [], None, False))
            return None
        return self._join_after_reading(connection, request, room, subscribed)

    async def _join_after_reading(
        self, connection: Connection, request: protocol.Join, room: Room, subscribed: asyncio.Future[None] | None
    ) -> None:
        entered = False
        try:
            if subscribed is not None:
                await asyncio.shield(subscribed)
                room = self._rooms.setdefault(room.name, room)
            await self._synced(room)
            answer = await self._position(room, request)
            if not connection.closed and self._rooms.get(room.name) is room:
                entered = self._enter(connection, room, request, answer)
        finally:
            if not entered:
                self._left(room.name)

    async def _position(self, room: Room, request: protocol.Join) -> Answer:
        """Where the client gets in, and what it must be given before that. At its end, without an ``await`` in between,
        the caller writes the reply and puts the client among the live members."""
        resume = request.resume
        if resume is None:
            entries = await self._last(room, request.history) if request.history else []
            return Answer(_top(room), entries, None, False)
        if not 0 <= resume.offset <= MAX_OFFSET:
            return await self._not_recovered(room, request)
        if resume.offset > _top(room).offset:
            # Ahead of this node, not necessarily of the log: ask the log before judging.
            room.log.suspect()
            await self._synced(room)
        position = Position(resume.epoch.encode(), resume.offset, resume.tag.encode())
        entries, size, at = [], 0, position
        while True:
            page = await self._broker.read(room.name, at.offset, PAGE_ENTRIES)
            found = recover(at, page)
            if found is None:
                return await self._not_recovered(room, request)
            for entry in found:
                if entries and (len(entries) == REPLY_ENTRIES or size + len(entry.payload) > REPLY_BYTES):
                    return Answer(at, entries, True, True)
                entries.append(entry)
                size += len(entry.payload)
                at = Position(entry.epoch, entry.offset, entry.tag)
            top = _top(room)
            if not room.log.live or top.epoch != at.epoch:
                await self._synced(room)
                top = _top(room)
            if at.offset >= top.offset:
                # The read may have seen further than the node: what is beyond will come live.
                kept = [entry for entry in entries if entry.offset <= top.offset]
                return Answer(top, kept, True, False)

    async def _not_recovered(self, room: Room, request: protocol.Join) -> Answer:
        entries = await self._last(room, request.history) if request.history else []
        return Answer(_top(room), entries, False, False)

    async def _last(self, room: Room, n: int) -> list[Entry]:
        """The last ``n`` entries before the room's position, as far as they are kept. The position may move meanwhile:
        what came live in between is read, too."""
        entries: list[Entry] = []
        since = max(0, _top(room).offset - min(n, REPLY_ENTRIES))
        while True:
            page = await self._broker.read(room.name, since, PAGE_ENTRIES)
            entries += page.entries
            if not room.log.live:
                await self._synced(room)
            top = _top(room)
            if not page.entries or entries[-1].offset >= top.offset:
                kept = [entry for entry in entries if entry.epoch == top.epoch and entry.offset <= top.offset]
                return _newest(kept, n)
            since = entries[-1].offset

    def _enter(self, connection: Connection, room: Room, request: protocol.Join, answer: Answer) -> bool:
        """Write the reply and, unless there is more to fetch, put the connection among the live members: in one
        synchronous step, so that nothing falls between. True if it is a member now."""
        if request.id is not None:
            fields: dict[str, object] = {
                "room": room.name,
                "epoch": answer.position.epoch.decode(),
                "offset": answer.position.offset,
                "tag": answer.position.tag.decode(),
                "recovered": answer.recovered,
                "messages": [self._as_sent(room, entry, connection.session) for entry in answer.entries],
            }
            if answer.more:
                fields["more"] = True
            connection.send_event(events.reply_ok(request.id, fields))
        if answer.more:
            return False
        self._registry.add(room.name, connection)
        self._counts.rooms = len(self._registry)
        self._counts.joins += 1
        return True

    # History.

    async def page(self, connection: Connection, request: protocol.HistoryRequest) -> None:
        """Answer ``history``: the ``limit`` messages before an offset (or the newest), oldest first."""
        room = self._rooms[request.room]
        await self._synced(room)
        before = min(request.before or MAX_OFFSET, _top(room).offset + 1)
        entries: list[Entry] = []
        since = max(0, before - 1 - request.limit)
        while since < before - 1:
            page = await self._broker.read(room.name, since, min(PAGE_ENTRIES, before - 1 - since))
            entries += [entry for entry in page.entries if entry.offset < before]
            if not page.entries or (entries and entries[-1].offset >= before - 1):
                break
            since = page.entries[-1].offset
        kept = _newest(entries, request.limit)
        if request.id is not None:
            messages = [self._as_sent(room, entry, connection.session) for entry in kept]
            fields: dict[str, object] = {"room": room.name, "epoch": _top(room).epoch.decode(), "messages": messages}
            connection.send_event(events.reply_ok(request.id, fields))

    # What arrives.

    def outbox(self, name: str, items: Sequence[Item]) -> Outbox:
        """Turn what one tick brought for a room into what its members get."""
        outbox = Outbox()
        room = self._rooms.get(name)
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
        part = Prepared(events.message_frame(room.head, entry.offset, entry.tag, tail))
        if excluded:
            mine = [c for c in self._sessions.members(excluded.decode()) if self._registry.has(room.name, c)]
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
            payload = events.typing(room.name, signal.user, signal.typing)
        elif isinstance(signal, ReceiptSignal):
            payload = events.receipt(room.name, signal.message_id, signal.user, signal.status)
        else:
            return
        sender = signal.origin
        mine = sender.node == self._broker.node_id
        but = [c for c in self._registry.members(room.name) if c.id == sender.connection] if mine else ()
        outbox.add(Prepared(payload), but)

    def _as_sent(self, room: Room, entry: Entry, session: str) -> orjson.Fragment:
        """One message as this session gets it: whole, or only its position if the session asked not to get it back."""
        excluded, tail = decode_message(entry.payload)
        if excluded and excluded.decode() == session:
            return orjson.Fragment(events.position(room.name, entry.offset, entry.tag))
        return orjson.Fragment(events.message_frame(room.head, entry.offset, entry.tag, tail))

    # Staying in step with the log.

    def verify(self, names: Sequence[str]) -> None:
        """These rooms may have missed something: see where their logs stand, and read those that moved."""
        suspects = [self._rooms[name] for name in names if name in self._rooms]
        for room in suspects:
            room.log.suspect()
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
        self.verify([room.name for room in self._rooms.values() if not room.log.live])

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
                outbox.add(Prepared(events.reset(room.name, *effect.position)))
        self._send(outbox, self._registry.members(room.name))
        return pending

    async def _synced(self, room: Room) -> None:
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
            _fail(room, "the room's log cannot be read now: try again after `restored`")


def _fail(room: Room, why: str) -> None:
    waiting, room.synced = room.synced, None
    if waiting is not None and not waiting.done():
        waiting.set_exception(Unavailable(why))
        waiting.exception()  # looked at: whoever waited may be gone


def _top(room: Room) -> Position:
    position = room.log.position
    assert position is not None, "only known after the first read"
    return position


def _newest(entries: list[Entry], limit: int) -> list[Entry]:
    """The newest of them that fit into one reply, at least one."""
    kept: list[Entry] = []
    size = 0
    for entry in reversed(entries):
        size += len(entry.payload)
        if len(kept) == limit or (kept and size > REPLY_BYTES):
            break
        kept.append(entry)
    return kept[::-1]

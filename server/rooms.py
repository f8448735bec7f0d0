"""The rooms of a node: who is in them, and how a client gets in without a gap.

A room is known from its first join until its channel is given up, a linger after the last leave. server/feed.py keeps
it in step with its log; here a client's own position is brought up to the room's, and then, in one synchronous step,
the reply is written and the client put among the live members: nothing can fall between.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from collections.abc import Set as AbstractSet
from typing import Any, NamedTuple

import orjson

from broker.base import MAX_OFFSET, Entry, History, Position
from server import events, protocol
from server.connection import Connection
from server.feed import Feed, Room
from server.interest import Interest
from server.metrics import Counts
from server.presence import Presence
from server.receipts import Receipts
from server.refusal import Refusal
from server.registry import Registry
from server.rosters import page_of
from server.settings import Settings
from server.sync import recover

REPLY_ENTRIES, REPLY_BYTES = protocol.MAX_HISTORY, 128 * 1024
"""Of one join or history reply; the client asks again for more."""


class Answer(NamedTuple):
    """What a join found: where the client stands after ``entries``."""

    position: Position
    entries: list[Entry]
    recovered: bool | None
    more: bool


class Rooms:
    def __init__(
        self,
        interest: Interest,
        feed: Feed,
        members: Registry[str, Connection],
        presence: Presence,
        receipts: Receipts,
        settings: Settings,
        counts: Counts,
    ) -> None:
        self._interest = interest
        self._feed = feed
        self._members = members
        self._presence = presence
        self._receipts = receipts
        self._settings = settings
        self._counts = counts

    # Who is where.

    def has(self, name: str, connection: Connection) -> bool:
        return self._members.has(name, connection)

    def members(self, name: str) -> AbstractSet[Connection]:
        return self._members.members(name)

    def of(self, connection: Connection) -> tuple[str, ...]:
        """The rooms the connection is in."""
        return self._members.groups(connection)

    def history(self, name: str) -> History:
        room = self._feed.rooms.get(name)
        return room.history if room is not None else self._settings.history_of(name)

    def leave(self, connection: Connection, name: str) -> None:
        """Idempotent. Nothing of the room is delivered to the connection afterwards."""
        if self._members.has(name, connection):
            self._members.remove(name, connection)
            self._left(connection, name)

    def drop(self, connection: Connection) -> None:
        """The connection is gone: it leaves all its rooms."""
        names = self._members.groups(connection)
        self._members.discard(connection)
        for name in names:
            self._left(connection, name)

    def _left(self, connection: Connection, name: str) -> None:
        self._counts.rooms = len(self._members)
        self._feed.typing.gone(connection, name)
        self._presence.unwatch(name, connection)
        if connection.backlog is not None:
            connection.backlog.forget(name)
        if connection.user is not None:
            self._presence.went(connection.user, name)
        self._interest.release(f"room:{name}")

    # Joining.

    def join(self, connection: Connection, request: protocol.Join) -> Coroutine[Any, Any, None] | None:
        """Let the connection in. Raises :class:`Refusal`; a coroutine if something must be waited for. Joining a LIVE
        room without a resume asks nobody."""
        name = request.room
        subscribed = None
        fresh = not self._members.has(name, connection)
        if not fresh:
            # Joining again positions anew: nothing live until the reply.
            self._members.remove(name, connection)
        else:
            if self._members.count(connection) >= self._settings.max_rooms:
                raise Refusal("too_many_rooms", f"at most {self._settings.max_rooms} rooms: leave one first")
            subscribed = self._interest.acquire(f"room:{name}")
        room = self._feed.rooms.get(name)
        plain = request.resume is None and not request.history and not request.presence
        plain = plain and (request.id is None or self._receipts.known(name) is not None)
        if plain and subscribed is None and room is not None and room.log.live:
            self._enter(connection, room, request, Answer(room.top, [], None, False), fresh)
            return None
        return self._join_after_waiting(connection, request, subscribed, fresh)

    async def _join_after_waiting(
        self, connection: Connection, request: protocol.Join, subscribed: asyncio.Future[None] | None, fresh: bool
    ) -> None:
        name = request.room
        followed = entered = False
        try:
            if subscribed is not None:
                await asyncio.shield(subscribed)
            room = self._feed.open(name, self._settings.history_of(name))
            await self._feed.synced(room)
            if self._may_watch(request) and not self._presence.is_watching(name, connection):
                await self._presence.follow(name)
                followed = True
            if request.id is not None:
                await self._receipts.load(name)
            answer = await self._position(room, request)
            if not connection.closed:
                self.leave(connection, name)  # another join of it may have been quicker: the application joins, too
                entered = self._enter(connection, room, request, answer, fresh)
        finally:
            if not entered:
                if followed:
                    self._presence.unfollow(name)
                if fresh:
                    self._interest.release(f"room:{name}")
                else:
                    self._left(connection, name)

    def _may_watch(self, request: protocol.Join) -> bool:
        return request.presence and self._settings.presence_broadcast != "none"

    async def _position(self, room: Room, request: protocol.Join) -> Answer:
        """Where the client gets in, and what it must be given before that. Between the last ``await`` in here and the
        caller's next step nothing else runs, so what is returned still holds then."""
        resume = request.resume
        if resume is not None and 0 <= resume.offset <= MAX_OFFSET:
            if resume.offset > room.top.offset:
                # Ahead of this node, but not necessarily of the log: look at the log before judging.
                room.log.suspect()
                await self._feed.synced(room)
            answer = await self._resumed(room, Position(resume.epoch.encode(), resume.offset, resume.tag.encode()))
            if answer is not None:
                return answer
        entries = await self._last(room, request.history) if request.history else []
        return Answer(room.top, entries, None if resume is None else False, False)

    async def _resumed(self, room: Room, at: Position) -> Answer | None:
        """What was missed since ``at``, up to the room's position or as much as fits; None if there would be a hole."""
        entries: list[Entry] = []
        size = 0
        while True:
            page = await self._feed.reads.after(room.name, at.offset, room.top)
            await self._feed.synced(room)
            missed = recover(at, page)
            if missed is None or room.top.epoch != at.epoch:
                return None
            for entry in missed:
                if entry.offset > room.top.offset:
                    break  # the read saw further than the node has come: that will arrive live
                if entries and (len(entries) == REPLY_ENTRIES or size + len(entry.payload) > REPLY_BYTES):
                    return Answer(at, entries, True, True)
                entries.append(entry)
                size += len(entry.payload)
                at = Position(entry.epoch, entry.offset, entry.tag)
            if at.offset >= room.top.offset:
                return Answer(at, entries, True, False) if at == room.top else None

    async def _last(self, room: Room, n: int) -> list[Entry]:
        """The newest ``n`` entries up to the room's position, as far as they are kept and fit into one reply."""
        entries: list[Entry] = []
        since = max(0, room.top.offset - n)
        while True:
            page = await self._feed.reads.after(room.name, since, room.top)
            await self._feed.synced(room)
            top = room.top
            entries = [e for e in (*entries, *page.entries) if e.epoch == top.epoch and e.offset <= top.offset]
            if not page.entries or page.entries[-1].offset >= top.offset:
                return _newest(entries, n)
            since = page.entries[-1].offset

    def _enter(self, connection: Connection, room: Room, request: protocol.Join, answer: Answer, fresh: bool) -> bool:
        """Write the reply and, unless there is more to fetch, put the connection among the live members. True if it is
        a member now."""
        if request.id is not None:
            fields: dict[str, object] = {
                "room": room.name,
                "epoch": answer.position.epoch.decode(),
                "offset": answer.position.offset,
                "tag": answer.position.tag.decode(),
                "recovered": answer.recovered,
                "messages": [self._feed.as_sent(room, entry, connection) for entry in answer.entries],
            }
            marks = self._receipts.known(room.name)
            if marks is not None:
                fields["receipts"] = marks.told(connection.user)
                if connection.user is not None:
                    fields["unread"] = marks.unread(connection.user, answer.position.offset)
            if answer.more:
                fields["more"] = True
            elif self._may_watch(request):
                fields["members"] = self._roster(room.name)
            connection.send_event(events.reply_ok(request.id, fields))
        if answer.more:
            return False
        self._members.add(room.name, connection)
        self._counts.rooms = len(self._members)
        self._counts.joins += 1
        if self._may_watch(request):
            self._presence.watch(room.name, connection)
        if fresh and connection.user is not None:
            self._presence.came(connection.user, room.name)
        return True

    def _roster(self, name: str) -> dict[str, object]:
        users = self._presence.users(name)
        page, last = page_of(users, None)
        members: dict[str, object] = {
            "count": len(users),
            "users": [orjson.Fragment(user) for user in page],
            "typing": [orjson.Fragment(user) for user in self._feed.typing.users(name)],
        }
        if last is not None:
            members["next"] = orjson.Fragment(last)
        return members

    # History.

    async def page(self, connection: Connection, request: protocol.HistoryRequest) -> None:
        """Answer ``history``: up to ``limit`` messages before an offset (or the newest), oldest first."""
        room = self._feed.rooms[request.room]
        await self._feed.synced(room)
        before = min(request.before or MAX_OFFSET, room.top.offset + 1)
        entries: list[Entry] = []
        since = max(0, before - 1 - request.limit)
        while since < before - 1:
            page = await self._feed.reads.after(room.name, since, room.top)
            entries += [entry for entry in page.entries if entry.offset < before]
            if not page.entries:
                break
            since = page.entries[-1].offset
        if request.id is not None:
            newest = _newest(entries, request.limit)
            messages = [self._feed.as_sent(room, entry, connection) for entry in newest]
            fields: dict[str, object] = {"room": room.name, "epoch": room.top.epoch.decode(), "messages": messages}
            connection.send_event(events.reply_ok(request.id, fields))


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

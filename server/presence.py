"""Who is here, as this node's clients see it: everywhere, and in rooms.

Downwards the node says how many connections of a user it holds (the broker keeps the sum over all nodes). Upwards each
*scope* that somebody here watches, a room or everywhere, has a copy of the visible set, kept up by changes and healed
by reading it again; watchers are told the differences, so that what they have seen adds up whatever was missed.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterable
from collections.abc import Set as AbstractSet

from broker.base import Broker, Change, Roster, Unavailable
from server import events
from server.connection import Connection
from server.flights import Flights
from server.frames import Ephemeral, Topic
from server.outbox import Outbox
from server.presence_scope import Scope
from server.rosters import PAGE_USERS, presence_list
from server.tasks import Tasks

logger = logging.getLogger("server.presence")

BIG = 200
"""Above so many members of a room, or connections here, changes are gathered for ``GATHER_S`` and told in one write."""
GATHER_S = 0.25
MAX_KEPT = 1000
"""Changes kept while the roster is read; over it the roster is read once more instead."""

Send = Callable[[Outbox, AbstractSet[Connection]], None]


class Presence:
    def __init__(
        self,
        broker: Broker,
        tasks: Tasks,
        everybody: Callable[[], AbstractSet[Connection]],
        send: Send,
    ) -> None:
        """``everybody`` hears of everywhere; ``send`` gives an outbox to connections at once."""
        self._broker = broker
        self._tasks = tasks
        self._everybody = everybody
        self._send = send
        self._here: Counter[tuple[str | None, str]] = Counter()
        self._scopes: dict[str | None, Scope] = {}
        self._watchers: dict[str, set[Connection]] = {}
        self._rosters: Flights[str | None, Roster] = Flights(broker.presence.roster, tasks, "look at a roster")

    # What this node contributes.

    def came(self, user: str, room: str | None) -> None:
        """One connection more of this user, at all (None) or in a room."""
        self._here[room, user] += 1
        self._broker.presence.set_count(user, room, self._here[room, user])

    def went(self, user: str, room: str | None) -> None:
        left = self._here[room, user] - 1
        if left:
            self._here[room, user] = left
        else:
            del self._here[room, user]
        self._broker.presence.set_count(user, room, left)

    # Watching.

    async def follow(self, room: str | None) -> None:
        """Follow a scope whose channel is subscribed; return when its copy can be trusted. Raises :class:`Unavailable`,
        and is not followed then. One :meth:`unfollow` for each call that returned."""
        scope = self._scopes.get(room)
        if scope is None:
            scope = self._scopes[room] = Scope(room)
            scope.behind_since_s = asyncio.get_running_loop().time()
        scope.followers += 1
        if scope.live:
            return
        if scope.ready is None:
            scope.ready = asyncio.get_running_loop().create_future()
        ready = scope.ready
        self._read(scope)
        try:
            await asyncio.shield(ready)
        except Unavailable:
            self._unfollow(scope)
            raise

    def unfollow(self, room: str | None) -> None:
        """One less; a scope that nobody follows is forgotten."""
        scope = self._scopes.get(room)
        if scope is not None:
            self._unfollow(scope)

    def _unfollow(self, scope: Scope) -> None:
        scope.followers -= 1
        if scope.followers == 0 and self._scopes.get(scope.room) is scope:
            del self._scopes[scope.room]
            if scope.timer is not None:
                scope.timer.cancel()

    def is_followed(self, room: str | None) -> bool:
        return room in self._scopes

    def is_live(self, room: str | None) -> bool:
        scope = self._scopes.get(room)
        return scope is not None and scope.live

    def is_watching(self, room: str, connection: Connection) -> bool:
        return connection in self._watchers.get(room, ())

    def watch(self, room: str, connection: Connection) -> None:
        """Tell this connection of the comings and goings in a room that is followed for it."""
        self._watchers.setdefault(room, set()).add(connection)

    def unwatch(self, room: str, connection: Connection) -> None:
        """Idempotent."""
        watchers = self._watchers.get(room)
        if watchers is not None and connection in watchers:
            watchers.discard(connection)
            if not watchers:
                del self._watchers[room]
            self.unfollow(room)

    def users(self, room: str | None) -> list[str]:
        """The visible users of a live scope, sorted: once, for all who ask before it changes. Not to be changed."""
        scope = self._scopes[room]
        if scope.listed is None:
            scope.listed = sorted(scope.follower.users)
        return scope.listed

    def told(self, room: str | None, connection: Connection) -> bytes | None:
        """The list of who is there, for a watcher that may have missed changes; None for who is none."""
        scope = self._scopes.get(room)
        if scope is None or connection not in self.watchers(room):
            return None
        users = self.users(room)
        if scope.whole is None or scope.whole[0] is not users:  # many may catch up at once: it is encoded once for all
            scope.whole = users, presence_list(users, room, None)
        return scope.whole[1]

    async def look(self, room: str | None) -> list[str]:
        """The visible users, sorted, whether the scope is watched here or not. Raises :class:`Unavailable`."""
        if self.is_live(room):
            return self.users(room)
        return sorted((await self._rosters.get(room)).users)

    # What arrives.

    def changed(self, room: str | None, changes: Iterable[Change]) -> Outbox:
        """Take what a tick brought for a scope; what its watchers are to be told now."""
        outbox = Outbox()
        scope = self._scopes.get(room)
        if scope is None:
            return outbox
        scope.listed = None
        for change in changes:
            if not scope.live:
                scope.kept.append(change)
                if len(scope.kept) > MAX_KEPT:
                    scope.kept.clear()
                    scope.again = True
                continue
            verdict = scope.follower.apply(change)
            if verdict == "changed":
                self._tell(scope, change.user, change.online, outbox)
            elif verdict == "behind":
                self._fell_behind(scope)
                scope.kept.append(change)
                self._read(scope)
        return outbox

    def watchers(self, room: str | None) -> AbstractSet[Connection]:
        return self._everybody() if room is None else self._watchers.get(room, frozenset())

    def verify(self, rooms: Iterable[str | None] | None = None) -> None:
        """Something may have been missed in these scopes (all if not said): read them again."""
        for room in tuple(self._scopes) if rooms is None else rooms:
            scope = self._scopes.get(room)
            if scope is not None:
                self._fell_behind(scope)
                scope.again = scope.reading
                self._read(scope)

    def _fell_behind(self, scope: Scope) -> None:
        if scope.live:
            scope.live = False
            scope.behind_since_s = asyncio.get_running_loop().time()

    def behind_s(self) -> float:
        """For how long the scope that is behind longest has not been what watchers may trust; 0 when all are."""
        now_s = asyncio.get_running_loop().time()
        return max((now_s - scope.behind_since_s for scope in self._scopes.values() if not scope.live), default=0.0)

    def retry(self) -> None:
        """The broker is back: read what could not be read."""
        self.verify([room for room, scope in self._scopes.items() if not scope.live])

    # Reading.

    def _read(self, scope: Scope) -> None:
        if not scope.reading:
            scope.reading = True
            self._tasks.spawn(self._read_until_live(scope), "read a roster")

    async def _read_until_live(self, scope: Scope) -> None:
        try:
            while not scope.live and self._scopes.get(scope.room) is scope:
                scope.again = False
                roster = await self._broker.presence.roster(scope.room)
                outbox = Outbox()
                settling = roster.settling_s > 0
                differences = scope.follower.replace(roster, settling=settling)
                kept, scope.kept = scope.kept, []
                if scope.opened:
                    for user, online in differences:
                        self._tell(scope, user, online, outbox)
                scope.live = not scope.again
                scope.listed = None
                for change in kept:
                    verdict = scope.follower.apply(change)
                    if verdict == "behind":
                        scope.live = False  # as it was before this reading, so its age goes on
                    elif verdict == "changed" or not scope.opened:
                        self._tell(scope, change.user, change.online, outbox)
                scope.opened = True
                self._send(outbox, self.watchers(scope.room))
                if scope.live and settling and scope.follower.doubtful:
                    asyncio.get_running_loop().call_later(roster.settling_s, self.verify, [scope.room])
        except Unavailable as error:
            self._settle(scope, error)
        else:
            self._settle(scope, None)
        finally:
            scope.reading = False

    def _settle(self, scope: Scope, error: Unavailable | None) -> None:
        ready, scope.ready = scope.ready, None
        if ready is not None and not ready.done():
            if error is None:
                ready.set_result(None)
            else:
                ready.set_exception(error)
                ready.exception()  # looked at: whoever waited may be gone

    # Telling.

    def _tell(self, scope: Scope, user: str, online: bool, outbox: Outbox) -> None:
        """At once in small scopes; in big ones gathered, so that a storm costs writes per time and not per person."""
        size = len(self.watchers(None)) if scope.room is None else len(scope.follower.users)
        if size <= BIG and scope.timer is None:
            outbox.add(_event(scope.room, user, online))
            return
        scope.gathered.setdefault(user, not online)
        if scope.timer is None:
            scope.timer = asyncio.get_running_loop().call_later(GATHER_S, self._tell_gathered, scope)

    def _tell_gathered(self, scope: Scope) -> None:
        scope.timer = None
        gathered, scope.gathered = scope.gathered, {}
        users = scope.follower.users
        differences = [(user, user in users) for user, before in gathered.items() if (user in users) != before]
        outbox = Outbox()
        if len(differences) > PAGE_USERS:
            outbox.add(Ephemeral(presence_list(sorted(users), scope.room, None), Topic("presence", scope.room, "")))
        else:
            for user, online in differences:
                outbox.add(_event(scope.room, user, online))
        self._send(outbox, self.watchers(scope.room))


def _event(room: str | None, user: str, online: bool) -> Ephemeral:
    return Ephemeral(events.presence(user, online, room), Topic("presence", room, user))

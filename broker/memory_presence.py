"""The presence store in memory: a port of redis/lua/presence_*.lua, step by step. Theory: broker/presence.py.

Several nodes share one :class:`PresenceTable`. What is atomic there because it is a script is so here because it is
synchronous.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from itertools import islice, takewhile

from broker.base import Change, Roster
from broker.presence import PAGE, Applied, Batch, Beat, Entity, Rest


class Scope:
    """One room, or everywhere. ``totals`` are the connections of all nodes, 0 during grace."""

    def __init__(self) -> None:
        self.epoch = secrets.token_hex(8).encode()
        self.version = 0
        self.totals: dict[str, int] = {}


class Share:
    """The share of one incarnation: the last sequence number applied, and its counts."""

    def __init__(self) -> None:
        self.seq = 0
        self.counts: dict[Entity, int] = {}


class PresenceTable:
    """What Redis is to the other store. Times are seconds of ``clock``, which never goes back; all nodes have the same
    grace period, so ``grace`` is in the order of its ends."""

    def __init__(self, clock: Callable[[], float], publish: Callable[[str, Change], None]) -> None:
        self.clock = clock
        self.publish = publish
        self.clear()

    def clear(self) -> None:
        """Everything is lost, as after FLUSHALL."""
        self.opened = False
        self.beat_at = self.stalled_at = self.whole_at = 0.0
        self.nodes: dict[str, float] = {}
        self.dead: dict[str, float] = {}
        self.shares: dict[str, Share] = {}
        self.scopes: dict[str | None, Scope] = {}
        self.grace: dict[Entity, float] = {}

    def share(self, incarnation: str) -> Share:
        return self.shares.get(incarnation) or Share()

    def move(self, entity: Entity, difference: int, grace_s: float) -> None:
        """Move the connections of one user in one scope by ``difference``."""
        scope = self.scopes.get(entity.room) or Scope()
        before = scope.totals.get(entity.user)
        after = (before or 0) + difference
        if after > 0:
            scope.totals[entity.user] = after
            if before is None:
                self.emit(scope, entity, True)
            elif before == 0:
                del self.grace[entity]
        elif before:
            scope.totals[entity.user] = 0
            if grace_s > 0:
                self.grace[entity] = self.clock() + grace_s
            else:
                self.emit(scope, entity, False)

    def emit(self, scope: Scope, entity: Entity, online: bool) -> None:
        """One transition. The last one to go takes the scope along."""
        self.scopes[entity.room] = scope
        if not online:
            del scope.totals[entity.user]
            if not scope.totals:
                del self.scopes[entity.room]
        scope.version += 1
        channel = "presence" if entity.room is None else f"room:{entity.room}"
        self.publish(channel, Change(scope.epoch, scope.version, entity.user, online))

    def due_s(self) -> float | None:
        return max(0.0, next(iter(self.grace.values())) - self.clock()) if self.grace else None


class MemoryPresenceStore:
    """One node's way to the table. ``check`` raises :class:`broker.base.Unavailable` while that is cut.
    See :class:`broker.presence.PresenceStore`; there is no connection to probe, so no nonce comes back."""

    def __init__(
        self,
        table: PresenceTable,
        check: Callable[[], None],
        *,
        lease_s: float,
        grace_s: float,
        page: int = PAGE,
    ) -> None:
        self._table = table
        self._check = check
        self._lease_s = lease_s
        self._grace_s = grace_s
        self._page = page

    async def register(self, incarnation: str) -> None:
        self._check()
        table, now = self._table, self._table.clock()
        if not table.opened:
            table.opened = True
            table.beat_at, table.stalled_at, table.whole_at = now, 0.0, now + self._lease_s
        table.nodes[incarnation] = now + self._lease_s

    async def apply(self, batch: Batch) -> Applied:
        self._check()
        table = self._table
        if batch.incarnation not in table.nodes:
            return Applied("FENCED", None)
        share = table.share(batch.incarnation)
        if share.seq < batch.acked:
            return Applied("ROLLBACK", None)
        if share.seq >= batch.seq:
            return Applied("STALE", None)
        share.seq = batch.seq
        table.shares[batch.incarnation] = share
        for entity, count in batch.counts:
            difference = count - share.counts.get(entity, 0)
            if difference:
                if count:
                    share.counts[entity] = count
                else:
                    del share.counts[entity]
                table.move(entity, difference, self._grace_s)
        return Applied("OK", table.due_s())

    async def heartbeat(self, incarnation: str, acked: int, nonce: bytes) -> Beat:
        self._check()
        table, now = self._table, self._table.clock()
        if incarnation not in table.nodes:
            return Beat("FENCED", None, [], [])
        rolled_back = table.share(incarnation).seq < acked
        # a process has one clock that never goes back, but it can be frozen as a whole
        if now - table.beat_at > self._lease_s / 2:
            table.stalled_at = now
            if table.whole_at > table.beat_at:  # who had not reported again before could not do so meanwhile
                table.whole_at = now + self._lease_s
        table.beat_at = now
        table.nodes[incarnation] = now + self._lease_s
        if now >= table.stalled_at + self._lease_s:
            for name in [name for name, lease in table.nodes.items() if lease <= now]:
                del table.nodes[name]
                table.dead[name] = now
        due_s, expired = table.due_s(), self._over(now) if now >= table.stalled_at + self._grace_s else []
        return Beat("ROLLBACK" if rolled_back else "OK", due_s, list(table.dead), expired)

    async def fence(self, incarnation: str) -> None:
        self._check()
        if self._table.nodes.pop(incarnation, None) is not None:
            self._table.dead[incarnation] = self._table.clock()

    async def reap(self, incarnation: str, entities: Sequence[Entity]) -> Rest:
        self._check()
        table = self._table
        if incarnation not in table.dead:
            return Rest(None, [])
        counts = table.share(incarnation).counts
        for entity in entities:
            count = counts.pop(entity, 0)
            if count:
                table.move(entity, -count, self._grace_s)
        if not counts:
            del table.dead[incarnation]
            table.shares.pop(incarnation, None)
        return Rest(table.due_s(), list(islice(counts, self._page)))

    async def expire(self, entities: Sequence[Entity]) -> Rest:
        self._check()
        table, now = self._table, self._table.clock()
        if now - table.beat_at > self._lease_s / 2 or now < table.stalled_at + self._grace_s:
            return Rest(table.due_s(), [])
        for entity in entities:
            if table.grace.get(entity, now + 1) <= now:
                del table.grace[entity]
                table.emit(table.scopes[entity.room], entity, False)
        return Rest(table.due_s(), self._over(now))

    def _over(self, now: float) -> list[Entity]:
        over = takewhile(lambda each: each[1] <= now, self._table.grace.items())
        return [entity for entity, _ in islice(over, self._page)]

    async def roster(self, room: str | None) -> Roster:
        self._check()
        table, now = self._table, self._table.clock()
        unheard = table.whole_at > table.beat_at and now - table.beat_at > self._lease_s / 2
        settling_s = self._lease_s if unheard or not table.opened else max(0.0, table.whole_at - now)
        scope = self._table.scopes.get(room)
        if scope is None:
            return Roster({}, frozenset(), settling_s)
        return Roster({scope.epoch: scope.version}, frozenset(scope.totals), settling_s)

    async def online(self, user: str) -> bool:
        self._check()
        scope = self._table.scopes.get(None)
        return scope is not None and user in scope.totals

"""Presence: how it works, what a store of it must offer, and what one node contributes. Pure.

**Shares.** A node tells the store how many connections of a user it holds, in a room or at all. The store keeps two
things: the *share* of every node incarnation, and the *total* of every user per scope (a room, or everywhere). A share
is absolute, sequenced and fenced: a batch says "this user: 3 connections" under a sequence number that only grows, the
total moves by the difference to what the share said before, and only incarnations that are members are heard (a store
that lost all data has no members). So a retry, a lost reply or a late replay changes nothing, and the repair for any
doubt is to say everything again.

**Incarnations.** A node gets a new incarnation (a fresh id) when it starts and whenever it is refused (``FENCED``,
``ROLLBACK``, ``STALE``). It registers, says its whole table again, and only then ends its former incarnation, so that
totals never pass through zero on the way. A lease per incarnation, renewed by every heartbeat, lets the others fence a
dead node; its share is then *reaped*: taken out of the totals page by page, every count leaving the share in the step
in which it leaves the total, by any node and exactly once.

**Grace.** A total that reaches zero leaves the user visible until the grace period ends; whoever comes back before, on
any node, was never away.

**Stalls.** If nobody was heard for half a lease, or the clock was set back, Redis was away and not the nodes: nobody is
fenced for one lease from then on and no grace ends for one grace period. Every heartbeat cuts leases and grace periods
that end later than its own node's times allow, which is what a clock set back leaves behind. So all nodes should have
the same times; a change can be rolled out as long as the shorter lease is above two of the longer heartbeats.

**Rollback.** A share carries the last sequence number the store has applied; a node knows the last one it had
confirmed. If the store's is lower it has lost writes (a failover, an old dump): the node says everything again. Batches
carry the number too, because a busy node would otherwise overwrite the evidence before its next heartbeat.

**Versions.** Presence is state, not history. Every transition of a scope increments its version by one and goes out as
a :class:`broker.base.Change` in the same atomic step. A scope vanishes with its last visible user; the next one opens
it anew under a fresh random epoch at version 1. So (epoch, version) never repeats, and a reader that holds a roster

- drops a change of its epoch at or below its version, applies the next one,
- reads the roster again for anything else, after every event of its subscription and whenever its node had to rejoin
  (after a loss of data there may be nobody left to send a change), and takes the differences. Version 1 of a new epoch
  is no exception, even where nobody was: it may be late, sent before a loss of data that the roster has seen.

While a roster is *settling* (one lease after a loss of all data) a user missing from it may be one whose node has not
reported again yet: additions hold, removals are to be read again when it has settled (broker/follower.py).

Exact after LEASE + 3 heartbeats + grace of quiet. The state machine in tests/broker/presence_machine.py checks all this
against a real server, with every message lost, delayed or repeated, clocks moved and data rolled back.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple, Protocol

from broker.base import Roster

MAX_BATCH = 256
"""Counts in one call: bounds the time one script holds Redis."""
PAGE = 200
"""Users reaped or expired by one call."""

Status = Literal["OK", "FENCED", "ROLLBACK", "STALE"]


class Entity(NamedTuple):
    """What is counted: one user (JSON text) in one room, or (``None``) at all."""

    room: str | None
    user: str


class Batch(NamedTuple):
    """Counts to be stated in one step. ``acked`` is the last sequence number known to be applied."""

    incarnation: str
    seq: int
    acked: int
    counts: list[tuple[Entity, int]]


class Applied(NamedTuple):
    """``due_s``: seconds until the first grace period of anybody ends; None if none runs."""

    status: Status
    due_s: float | None


class Beat(NamedTuple):
    """The answer to a heartbeat, with what there is to do for whoever has time."""

    status: Status
    due_s: float | None
    dead: list[str]
    expired: list[Entity]


class Rest(NamedTuple):
    """What is left to reap or to expire after this call; nothing when done."""

    due_s: float | None
    entities: list[Entity]


class PresenceStore(Protocol):
    """Where the shares meet. Every method is one atomic step and raises :class:`broker.base.Unavailable` if nothing was
    done, :class:`broker.base.OutcomeUnknown` if it may have been."""

    async def register(self, incarnation: str) -> None:
        """Begin an incarnation never used before."""

    async def apply(self, batch: Batch) -> Applied:
        """State counts. Nothing is changed unless the status is OK."""

    async def heartbeat(self, incarnation: str, acked: int, nonce: bytes) -> Beat:
        """Renew the lease; fence the nodes whose lease is over; send ``nonce`` back on the node's channel."""

    async def fence(self, incarnation: str) -> None:
        """End an incarnation. Idempotent."""

    async def reap(self, incarnation: str, entities: Sequence[Entity]) -> Rest:
        """Take these out of a dead incarnation's share and of the totals. Begin with none; idempotent."""

    async def expire(self, entities: Sequence[Entity]) -> Rest:
        """Tell that these are gone, as far as their grace is over. Begin with none; idempotent."""

    async def roster(self, room: str | None) -> Roster:
        """The visible set of a room or of everywhere."""

    async def online(self, user: str) -> bool:
        """Whether the user is visible anywhere."""


class Share:
    """What one node contributes, and which of it the store has not confirmed yet. One batch is in flight at a time.

    Changed synchronously on the event loop; decides everything about batches and incarnations, sends nothing.
    """

    def __init__(self) -> None:
        self.incarnation: str | None = None
        self.acked = 0
        self._seq = 0
        self._want: dict[Entity, int] = {}
        self._dirty: dict[Entity, None] = {}
        self._unsaid: set[Entity] = set()
        self._in_flight: Batch | None = None
        self._former: list[str] = []

    @property
    def waiting(self) -> bool:
        """There is something to send now."""
        return self.incarnation is not None and (bool(self._dirty) or bool(self.former))

    def set_count(self, entity: Entity, connections: int) -> bool:
        """State the truth. True if that has to be sent."""
        if self._want.get(entity, 0) == connections:
            return False
        if connections:
            self._want[entity] = connections
        else:
            del self._want[entity]
        if self.incarnation is None:
            return False
        self._dirty[entity] = None
        return True

    def begin(self, incarnation: str) -> None:
        """Registered: everything has to be said from the beginning."""
        self.incarnation = incarnation
        self.acked = self._seq = 0
        self._in_flight = None
        self._dirty = dict.fromkeys(self._want)
        self._unsaid = set(self._want)

    def refused(self, incarnation: str, status: Status) -> None:
        """This incarnation is over; nothing is sent until the next one begins. Of a former one: nothing to do."""
        if incarnation != self.incarnation:
            return
        self.incarnation = None
        self._dirty.clear()
        if status != "FENCED":
            self._former.append(incarnation)

    def next_batch(self, limit: int = MAX_BATCH) -> Batch | None:
        """What to send now, its counts read now. None if there is nothing or another one is in flight.
        ``confirmed``, ``unknown`` or ``refused`` has to follow."""
        if self.incarnation is None or self._in_flight is not None or not self._dirty:
            return None
        counts: list[tuple[Entity, int]] = []
        while self._dirty and len(counts) < limit:
            entity = next(iter(self._dirty))
            del self._dirty[entity]
            counts.append((entity, self._want.get(entity, 0)))
        self._seq += 1
        self._in_flight = Batch(self.incarnation, self._seq, self.acked, counts)
        return self._in_flight

    def confirmed(self, batch: Batch) -> None:
        if batch is self._in_flight:
            self._in_flight = None
            self.acked = batch.seq
            self._unsaid.difference_update(_entities(batch))

    def unknown(self, batch: Batch) -> None:
        """Lost, or applied without an answer, or still on its way: a later number with the counts of then covers all
        three."""
        if batch is self._in_flight:
            self._in_flight = None
            self._dirty.update(dict.fromkeys(_entities(batch)))

    @property
    def former(self) -> list[str]:
        """Former incarnations that may be ended now, because everything has been said again."""
        return [] if self.incarnation is None or self._unsaid else list(self._former)

    def ended(self, incarnation: str) -> None:
        self._former.remove(incarnation)


def _entities(batch: Batch) -> Iterable[Entity]:
    return (entity for entity, _ in batch.counts)

"""What a node may ask of the thing between nodes, and what it is promised in return.

Words: a *channel* is what the broker carries (``room:<name>``, ``path:<path>``, ``user:<id>``, ``node:<id>``,
``presence``). A room also has a *log*: an epoch, contiguous offsets 1, 2, 3 …, a random tag per entry that is linked to
the tag before it, and a bounded history. The broker knows channels and bytes; it knows no connection.

Every promise below is tested word for word on every broker by ``tests/broker/test_contract.py``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Literal, NamedTuple, Protocol

from broker.stats import BrokerStats

MAX_OFFSET = 2**53 - 1
"""Offsets pass through Lua, whose numbers are doubles; above this they would no longer be exact."""


class BrokerError(Exception):
    """Anything the broker could not do. The text says what to do next."""


class Unavailable(BrokerError):
    """Not done: the broker cannot be reached and nothing was sent. Safe to retry."""


class OutcomeUnknown(BrokerError):
    """Sent, but no answer came in time. Retry with the same dedup key; without one it may happen twice."""


class Position(NamedTuple):
    """A place in a room's log. ``offset`` 0 with tag ``b"0"`` is the place before the first entry."""

    epoch: bytes
    offset: int
    tag: bytes


class Entry(NamedTuple):
    """One message of a room's log, as published or read back. ``prev`` is the tag of the entry before it."""

    epoch: bytes
    offset: int
    prev: bytes
    tag: bytes
    payload: bytes


class Signal(NamedTuple):
    """An ephemeral payload: at most once, never logged."""

    payload: bytes


class Change(NamedTuple):
    """A user came or went, in one room or (on the channel ``presence``) anywhere. Versions are contiguous per epoch; a
    user's changes of everywhere all come in the order of one epoch at a time.

    ``user`` is the user id as JSON text (``42`` and ``"42"`` are two users).
    """

    epoch: bytes
    version: int
    user: str
    online: bool


class Probe(NamedTuple):
    """The node's own heartbeat, back on ``node:<id>``. Brokers consume it; it never reaches a sink."""

    nonce: bytes


Item = Entry | Signal | Change
Delivery = tuple[str, Item]
"""(channel, item), in the order of the channel."""


class Page(NamedTuple):
    """What a read saw in one atomic step: the log's top and the entries asked for, oldest first."""

    top: Position
    entries: list[Entry]


class History(NamedTuple):
    """How much of a room's log is kept. At least ``max_entries`` unless the age or the byte limit is hit first."""

    max_entries: int = 1000
    ttl_s: float = 300.0
    max_bytes: int = 8 * 1024 * 1024


class Dedup(NamedTuple):
    """A publisher's retry key. The same (room, sender, key) within two minutes is one entry with one position."""

    sender: str
    key: str


Status = Literal["delivered", "read"]


class Mark(NamedTuple):
    """How far one user got in one room's log. ``read`` implies ``delivered``. ``user`` is JSON text."""

    user: str
    delivered: int
    read: int


class Roster(NamedTuple):
    """Who is here: the visible set of one room, or (``room=None``) of the whole cluster. ``versions`` has the version
    of every epoch that it was read at: one, none where nobody is; of the whole cluster one for every part that the
    broker keeps apart.

    While ``settling_s`` is above 0 (within one lease after a loss of all data) a user missing from it may be one whose
    node has not reported again yet.
    """

    versions: dict[bytes, int]
    users: frozenset[str]
    settling_s: float = 0.0


class Sink(Protocol):
    """The node's side. Every method is synchronous, returns quickly and never raises."""

    def deliver(self, deliveries: list[Delivery]) -> None:
        """All that arrived in one tick (at most about 128 KiB), in order per channel."""

    def interrupted(self, reason: str) -> None:
        """From now on something may not arrive, or not be done. Called once per outage."""

    def resubscribed(self, channels: Sequence[str]) -> None:
        """These channels are subscribed and confirmed (again), but something may have been missed on them. Follows an
        ``interrupted`` only if the subscriptions were lost; also comes alone, for a message that cannot be read."""

    def restored(self) -> None:
        """The outage is over: probe confirmed, commands answered. Follows every ``interrupted``."""


class Presence(Protocol):
    """Reference-counted presence, exact after any crash (docs/guarantees.md).

    A node reports how many connections of a user it holds; the broker keeps the sum over all nodes.
    """

    def set_count(self, user: str, room: str | None, connections: int) -> None:
        """State this node's absolute count of one user, in one room or (``None``) at all. Synchronous; sent within
        a tick, together with all others (group commit), and again by itself after any failure."""

    async def roster(self, room: str | None) -> Roster:
        """The visible set and its version in one atomic step. Raises :class:`Unavailable`."""

    async def online(self, user: str) -> bool:
        """Whether the user is visible anywhere. Raises :class:`Unavailable`."""


class Broker(Protocol):
    """Carries entries between nodes and keeps the logs.

    1. When ``subscribe`` is done, every later append or publish on that channel from any node is delivered.
    2. Once per node, however often subscribed.
    3. Entries of one room arrive in the order of their offsets, the same on every node. Appends of one node to one
       room get offsets in the order of the calls, as far as none of them timed out.
    4. From the call of ``unsubscribe`` on nothing more of that channel is delivered.
    5. At most once on the wire: a lost connection is rebuilt inside, counted, told to the sink, never raised out of it.
    6. Payloads are untouched bytes.
    7. A node that is not subscribed to a channel receives no byte of it.
    """

    node_id: str

    @property
    def presence(self) -> Presence:
        """Who is here."""

    stats: BrokerStats

    async def start(self, sink: Sink) -> None:
        """Begin connecting and delivering. Returns without waiting for the connection; see ``ready``."""

    async def close(self) -> None:
        """Leave: give up this node's presence silently, stop delivering, fail what waits with :class:`Unavailable`.
        Idempotent."""

    @property
    def ready(self) -> bool:
        """Connected, commands answered, and the probe came back within its time. Where the broker has several parts,
        that holds for more than half of it; the sink is told of every interruption of any part."""

    @property
    def reason(self) -> str:
        """Why it is not ready, for operators; empty when it is."""

    async def wait_ready(self) -> None:
        """Return once ``ready``."""

    def subscribe(self, channel: str) -> asyncio.Future[None]:
        """Synchronous call, the order of subscribing and unsubscribing counts. The future is done when the subscription
        is confirmed; during an outage it waits for that at most a second, then gives :class:`Unavailable` (and the
        channel is not subscribed)."""

    def unsubscribe(self, channel: str) -> asyncio.Future[None]:
        """Idempotent. The future is done when that is confirmed, never fails, and may be ignored."""

    def append(
        self, room: str, payload: bytes, *, history: History, dedup: Dedup | None = None, author: str | None = None
    ) -> asyncio.Future[Position]:
        """Append to the room's log and deliver to its subscribers, atomically. Synchronous call, the order of the
        calls counts; the future gives the position, or :class:`Unavailable` / :class:`OutcomeUnknown`. The ``read``
        mark of the ``author`` (a user) moves to the entry in the same step; nobody needs to be told."""

    def publish(self, channel: str, payload: bytes) -> asyncio.Future[None]:
        """Deliver to the subscribers of any channel, at most once, never logged. The future may be ignored."""

    async def read(self, room: str, since: int | None, limit: int) -> Page:
        """The top and up to ``limit`` entries after offset ``since`` (``None``: no entries, ``limit`` unused).
        Opens the log (a new epoch, offset 0) if there is none. Raises :class:`Unavailable`; ValueError for a
        ``since`` outside 0 … MAX_OFFSET or a negative ``limit``."""

    async def tops(self, rooms: Sequence[str]) -> list[Position | None]:
        """The tops of many rooms in few round trips; None where there is no log. Raises :class:`Unavailable`."""

    def advance(self, room: str, user: str, status: Status, offset: int, payload: bytes) -> asyncio.Future[bool]:
        """Move the user's mark up to ``offset`` (the maximum within the epoch wins) and, only if it moved, publish
        ``payload`` on the room's channel in the same atomic step. Offsets above the top are not stored: False.
        The future tells whether it moved. An empty payload tells nobody."""

    async def marks(self, room: str) -> list[Mark]:
        """All marks of the room in the current epoch. Raises :class:`Unavailable`."""

    async def clear(self, room: str) -> None:
        """Forget all entries of the room's log, as if they had grown too old: epoch, offsets and marks go on. Raises
        :class:`Unavailable`."""

    async def forget_user(self, user: str) -> int:
        """Remove the user's marks in all rooms (a search through all of them, in small steps; what is written meanwhile
        may stay). Returns in how many there was one. Raises :class:`Unavailable`: a part may be done, do it again."""

    async def announce(self, description: dict[str, object], ttl_s: float) -> None:
        """Write this node's own description, for ``nodes``. Raises :class:`Unavailable`."""

    async def nodes(self) -> list[dict[str, object]]:
        """The descriptions of the nodes that live. Raises :class:`Unavailable`."""

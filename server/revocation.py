"""What has been revoked, on every node alike: users, sessions and tokens that may not come (back) for a while.

Revocations are messages of a room that no client can join (``__revoked``), so they are kept, ordered and heard by all
nodes like any other; a node that starts later or has missed something reads the log. Adding them up in any order, any
number of times, gives the same table.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from typing import Final, Literal, NamedTuple

import msgpack

from broker.base import Broker, Entry, History, Item, Position, Unavailable
from server.identity import Identity
from server.tasks import Tasks

logger = logging.getLogger("server.revocation")

ROOM: Final = "__revoked"
CHANNEL: Final = f"room:{ROOM}"
MAX_FOR_S: Final = 30 * 24 * 3600.0
HISTORY: Final = History(max_entries=100_000, ttl_s=MAX_FOR_S)
PAGE_ENTRIES: Final = 100

Kind = Literal["user", "session", "token"]


class Revoked(NamedTuple):
    kind: Kind
    value: str
    """The user as JSON text, a session key, or a token's ``jti``."""
    at: float
    """Unix time. What a user's token proves to be issued after it stays good."""
    until: float

    def covers(self, identity: Identity, session: str | None) -> bool:
        if self.kind == "token":
            return identity.token_id == self.value
        if self.kind == "session":
            return session == self.value
        # Tokens carry whole seconds: one of the same second may be older.
        return identity.user == self.value and (identity.issued_at is None or identity.issued_at <= self.at)


class Revocations:
    def __init__(self, broker: Broker, tasks: Tasks, on_revoked: Callable[[Revoked], None]) -> None:
        """``on_revoked`` is called for everything this node did not know yet."""
        self._broker = broker
        self._tasks = tasks
        self._on_revoked = on_revoked
        self._table: dict[tuple[Kind, str], Revoked] = {}
        self._subscribed = False
        self._loading = False
        self._again = False

    def refuses(self, identity: Identity, session: str | None) -> bool:
        keys: list[tuple[Kind, str | None]] = [
            ("user", identity.user),
            ("session", session),
            ("token", identity.token_id),
        ]
        now = time.time()
        for kind, value in keys:
            revoked = self._table.get((kind, value)) if value is not None else None
            if revoked is not None and revoked.until > now and revoked.covers(identity, session):
                return True
        return False

    async def revoke(self, kind: Kind, value: str, for_s: float) -> Position:
        """Refuse it on all nodes for so long, and close what is open. Raises ValueError, and :class:`BrokerError`."""
        if not 0 < for_s <= MAX_FOR_S:
            raise ValueError(f"a revocation lasts up to {MAX_FOR_S:g} s: give it the life of your tokens")
        now = time.time()
        payload = bytes(msgpack.packb((kind, value, now, now + for_s)))
        return await self._broker.append(ROOM, payload, history=HISTORY)

    def heard(self, items: Iterable[Item]) -> None:
        """What arrived on ``CHANNEL``."""
        for item in items:
            if isinstance(item, Entry):
                self._add(item.payload)

    def load(self) -> None:
        """Something may have been missed: subscribe if need be, and read the log."""
        self._again = True
        if not self._loading:
            self._loading = True
            self._tasks.spawn(self._load(), "read the revocations")

    async def _load(self) -> None:
        try:
            while self._again:
                self._again = False
                if not self._subscribed:
                    await self._broker.subscribe(CHANNEL)
                    self._subscribed = True
                since = 0
                while True:
                    page = await self._broker.read(ROOM, since, PAGE_ENTRIES)
                    self.heard(page.entries)
                    if not page.entries:
                        break
                    since = page.entries[-1].offset
        except Unavailable:
            logger.info("the revocations cannot be read now: again when the broker is back")
        finally:
            self._loading = False

    def _add(self, payload: bytes) -> None:
        try:
            revoked = Revoked(*msgpack.unpackb(payload, use_list=False))
            known = self._table.get((revoked.kind, revoked.value))
            now = time.time()
            if revoked.until <= now or (known is not None and (known.at, known.until) >= (revoked.at, revoked.until)):
                return
        except (TypeError, ValueError, msgpack.UnpackException):
            logger.warning("an entry in the log of revocations cannot be read: is another program writing to it?")
            return
        if len(self._table) % 1024 == 1023:
            self._table = {key: value for key, value in self._table.items() if value.until > now}
        self._table[revoked.kind, revoked.value] = revoked
        self._on_revoked(revoked)

"""The node's side of presence: sends what changed, renews the lease, joins again when refused, clears up after others.

What to send is decided in :class:`broker.presence.Share`; this file only carries it. An idle reporter has no task: one
is started when there is something to say, another when there is something to clear up. Whatever fails is tried again
after the next heartbeat, so nothing here retries by itself.
"""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

from broker.base import BrokerError, OutcomeUnknown, Roster, Unavailable
from broker.options import BrokerOptions
from broker.pace import Pace
from broker.presence import Batch, Entity, PresenceStore, Share
from broker.waiting import Waiting

logger = logging.getLogger("broker.presence")

T = TypeVar("T")


class PresenceReporter:
    """See :class:`broker.base.Presence`.

    The broker calls ``heartbeat`` every ``heartbeat_s`` or a little sooner, and ``close`` while it can still send.
    ``rejoined`` is called when this node had to join again after it was taken for dead or the store had lost data:
    whatever else it knows from the store is to be verified too. A node that cannot send heartbeats needs no clock to
    know that its lease is lost: the first answer says so, and its link is interrupted long before.
    """

    def __init__(
        self, store: PresenceStore, *, node_id: str, options: BrokerOptions, rejoined: Callable[[], None]
    ) -> None:
        self._store = store
        self._node_id = node_id
        self._sweep_every_s = options.heartbeat_s / 4
        self._visitor = options.visitor
        self._rejoined = rejoined
        self._share = Share()
        self._waiting = Waiting()
        self._pace = Pace()
        self._joining = asyncio.Lock()
        self._joined_before = False
        self._flusher: asyncio.Task[None] | None = None
        self._sweeper: asyncio.Task[None] | None = None
        self._grace_timer: asyncio.TimerHandle | None = None
        self._closed = False

    # For the node

    def set_count(self, user: str, room: str | None, connections: int) -> None:
        if self._share.set_count(Entity(room, user), connections):
            self._waiting.stated(time.monotonic())
            self._flush_soon()
        elif self._share.incarnation is None:
            self._waiting.stated(time.monotonic())  # said when this node has joined

    async def roster(self, room: str | None) -> Roster:
        return await _read(self._store.roster(room))

    async def online(self, user: str) -> bool:
        return await _read(self._store.online(user))

    # For the broker

    def waiting_s(self) -> float:
        """For how long the oldest count that was stated has not been confirmed; 0 when all are."""
        return self._waiting.for_s(time.monotonic())

    async def heartbeat(self, nonce: bytes) -> None:
        """Renew the lease and publish the probe; if refused, join again. May be cancelled. Raises
        :class:`Unavailable` or :class:`OutcomeUnknown`; the probe may have been published even then."""
        if self._closed:
            return
        # before the first join there is no incarnation: refused like any stranger, but the probe comes back
        incarnation = self._share.incarnation or ""
        beat = await self._store.heartbeat(incarnation, self._share.acked, nonce)
        if beat.status != "OK":
            self._share.refused(incarnation, beat.status)
            self._waiting.refused(time.monotonic())
            if not self._visitor:
                await self._join(beat.status)
        else:
            self._sweep_after(beat.due_s)
            if beat.dead or beat.expired:
                self._sweep_soon(beat.dead, beat.expired)
        self._flush_soon()

    async def close(self) -> None:
        """Leave silently: the share falls to whoever clears up, and users who come back within the grace period were
        never away. Idempotent; never raises."""
        if self._closed:
            return
        self._closed = True
        if self._grace_timer is not None:
            self._grace_timer.cancel()
        tasks = [task for task in (self._flusher, self._sweeper) if task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        incarnation = self._share.incarnation
        if incarnation is not None:
            self._share.refused(incarnation, "FENCED")
            try:
                await self._store.fence(incarnation)
            except BrokerError as error:
                logger.warning("left without a word, the lease will end it: %s", error)

    # Joining

    async def _join(self, why: str) -> None:
        async with self._joining:
            if self._share.incarnation is not None or self._closed:
                return
            incarnation = f"{self._node_id}:{secrets.token_hex(8)}"
            await self._store.register(incarnation)
            self._share.begin(incarnation)
            if not self._share.waiting:
                self._waiting = Waiting()
        if self._joined_before:
            logger.warning("presence of this node was refused (%s): joined again, saying everything again", why)
            self._rejoined()
        self._joined_before = True

    # Sending

    def _flush_soon(self) -> None:
        """In the next tick, with all that changes in this one; in a storm in the next turn."""
        if self._flusher is None and not self._closed and self._share.waiting:
            self._flusher = self._start(self._flush(), "presence flush")

    async def _flush(self) -> None:
        share = self._share
        try:
            while share.waiting:
                wait_s = self._pace.wait_s(time.monotonic())
                if wait_s:
                    await asyncio.sleep(wait_s)
                batch = share.next_batch()
                if batch is not None:
                    self._waiting.taken(everything=not share.waiting)
                    await self._send(batch)
                for incarnation in share.former:
                    await self._store.fence(incarnation)
                    share.ended(incarnation)
        except BrokerError as error:
            logger.info("presence waits for the next heartbeat: %s", error)
        finally:
            self._flusher = None

    async def _send(self, batch: Batch) -> None:
        share = self._share
        try:
            applied = await self._store.apply(batch)
        except BrokerError:
            share.unknown(batch)
            self._waiting.returned()
            raise
        if applied.status == "OK":
            share.confirmed(batch)
            self._waiting.confirmed()
            self._sweep_after(applied.due_s)
        else:
            share.refused(batch.incarnation, applied.status)
            self._waiting.refused(time.monotonic())
            await self._join(applied.status)

    # Clearing up

    def _sweep_after(self, due_s: float | None) -> None:
        """Look for grace periods that are over when the first one is; not often, and not all nodes together."""
        if due_s is None or self._closed:
            return
        loop = asyncio.get_running_loop()
        at_s = loop.time() + max(due_s, self._sweep_every_s) + random.uniform(0, self._sweep_every_s)
        if self._grace_timer is not None:
            if self._grace_timer.when() <= at_s:
                return
            self._grace_timer.cancel()
        self._grace_timer = loop.call_at(at_s, self._grace_over)

    def _grace_over(self) -> None:
        self._grace_timer = None
        self._sweep_soon([], [])

    def _sweep_soon(self, dead: Sequence[str], expired: Sequence[Entity]) -> None:
        if self._sweeper is None and not self._closed:
            self._sweeper = self._start(self._sweep(dead, expired), "presence sweep")

    async def _sweep(self, dead: Sequence[str], expired: Sequence[Entity]) -> None:
        """Give up the shares of the dead, tell who is gone; page by page."""
        try:
            for incarnation in dead:
                logger.info("clearing up after %s", incarnation)
                rest = await self._store.reap(incarnation, [])
                while rest.entities:
                    rest = await self._store.reap(incarnation, rest.entities)
            rest = await self._store.expire(expired)
            while rest.entities:
                rest = await self._store.expire(rest.entities)
            self._sweep_after(rest.due_s)
        except BrokerError as error:
            logger.info("clearing up waits for the next heartbeat: %s", error)
        finally:
            self._sweeper = None

    def _start(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work, name=name)
        task.add_done_callback(_report)
        return task


def _report(task: asyncio.Task[None]) -> None:
    """An end that nobody meant; the next heartbeat starts it again."""
    if not task.cancelled() and task.exception() is not None:
        logger.error("%s died", task.get_name(), exc_info=task.exception())


async def _read(reading: Coroutine[Any, Any, T]) -> T:
    """A read may as well happen twice: an unknown outcome is none."""
    try:
        return await reading
    except OutcomeUnknown as error:
        raise Unavailable(str(error)) from error

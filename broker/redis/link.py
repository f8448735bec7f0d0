"""Keeps a node linked to its Redis: two connections, built, examined, probed and built again.

The probe is the heartbeat. It *writes* (a demoted master still answers PUBLISH) and comes back on the node's own
channel, so it passes through everything a message passes through. Two misses, half a heartbeat each, and both
connections are built again: a deaf, frozen or half-open server is noticed within two and a half heartbeats.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import secrets
import time
from collections.abc import Sequence
from typing import Protocol

from broker.base import OutcomeUnknown, Sink, Unavailable
from broker.options import BrokerOptions
from broker.redis.address import Address
from broker.redis.checks import SECTIONS, examine, health, parse_info
from broker.redis.connection import Connection, connect
from broker.redis.errors import ConnectionLost
from broker.redis.password import password_of
from broker.redis.place import Place
from broker.redis.scripts import Script
from broker.redis.subscriber import Subscriber
from broker.stats import BrokerStats

logger = logging.getLogger("broker.redis")

MISSES = 2
LOOK_EVERY_S = 10.0


class Users(Protocol):
    """Who lives on the link (:class:`broker.redis.master.Master`)."""

    def attach(self, connection: Connection) -> None:
        """Commands go here from now on."""

    def detach(self, reason: str) -> None:
        """They go nowhere."""

    def interrupted(self, reason: str) -> None:
        """Not linked, or not any more; again for every attempt that fails."""

    def restored(self) -> None:
        """Linked and probed."""

    def probed(self, sent_s: float, now_s: float) -> None:
        """A probe came back."""

    async def heartbeat(self, nonce: bytes) -> set[int]:
        """Run a writing script that publishes the probe, in each of the shards that are returned."""


class Link:
    """``run`` is one supervised loop. Each side is built again when it is lost; both are when the probe says so, or the
    server is no master any more, or the master is elsewhere."""

    def __init__(
        self,
        place: Place,
        name: str,
        *,
        clustered: bool,
        users: Users,
        subscriber: Subscriber,
        sink: Sink,
        scripts: Sequence[Script],
        options: BrokerOptions,
        stats: BrokerStats,
    ) -> None:
        self.address: Address | None = None
        """Where the master was last found."""
        self._place = place
        self._name = name
        self._clustered = clustered
        self._users = users
        self._subscriber = subscriber
        self._scripts = scripts
        self._options = options
        self._stats = stats
        self._sink = sink
        self._command_side: Connection | None = None
        self._subscriber_side: Connection | None = None
        self._open: set[Connection] = set()
        self._broken: asyncio.Future[str]
        self._backoff_s = options.backoff_min_s
        self._warned: set[str] = set()
        self._unfit = ""
        """Why the last heartbeat was refused, if that means that another one may be the master now."""

    async def run(self) -> None:
        """Connect, watch, connect again, for ever. Cancelled to end it; then both sides are closed."""
        left: asyncio.Task[None] | None = None
        try:
            while True:
                self._broken = asyncio.get_running_loop().create_future()
                try:
                    address = await self._find()
                    left = left or asyncio.create_task(self._until_left(address), name="broker place")
                    await self._establish(address)
                except (Unavailable, OutcomeUnknown) as error:
                    self._users.interrupted(str(error))
                else:
                    self._users.restored()
                    self._users.interrupted(await self._watch())
                pause_s = self._backoff_s * random.uniform(0.5, 1)
                if left is None:
                    await asyncio.sleep(pause_s)
                else:
                    await asyncio.wait((left,), timeout=pause_s)
                    if left.done():
                        left.result()
                        left = None
                self._backoff_s = min(2 * self._backoff_s, self._options.backoff_max_s)
                self._stats.reconnects += 1
        finally:
            if left is not None:
                left.cancel()
                await asyncio.wait((left,))
            self.drop("the broker is closed")

    async def ended(self) -> None:
        """Return when the sockets of a finished ``run`` are closed."""
        if self._open:
            await asyncio.wait([side.ended for side in self._open])

    def drop(self, why: str) -> None:
        """End both connections now. Idempotent."""
        for side in (self._command_side, self._subscriber_side):
            if side is not None:
                side.abort(why)
                self._lost(side, why)

    async def _find(self) -> Address:
        """Where the master is now. Never one side here and the other there."""
        address = await self._place.find()
        if address != self.address:
            self.drop(f"the master is at {address} now")
            self.address = address
        return address

    async def _until_left(self, address: Address) -> None:
        """Ends when the master is elsewhere; then it is looked for at once."""
        self.drop(await self._place.left(address))
        self._backoff_s = self._options.backoff_min_s

    # Building

    async def _establish(self, address: Address) -> None:
        if self._command_side is None:
            side = await self._connect(address, "commands")
            try:
                await self._examine(side, address)
            except BaseException:
                side.abort("refused")
                raise
            self._command_side = side
            self._users.attach(side)
        if self._subscriber_side is None:
            self._subscriber_side = side = await self._connect(address, "subscriber")
            try:
                channels = await self._subscriber.attach(side)
            except Unavailable as error:
                side.abort(str(error))
                self._lost(side, str(error))
                raise
            if channels:
                self._sink.resubscribed(channels)
        if not await self._probe():
            if self._broken.done():
                raise Unavailable(self._broken.result())
            self.drop("the probe did not come back")
            raise Unavailable(self._unfit or f"Redis at {address} answers, but nothing published comes back")

    async def _connect(self, address: Address, role: str) -> Connection:
        side = await connect(
            address,
            password=password_of(address, self._options.password_file),
            name=f"{self._name}:{role}",
            stats=self._stats,
            on_lost=self._lost,
            timeout_s=self._options.connect_timeout_s,
        )
        self._open.add(side)
        side.ended.add_done_callback(lambda _ended: self._open.discard(side))
        return side

    async def _examine(self, side: Connection, address: Address) -> None:
        """Raise :class:`Unavailable` for a server that cannot be used, warn once of what should be changed."""
        timeout_s = self._options.connect_timeout_s
        info = parse_info(await side.call("INFO", *SECTIONS, timeout_s=timeout_s))
        refusal, warnings = examine(info, clustered=self._clustered)
        if refusal:
            self.drop(refusal)
            raise Unavailable(f"Redis at {address} {refusal}")
        if address.password is None and self._options.password_file is None and address.path is None:
            warnings.append("is used without a password: create the user of broker/redis/acl.py")
        for warning in warnings:
            if warning not in self._warned:
                self._warned.add(warning)
                logger.warning("Redis at %s %s", address, warning)
        for script in self._scripts:
            await side.call("SCRIPT", "LOAD", script.source, timeout_s=timeout_s)
        self._stats.servers[str(address)] = health(info)

    # Watching

    async def _watch(self) -> str:
        """Probe in time; return why it is over."""
        loop = asyncio.get_running_loop()
        next_s = loop.time()
        looked_s = next_s
        misses = 0
        while True:
            # never later than promised, and not all nodes together
            next_s += self._options.heartbeat_s * random.uniform(0.9, 1)
            await asyncio.wait((self._broken,), timeout=max(0, next_s - loop.time()))
            if not self._broken.done() and await self._probe():
                misses = 0
                self._backoff_s = self._options.backoff_min_s
                if loop.time() - looked_s >= LOOK_EVERY_S:
                    looked_s = loop.time()
                    await self._look()
                continue
            if self._broken.done():
                return self._broken.result()
            misses += 1
            if misses == MISSES:
                self.drop(f"the probe did not come back {misses} times")
                deaf = f"Redis at {self.address} is deaf or frozen: the probe did not come back {misses} times"
                return self._unfit or deaf

    async def _look(self) -> None:
        """How the server is, for operators. Whether it answers at all is the probe's business."""
        side = self._command_side
        if side is not None:
            with contextlib.suppress(Unavailable, OutcomeUnknown):
                info = await side.call("INFO", *SECTIONS, timeout_s=self._options.heartbeat_s / 2)
                if side is self._command_side:
                    self._stats.servers[str(self.address)] = health(parse_info(info))

    async def _probe(self) -> bool:
        """Whether a nonce came back in time. A write refused for other reasons than a lost mastership (out of memory)
        is no reason to connect again: the message still comes back."""
        nonce = secrets.token_hex(8).encode()
        sent_s = time.monotonic()
        probe = self._subscriber.expect_probe(nonce)
        self._unfit = ""
        try:
            async with asyncio.timeout(self._options.heartbeat_s / 2):
                await probe.wait(await self._users.heartbeat(nonce))
        except Unavailable as error:
            self._unfit = f"Redis at {self.address} should not be the master: {error}"
            self._stats.probes_missed += 1
            return False
        except (TimeoutError, OutcomeUnknown, ConnectionLost):
            self._stats.probes_missed += 1
            return False
        self._users.probed(sent_s, time.monotonic())
        return True

    def _lost(self, side: Connection, why: str) -> None:
        if side is self._command_side:
            self._command_side = None
            self._stats.servers.pop(str(self.address), None)
            self._users.detach(why)
        elif side is self._subscriber_side:
            self._subscriber_side = None
            self._subscriber.detach(why)
        else:
            return
        if not self._broken.done():
            self._broken.set_result(f"the connection to Redis at {self.address} is lost: {why}")

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
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from broker.base import OutcomeUnknown, Sink, Unavailable
from broker.options import BrokerOptions
from broker.redis.address import Address
from broker.redis.checks import SECTIONS, examine, health, parse_info
from broker.redis.commands import Commands
from broker.redis.connection import Connection, connect
from broker.redis.errors import ConnectionLost
from broker.redis.publisher import Publisher
from broker.redis.scripts import Script
from broker.redis.subscriber import Subscriber
from broker.stats import BrokerStats

logger = logging.getLogger("broker.redis")

MISSES = 2
LOOK_EVERY_S = 10.0


class Link:
    """``run`` is one supervised loop; ``heartbeat(nonce)`` runs a writing script that publishes the probe.

    Each side is built again when it is lost; both are when the probe says so or the server is no master any more.
    """

    def __init__(
        self,
        address: Address,
        name: str,
        *,
        commands: Commands,
        publisher: Publisher,
        subscriber: Subscriber,
        scripts: Sequence[Script],
        heartbeat: Callable[[bytes], Awaitable[None]],
        options: BrokerOptions,
        stats: BrokerStats,
    ) -> None:
        self.reason = "not started"
        self.ready = asyncio.Event()
        self._address = address
        self._name = name
        self._commands = commands
        self._publisher = publisher
        self._subscriber = subscriber
        self._scripts = scripts
        self._heartbeat = heartbeat
        self._options = options
        self._stats = stats
        self._sink: Sink
        self._interrupted = False
        self._command_side: Connection | None = None
        self._subscriber_side: Connection | None = None
        self._open: set[Connection] = set()
        self._broken: asyncio.Future[str]
        self._backoff_s = options.backoff_min_s
        self._warned: set[str] = set()

    async def run(self, sink: Sink) -> None:
        """Connect, watch, connect again, for ever. Cancelled to end it; then both sides are closed."""
        self._sink = sink
        try:
            while True:
                self._broken = asyncio.get_running_loop().create_future()
                try:
                    await self._establish()
                except (Unavailable, OutcomeUnknown) as error:
                    self._interrupt(str(error))
                else:
                    self._restore()
                    self._interrupt(await self._watch())
                await asyncio.sleep(self._backoff_s * random.uniform(0.5, 1))
                self._backoff_s = min(2 * self._backoff_s, self._options.backoff_max_s)
                self._stats.reconnects += 1
        finally:
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

    # Building

    async def _establish(self) -> None:
        if self._command_side is None:
            side = await self._connect("commands")
            try:
                await self._examine(side)
            except BaseException:
                side.abort("refused")
                raise
            self._command_side = side
            self._commands.attach(side)
            self._publisher.attach(side)
        if self._subscriber_side is None:
            self._subscriber_side = side = await self._connect("subscriber")
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
            raise Unavailable(f"Redis at {self._address} answers, but nothing published comes back")

    async def _connect(self, role: str) -> Connection:
        side = await connect(
            self._address,
            password=self._password(),
            name=f"{self._name}:{role}",
            stats=self._stats,
            on_lost=self._lost,
            timeout_s=self._options.connect_timeout_s,
        )
        self._open.add(side)
        side.ended.add_done_callback(lambda _ended: self._open.discard(side))
        return side

    def _password(self) -> str | None:
        if self._options.password_file is None:
            return self._address.password
        try:
            return Path(self._options.password_file).read_text().strip()
        except OSError as error:
            raise Unavailable(f"cannot read the password of Redis: {error}") from error

    async def _examine(self, side: Connection) -> None:
        """Raise :class:`Unavailable` for a server that cannot be used, warn once of what should be changed."""
        timeout_s = self._options.connect_timeout_s
        info = parse_info(await side.call("INFO", *SECTIONS, timeout_s=timeout_s))
        refusal, warnings = examine(info)
        if refusal:
            self.drop(refusal)
            raise Unavailable(f"Redis at {self._address} {refusal}")
        if self._address.password is None and self._options.password_file is None and self._address.path is None:
            warnings.append("is used without a password: create the user of broker/redis/acl.py")
        for warning in warnings:
            if warning not in self._warned:
                self._warned.add(warning)
                logger.warning("Redis at %s %s", self._address, warning)
        for script in self._scripts:
            await side.call("SCRIPT", "LOAD", script.source, timeout_s=timeout_s)
        self._stats.servers[str(self._address)] = health(info)

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
                return f"Redis at {self._address} is deaf or frozen: the probe did not come back {misses} times"

    async def _look(self) -> None:
        """How the server is, for operators. Whether it answers at all is the probe's business."""
        side = self._command_side
        if side is not None:
            with contextlib.suppress(Unavailable, OutcomeUnknown):
                info = await side.call("INFO", *SECTIONS, timeout_s=self._options.heartbeat_s / 2)
                if side is self._command_side:
                    self._stats.servers[str(self._address)] = health(parse_info(info))

    async def _probe(self) -> bool:
        """Whether a nonce came back in time. A write refused for other reasons than demotion (out of memory) is no
        reason to connect again: the message still comes back."""
        nonce = secrets.token_hex(8).encode()
        sent_s = time.monotonic()
        returned = self._subscriber.expect_probe(nonce)
        try:
            async with asyncio.timeout(self._options.heartbeat_s / 2):
                try:
                    await self._heartbeat(nonce)
                except Unavailable as error:
                    logger.warning("Redis at %s refuses the heartbeat: %s", self._address, error)
                await returned
        except (TimeoutError, OutcomeUnknown, ConnectionLost):
            self._stats.probes_missed += 1
            return False
        self._stats.probe_confirmed_at_s = time.monotonic()
        self._stats.probe_rtt_s = self._stats.probe_confirmed_at_s - sent_s
        return True

    def _lost(self, side: Connection, why: str) -> None:
        if side is self._command_side:
            self._command_side = None
            self._stats.servers.pop(str(self._address), None)
            self._commands.detach(why)
            self._publisher.detach(why)
        elif side is self._subscriber_side:
            self._subscriber_side = None
            self._subscriber.detach(why)
        else:
            return
        if not self._broken.done():
            self._broken.set_result(f"the connection to Redis at {self._address} is lost: {why}")

    # Telling

    def _interrupt(self, reason: str) -> None:
        self.reason = reason
        self.ready.clear()
        if not self._interrupted:
            self._interrupted = True
            self._stats.interruptions += 1
            logger.warning("interrupted: %s", reason)
            self._sink.interrupted(reason)

    def _restore(self) -> None:
        self.reason = ""
        self.ready.set()
        if self._interrupted:
            self._interrupted = False
            logger.info("restored: connected to Redis at %s", self._address)
            self._sink.restored()

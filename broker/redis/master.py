"""One master: its commands, its subscriber, the link that keeps both, and the shards that it serves."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from broker.base import Sink, Unavailable
from broker.options import BrokerOptions
from broker.redis.commands import Commands
from broker.redis.connection import Connection
from broker.redis.errors import UNFIT, Elsewhere, first_word
from broker.redis.health import Health
from broker.redis.keys import Keys
from broker.redis.link import MISSES, Link
from broker.redis.place import Place
from broker.redis.scripts import Script
from broker.redis.shard import Shard
from broker.redis.subscriber import Subscriber
from broker.stats import BrokerStats

logger = logging.getLogger("broker.redis")


class Master:
    """``on_moved(why)`` is called when something may be on another master now: because this one says so, or is away."""

    def __init__(
        self,
        place: Place,
        name: str,
        keys: Keys,
        sink: Sink,
        *,
        clustered: bool,
        health: Health,
        scripts: Sequence[Script],
        options: BrokerOptions,
        stats: BrokerStats,
        on_moved: Callable[[str], None],
    ) -> None:
        self.shards: dict[int, Shard] = {}
        self.commands = Commands(options, stats, self.drop)
        self.subscriber = Subscriber(keys, sink, options, stats, on_moved)
        self._health = health
        self._on_moved = on_moved
        self._reason = "not connected yet"
        self._broken: str | None = None
        """Why it is not linked, after it has failed once; None while it is, or is being linked for the first time."""
        self._linked = False
        self._link = Link(
            place,
            name,
            clustered=clustered,
            users=self,
            subscriber=self.subscriber,
            sink=sink,
            scripts=scripts,
            options=options,
            stats=stats,
        )

    async def run(self) -> None:
        await self._link.run()

    async def ended(self) -> None:
        """Return when the sockets of a finished ``run`` are closed."""
        await self._link.ended()

    def drop(self, why: str) -> None:
        """Build both connections again."""
        self._link.drop(why)

    def doubt(self, shard: int) -> None:
        self.subscriber.doubt(shard)

    # Shards

    def take(self, shard: Shard) -> None:
        """Serve one more. If this master is known to be away the shard is down."""
        self.shards[shard.number] = shard
        shard.master = self
        shard.refused = 0
        self.subscriber.take(shard.wanted)
        if self.commands.connection is not None:
            shard.publisher.attach(self.commands.connection)
        else:
            shard.publisher.detach(self._reason)
        if self._linked:
            self._health.restore((shard.number,), str(self._link.address))
        elif self._broken is not None:
            self._health.interrupt((shard.number,), self._broken)

    def give_up(self, shard: Shard) -> None:
        """Another master serves it from now on."""
        del self.shards[shard.number]
        shard.master = None
        shard.publisher.detach("it has moved to another master")
        self.subscriber.give_up(shard.wanted)

    # For the link

    def attach(self, connection: Connection) -> None:
        self.commands.attach(connection)
        for shard in self.shards.values():
            shard.publisher.attach(connection)

    def detach(self, reason: str) -> None:
        self._reason = reason
        self.commands.detach(reason)
        for shard in self.shards.values():
            shard.publisher.detach(reason)

    def interrupted(self, reason: str) -> None:
        self._linked = False
        self._broken = reason
        self._health.interrupt(self.shards, reason)
        self._on_moved(reason)

    def restored(self) -> None:
        self._linked = True
        self._broken = None
        self._health.restore([n for n, shard in self.shards.items() if not shard.refused], str(self._link.address))

    def probed(self, sent_s: float, now_s: float) -> None:
        self._health.probed(self, sent_s, now_s)

    async def heartbeat(self, nonce: bytes) -> set[int]:
        """Renew the leases of this node in all shards here; the shards in which the probe is to come back. Raises
        :class:`OutcomeUnknown`, and :class:`Unavailable` if this master should not be one."""
        shards = list(self.shards.values())
        results = await asyncio.gather(*(shard.presence.heartbeat(nonce) for shard in shards), return_exceptions=True)
        expected: set[int] = set()
        refusals: set[str] = set()
        for shard, result in zip(shards, results, strict=True):
            if isinstance(result, Elsewhere):
                self._refused(shard, result)
                continue
            if isinstance(result, Unavailable):
                if result.__cause__ is not None and first_word(result.__cause__) in UNFIT:
                    raise result
                refusals.add(str(result))
            elif isinstance(result, BaseException):
                raise result
            expected.add(shard.number)
            self._heard(shard)
        for refusal in refusals:
            logger.warning("Redis at %s refuses the heartbeat: %s", self._link.address, refusal)
        return expected & self.shards.keys()

    def _refused(self, shard: Shard, error: Unavailable) -> None:
        shard.refused += 1
        self._on_moved(str(error))
        if shard.refused == MISSES and shard.master is self:
            self._health.interrupt((shard.number,), str(error))

    def _heard(self, shard: Shard) -> None:
        """A shard that was down for itself, while the master was not, is up again; or for the first time, if its first
        heartbeat was refused."""
        shard.refused = 0
        if self._linked and shard.master is self and not self._health.is_up(shard.number):
            self._health.restore((shard.number,), str(self._link.address))

"""One shard as a node sees it: its waiting publishes, its channels, its part of presence, and the master it is on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol, TypeVar

from broker.base import OutcomeUnknown, Unavailable
from broker.options import BrokerOptions
from broker.redis.backlog import Backlog
from broker.redis.commands import Commands
from broker.redis.connection import Argument, Reply
from broker.redis.errors import Elsewhere
from broker.redis.health import Health
from broker.redis.keys import Keys
from broker.redis.presence import RedisPresenceStore
from broker.redis.publisher import Publisher
from broker.redis.scripts import Script
from broker.redis.wanted import Wanted
from broker.reporter import PresenceReporter
from broker.stats import BrokerStats

T = TypeVar("T")

AGAIN_S = 0.02
"""Between two tries of a read while its keys are on their way to another master."""


class ShardMaster(Protocol):
    """What a shard needs of its master (:class:`broker.redis.master.Master`)."""

    commands: Commands

    def drop(self, why: str) -> None: ...
    def doubt(self, shard: int) -> None: ...


class Shard:
    """``on_moved`` is called when its master says that it is not, or soon not, the shard's master."""

    def __init__(
        self,
        number: int,
        keys: Keys,
        backlog: Backlog,
        *,
        node_id: str,
        health: Health,
        scripts: dict[str, Script],
        options: BrokerOptions,
        stats: BrokerStats,
        on_moved: Callable[[str], None],
    ) -> None:
        self.number = number
        self.master: ShardMaster | None = None
        self.refused = 0
        """Heartbeats in a row that could not be said because the keys are elsewhere."""
        self._guard = keys.guard(number)
        self._health = health
        self._options = options
        self._on_moved = on_moved
        self._closed = False
        self.wanted = Wanted(keys, number, node_id, options.unavailable_after_s)
        self.publisher = Publisher(keys, number, backlog, options, stats, on_demoted=self._demoted, on_moved=on_moved)
        store = RedisPresenceStore(
            self.run,
            keys,
            node_id=node_id,
            lease_s=options.lease_s,
            grace_s=options.grace_s,
            shard=number,
            scripts=scripts,
        )
        self.presence = PresenceReporter(store, node_id=node_id, options=options, rejoined=self._doubt)
        stats.presence_waits.append(self.presence.waiting_s)

    async def run(self, script: Script, keys: Sequence[Argument], args: Sequence[Argument]) -> Reply:
        """One script, its keys with the guard. Raises :class:`Unavailable` or :class:`OutcomeUnknown`."""
        return await self._commands().run(script, keys, args)

    async def ask(self, script: Script, keys: Sequence[Argument], args: Sequence[Argument]) -> Reply:
        """The same for a script that may as well run twice, tried again while the keys are on their way."""
        return await self.patiently(lambda: self.run(script, [*keys, *self._guard], args))

    async def call(self, *arguments: Argument) -> Reply:
        """The same for a command."""
        return await self.patiently(lambda: self._commands().call(*arguments))

    async def patiently(self, work: Callable[[], Awaitable[T]]) -> T:
        """The result of what may as well be done twice: an unknown outcome is none. Raises :class:`Unavailable`."""
        loop = asyncio.get_running_loop()
        until_s = loop.time() + self._options.unavailable_after_s
        while True:
            if self._closed:
                raise Unavailable("the broker is closed: this node is leaving")
            try:
                return await work()
            except OutcomeUnknown as error:
                raise Unavailable(str(error)) from error
            except Elsewhere as error:
                self._on_moved(str(error))
                if loop.time() > until_s:
                    self._health.interrupt((self.number,), str(error))  # so that ``restored`` follows
                    raise
                await asyncio.sleep(AGAIN_S)

    def _commands(self) -> Commands:
        if self.master is None:
            raise Elsewhere("it is not known yet which master of the Redis cluster has these keys: retry later")
        return self.master.commands

    async def close(self) -> None:
        """Leave; what is in flight is still answered."""
        self._closed = True
        await self.presence.close()
        self.publisher.close()
        self.wanted.close()
        await self.publisher.idle()

    def _demoted(self, why: str) -> None:
        if self.master is not None:
            self.master.drop(why)

    def _doubt(self) -> None:
        if self.master is not None:
            self.master.doubt(self.number)

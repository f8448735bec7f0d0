"""The command side: whoever wants something from Redis asks here and is told within a bound what became of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import hiredis

from broker.base import Unavailable
from broker.options import BrokerOptions
from broker.redis.connection import Argument, Connection, Reply
from broker.redis.errors import DEMOTED, first_word
from broker.redis.scripts import Script
from broker.stats import BrokerStats


class Commands:
    """Commands and scripts over the current connection; between two connections a call waits a moment for the next."""

    def __init__(self, options: BrokerOptions, stats: BrokerStats, on_demoted: Callable[[str], None]) -> None:
        self.connection: Connection | None = None
        self._options = options
        self._stats = stats
        self._on_demoted = on_demoted
        self._reason = "not started"
        self._attached = asyncio.Event()

    def attach(self, connection: Connection) -> None:
        self.connection = connection
        self._attached.set()

    def detach(self, reason: str) -> None:
        self.connection = None
        self._reason = reason
        self._attached.clear()

    async def call(self, *arguments: Argument) -> Reply:
        """One command. Raises :class:`Unavailable` (not done) or :class:`OutcomeUnknown`."""
        connection = await self._connected()
        return await self._watched(connection, *arguments)

    async def run(self, script: Script, keys: Sequence[Argument], args: Sequence[Argument]) -> Reply:
        """One script, loaded again if Redis forgot it. Raises as ``call``. Scripts that depend on the order of their
        calls have to wait for each other: a script sent again overtakes nothing, but is overtaken."""
        connection = await self._connected()
        command = (b"EVALSHA", script.sha, len(keys), *keys, *args)
        try:
            return await self._watched(connection, *command)
        except Unavailable as error:
            if not _is_noscript(error):
                raise
        self._stats.noscript += 1
        await connection.call("SCRIPT", "LOAD", script.source, timeout_s=self._options.publish_timeout_s)
        return await self._watched(connection, *command)

    async def _watched(self, connection: Connection, *arguments: Argument) -> Reply:
        try:
            return await connection.call(*arguments, timeout_s=self._options.publish_timeout_s)
        except Unavailable as error:
            if error.__cause__ is not None and first_word(error.__cause__) in DEMOTED:
                self._on_demoted(str(error))
            raise

    async def _connected(self) -> Connection:
        if self.connection is None:
            try:
                async with asyncio.timeout(self._options.unavailable_after_s):
                    await self._attached.wait()
            except TimeoutError:
                pass
        if self.connection is None:
            raise Unavailable(f"Redis is away ({self._reason}): retry later")
        return self.connection


def _is_noscript(error: Unavailable) -> bool:
    return isinstance(error.__cause__, hiredis.ReplyError) and first_word(error.__cause__) == "NOSCRIPT"

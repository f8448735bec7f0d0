"""The master that sentinels watch: who it is now, and when it is another one."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from broker.base import OutcomeUnknown, Unavailable
from broker.options import BrokerOptions
from broker.redis.address import Address
from broker.redis.connection import connect
from broker.redis.place import ask_around
from broker.stats import BrokerStats

LINGER_S = 0.2
"""A sentinel that answers later than this after the first one is not waited for."""


class Sentinels:
    """A :class:`broker.redis.place.Place`. They are all asked, each time on connections of their own, and the latest
    configuration counts: one that was cut off knows only of an older one."""

    def __init__(self, seeds: list[Address], master: str, server: Address, options: BrokerOptions, name: str) -> None:
        self._seeds = seeds
        self._master = master
        self._server = server
        self._options = options
        self._name = name
        self._stats = BrokerStats()  # of no interest: these are not the connections that count
        self._epoch = -1
        self._last: Address | None = None

    async def find(self) -> Address:
        """While no sentinel answers, where it was."""
        try:
            self._epoch, self._last = await self._ask()
        except Unavailable:
            if self._last is None:
                raise
        return self._last

    async def left(self, address: Address) -> str:
        """Sentinels that are away, or that know only of older configurations, are no reason to leave a good master."""
        while True:
            await asyncio.sleep(min(1.0, self._options.heartbeat_s / 2))
            try:
                epoch, now = await self._ask()
            except Unavailable:
                continue
            if now != address and epoch > self._epoch:
                return f"the sentinels have promoted {now} in the place of {address}"

    async def _ask(self) -> tuple[int, Address]:
        try:
            answers = await ask_around([self._ask_one(seed) for seed in self._seeds], LINGER_S)
        except Unavailable as error:
            raise Unavailable(f"no sentinel tells where {self._master!r} is: {error}") from error
        epoch, host, port = max(answers)
        return epoch, replace(self._server, host=host, port=port)

    async def _ask_one(self, seed: Address) -> tuple[int, str, int]:
        timeout_s = self._options.connect_timeout_s
        side = await connect(
            seed,
            password=seed.password,
            name=f"{self._name}:sentinel",
            stats=self._stats,
            on_lost=lambda _side, _why: None,
            timeout_s=timeout_s,
        )
        try:
            reply = await side.call("SENTINEL", "MASTER", self._master, timeout_s=timeout_s)
        except OutcomeUnknown as error:
            raise Unavailable(f"the sentinel at {seed} does not answer as one: {error}") from error
        finally:
            side.abort("answered")
            await asyncio.wait((side.ended,))
        fields = dict(zip(reply[::2], reply[1::2], strict=True))
        return int(fields[b"config-epoch"]), fields[b"ip"].decode(), int(fields[b"port"])

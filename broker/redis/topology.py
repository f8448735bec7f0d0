"""The masters of a cluster and who of them serves which shard, kept up to date.

Every master has a link of its own, so that one that is away delays nobody else. Who has which slot is asked of all that
are linked, regularly, and at once when a master says that something is elsewhere or is itself away; what has moved
changes its master and nothing else.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

from broker.base import OutcomeUnknown, Unavailable
from broker.options import BrokerOptions
from broker.redis.address import Address
from broker.redis.connection import Connection, connect
from broker.redis.health import Health
from broker.redis.master import Master
from broker.redis.password import password_of
from broker.redis.place import Fixed, Place, ask_around
from broker.redis.shard import Shard
from broker.redis.slots import Server, owners, parse_nodes
from broker.stats import BrokerStats
from broker.supervise import supervise

logger = logging.getLogger("broker.redis")

LINGER_S = 0.1
"""A server that answers later than this after the first one is not waited for."""
PAUSE_S = 0.05
"""Between two looks at least."""


class _Linked(NamedTuple):
    master: Master
    task: asyncio.Task[None]


class Topology:
    """``make_master`` gives a master at a place, not running yet."""

    def __init__(
        self,
        seeds: Sequence[Address],
        shards: Sequence[Shard],
        slots: Sequence[int],
        *,
        name: str,
        make_master: Callable[[Place], Master],
        health: Health,
        options: BrokerOptions,
        stats: BrokerStats,
    ) -> None:
        self._seeds = list(seeds)
        self._shards = shards
        self._slots = slots
        self._name = name
        self._make_master = make_master
        self._health = health
        self._options = options
        self._stats = stats
        self._masters: dict[Address, _Linked] = {}
        self._retired: list[_Linked] = []
        self._known: list[Address] = []
        self._look = asyncio.Event()

    @property
    def masters(self) -> list[Master]:
        return [linked.master for linked in self._masters.values()]

    def look_soon(self, why: str) -> None:
        """Something may have moved."""
        if not self._look.is_set():
            logger.debug("looking who has which slot: %s", why)
            self._look.set()

    async def run(self) -> None:
        """Look, act, wait, for ever. The links go on when this is cancelled, until ``ended``."""
        while True:
            self._look.clear()
            try:
                self._apply(await self._ask())
            except Unavailable as error:
                if not self._masters:
                    self._health.interrupt(
                        range(len(self._shards)), f"no server of the cluster tells its slots: {error}"
                    )
            await asyncio.sleep(PAUSE_S)
            try:
                async with asyncio.timeout(self._options.heartbeat_s):
                    await self._look.wait()
            except TimeoutError:
                pass

    async def ended(self) -> None:
        """End all links; return when their sockets are closed."""
        linked = [*self._masters.values(), *self._retired]
        self._masters.clear()
        self._retired.clear()
        for _, task in linked:
            task.cancel()
        if linked:
            await asyncio.wait([task for _, task in linked])
        for master, _ in linked:
            await master.ended()

    # Looking

    async def _ask(self) -> list[Server | None]:
        """Who has each slot. Raises :class:`Unavailable` if nobody tells."""
        linked = [
            (address, connection)
            for address, (master, _) in self._masters.items()
            if (connection := master.commands.connection) is not None
        ]
        try:
            views = await ask_around([self._ask_linked(*each) for each in linked], LINGER_S)
        except Unavailable:
            unlinked = dict.fromkeys([*self._seeds, *self._known])
            views = await ask_around([self._ask_new(address) for address in unlinked], LINGER_S)
        self._known = [self._address(server) for server in dict.fromkeys(server for view in views for server in view)]
        return owners(self._slots, views)

    async def _ask_linked(self, address: Address, connection: Connection) -> list[Server]:
        try:
            text = await connection.call("CLUSTER", "NODES", timeout_s=self._options.connect_timeout_s)
        except OutcomeUnknown as error:
            raise Unavailable(str(error)) from error
        return parse_nodes(text.decode(), address.host)

    async def _ask_new(self, address: Address) -> list[Server]:
        side = await connect(
            address,
            password=password_of(address, self._options.password_file),
            name=f"{self._name}:slots",
            stats=self._stats,
            on_lost=lambda _side, _why: None,
            timeout_s=self._options.connect_timeout_s,
        )
        try:
            return await self._ask_linked(address, side)
        finally:
            side.abort("answered")
            await asyncio.wait((side.ended,))

    def _address(self, server: Server) -> Address:
        """Certificates are for names, so with TLS the announced one counts."""
        seed = self._seeds[0]
        host = server.name if server.name and seed.tls is not None else server.host
        return replace(seed, host=host, port=server.port)

    # Acting

    def _apply(self, found: list[Server | None]) -> None:
        for shard, server in zip(self._shards, found, strict=True):
            old = shard.master
            if server is None:
                if old is None:
                    self._health.interrupt(
                        (shard.number,), f"no master of the cluster has slot {self._slots[shard.number]}"
                    )
                continue
            master = self._master(self._address(server))
            if master is old:
                continue
            if isinstance(old, Master):
                old.give_up(shard)
            master.take(shard)
        for address, linked in list(self._masters.items()):
            linked.master.subscriber.reconcile()
            if not linked.master.shards:
                del self._masters[address]
                self._retire(address, linked)

    def _master(self, address: Address) -> Master:
        linked = self._masters.get(address)
        if linked is None:
            logger.info("a master of the cluster is at %s", address)
            master = self._make_master(Fixed(address))
            work = supervise(f"the link to Redis at {address}", master.run, self._stats)
            linked = _Linked(master, asyncio.create_task(work, name=f"broker link {address}"))
            self._masters[address] = linked
        return linked.master

    def _retire(self, address: Address, linked: _Linked) -> None:
        logger.info("the master at %s serves nothing any more", address)
        self._health.forget(linked.master)
        linked.task.cancel()
        self._retired = [each for each in self._retired if not each.task.done()]
        self._retired.append(linked)

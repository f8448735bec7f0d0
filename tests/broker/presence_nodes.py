"""Nodes that consist of presence alone: the real reporter over a store, heartbeats, an observer of what goes out."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from itertools import count
from typing import Any

from broker.base import BrokerError, Change, Probe, Unavailable
from broker.envelope import decode
from broker.memory_presence import MemoryPresenceStore, PresenceTable
from broker.options import BrokerOptions
from broker.presence import PresenceStore
from broker.redis.address import parse_address
from broker.redis.commands import Commands
from broker.redis.connection import Argument, Connection, connect
from broker.redis.keys import Keys
from broker.redis.presence import RedisPresenceStore
from broker.redis.scripts import Script
from broker.reporter import PresenceReporter
from broker.stats import BrokerStats
from tests.support.redis_server import RedisServer

OPTIONS = BrokerOptions(heartbeat_s=0.1, lease_s=0.4, grace_s=0.25, publish_timeout_s=0.1, unavailable_after_s=0.1)
QUIET_S = OPTIONS.lease_s + 3 * OPTIONS.heartbeat_s + OPTIONS.grace_s


class Observer:
    """What went out, in order, and a way to wait for it."""

    def __init__(self) -> None:
        self.changes: list[tuple[str, Change]] = []
        self.probes: list[bytes] = []
        self._more = asyncio.Event()

    def take(self, channel: str, item: Any) -> None:
        if isinstance(item, Probe):
            self.probes.append(item.nonce)
        else:
            self.changes.append((channel, item))
        self._more.set()

    def told(self, channel: str = "presence") -> list[tuple[str, bool]]:
        """(user, online) in order."""
        return [(change.user, change.online) for name, change in self.changes if name == channel]

    async def wait_for(self, predicate: Callable[[], object], timeout_s: float = 10.0) -> None:
        async with asyncio.timeout(timeout_s):
            while not predicate():
                self._more.clear()
                await self._more.wait()

    async def wait_told(self, *told: tuple[str, bool], channel: str = "presence") -> None:
        """Wait for so many changes; they are to be exactly these."""
        await self.wait_for(lambda: len(self.told(channel)) >= len(told))
        assert self.told(channel) == list(told)


class Node:
    """One node. ``freeze`` keeps its heartbeats, and what it would send, from being sent; ``kill`` ends it wordless."""

    def __init__(self, name: str, store: PresenceStore, options: BrokerOptions = OPTIONS) -> None:
        self.rejoins = 0
        self.options = options
        self.reporter = PresenceReporter(store, node_id=name, options=options, rejoined=self._count_rejoin)
        self.beats = 0
        self._alive = asyncio.Event()
        self._alive.set()
        self._beat = asyncio.Event()
        self._task = asyncio.create_task(self._run())

    def _count_rejoin(self) -> None:
        self.rejoins += 1

    async def _run(self) -> None:
        for number in count(1):
            await self._alive.wait()
            with suppress(BrokerError, TimeoutError):
                async with asyncio.timeout(self.options.heartbeat_s):
                    await self.reporter.heartbeat(b"%d" % number)
                self.beats += 1
                self._beat.set()
            await asyncio.sleep(self.options.heartbeat_s * random.uniform(0.9, 1))

    async def wait_beats(self, more: int = 1) -> None:
        """Wait for so many heartbeats that are answered."""
        target = self.beats + more
        while self.beats < target:
            self._beat.clear()
            await self._beat.wait()

    def freeze(self) -> None:
        self._alive.clear()

    def thaw(self) -> None:
        self._alive.set()

    async def kill(self) -> None:
        self._task.cancel()
        self.reporter._closed = True  # as the end of the process would
        for task in (self._task, self.reporter._flusher, self.reporter._sweeper):
            if task is not None:
                task.cancel()
                await asyncio.wait([task])

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])
        await self.reporter.close()


class Wire:
    """A connection of a node to Redis that comes back by itself."""

    def __init__(self, url: str, options: BrokerOptions = OPTIONS) -> None:
        self.stats = BrokerStats()
        self.commands = Commands(options, self.stats, lambda why: None)
        self._url = url
        self._side: Connection | None = None
        self._task = asyncio.create_task(self._run())

    async def run(self, script: Script, keys: Sequence[str], args: Sequence[Argument]) -> Any:
        return await self.commands.run(script, keys, args)

    async def _run(self) -> None:
        address = parse_address(self._url)
        while True:
            self._lost = asyncio.Event()
            try:
                self._side = await connect(
                    address, password=None, name="node", stats=self.stats, on_lost=self._on_lost, timeout_s=1
                )
            except BrokerError:
                await asyncio.sleep(0.02)
                continue
            self.commands.attach(self._side)
            await self._lost.wait()

    def _on_lost(self, _side: Connection, why: str) -> None:
        self.commands.detach(why)
        self._lost.set()

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])
        if self._side is not None:
            await _end(self._side)


async def _end(side: Connection) -> None:
    side.abort("closed")
    await asyncio.wait([side.ended])


class Backend:
    """What the nodes of one test share."""

    def __init__(self, server: RedisServer | None, prefix: str, options: BrokerOptions = OPTIONS) -> None:
        self.server = server
        self.keys = Keys(prefix)
        self.options = options
        self.observer = Observer()
        self.away = False
        self.wires: list[Wire] = []
        self._stack = AsyncExitStack()

    def _check(self) -> None:
        if self.away:
            raise Unavailable("the table is away")

    @asynccontextmanager
    async def nodes(self, *names: str, url: str | None = None) -> AsyncIterator[list[Node]]:
        """Nodes that have joined. ``url``: another way to the same server, for them."""
        async with self._stack:
            if self.server is None:
                self.table = PresenceTable(asyncio.get_running_loop().time, self.observer.take)
            else:
                await self._observe(self.server)
            nodes = [await self.node(name, url) for name in names]
            yield nodes

    async def node(self, name: str, url: str | None = None) -> Node:
        node = Node(name, await self.store(name, url), self.options)
        self._stack.push_async_callback(node.close)
        await node.wait_beats()
        return node

    async def store(self, name: str, url: str | None = None) -> PresenceStore:
        options = self.options
        if self.server is None:
            return MemoryPresenceStore(self.table, self._check, lease_s=options.lease_s, grace_s=options.grace_s)
        wire = Wire(url or self.server.url, options)
        self.wires.append(wire)
        self._stack.push_async_callback(wire.close)
        return RedisPresenceStore(wire.run, self.keys, node_id=name, lease_s=options.lease_s, grace_s=options.grace_s)

    async def _observe(self, server: RedisServer) -> None:
        side = await connect(
            parse_address(server.url),
            password=None,
            name="observer",
            stats=BrokerStats(),
            on_lost=lambda _side, _why: None,
            timeout_s=1,
        )
        confirmed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        start = f"{self.keys.prefix}:{{0}}:"

        def on_push(pushes: list[Any]) -> None:
            for push in pushes:
                if push[0] == b"psubscribe":
                    confirmed.set_result(None)
                else:
                    self.observer.take(push[2].decode().removeprefix(start), decode(push[3]))

        side.on_push = on_push
        side.write(("PSUBSCRIBE", f"{start}*"))
        await confirmed
        self._stack.push_async_callback(_end, side)

    async def lose_all_data(self) -> None:
        if self.server is None:
            self.table.clear()
        else:
            self.server.command("FLUSHALL")

    async def left_over(self) -> set[str]:
        """What the store holds beside members and its clock."""
        if self.server is None:
            shares = {name for name, share in self.table.shares.items() if share.counts}
            return {str(each) for each in (*self.table.scopes, *self.table.grace, *self.table.dead, *shares)}
        start = f"{self.keys.prefix}:{{0}}:presence:"
        keys = {key.decode().removeprefix(start) for key in self.server.command("KEYS", f"{start}*")}
        shares = {key for key in keys if key.startswith("n:") and self.server.command("HLEN", start + key) == 1}
        return keys - shares - {"meta", "nodes"}

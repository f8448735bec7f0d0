"""Nodes for tests: brokers over the one or the other backend, each with a sink that records."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, NamedTuple

from broker.memory import MemoryBroker
from broker.memory_bus import MemoryBus
from broker.options import BrokerOptions
from broker.redis.broker import RedisBroker
from broker.redis.keys import CLUSTER_SHARDS, Keys
from tests.support.redis_cluster import RedisCluster
from tests.support.redis_sentinel import RedisSentinels
from tests.support.redis_server import RedisServer
from tests.support.sinks import RecordingSink


class Node(NamedTuple):
    broker: Any
    """A MemoryBroker or a RedisBroker."""
    sink: RecordingSink


Servers = RedisServer | RedisSentinels | RedisCluster


class Backend:
    """What the nodes of one test share: a bus, or a Redis of any kind and a prefix."""

    def __init__(self, server: Servers | None, prefix: str, credentials: str = "") -> None:
        self.server = server
        self.prefix = prefix
        self.credentials = credentials
        self.bus = MemoryBus.named(f"{prefix}-{uuid.uuid4()}")

    def broker(self, node_id: str, *, prefix: str | None = None, **options: Any) -> Any:
        """Not started yet. A ``prefix`` of its own is another installation."""
        given = BrokerOptions(prefix=prefix or self.prefix, **options)
        if self.server is None:
            return MemoryBroker(node_id=node_id, bus=self.bus if prefix is None else MemoryBus(), options=given)
        if isinstance(self.server, RedisServer):
            url = f"unix://{self.credentials}{self.server.socket}"
        else:
            url = self.server.url_of(self.credentials)
        return RedisBroker(url, node_id=node_id, options=given)

    @asynccontextmanager
    async def nodes(self, *node_ids: str, **options: Any) -> AsyncIterator[list[Node]]:
        """Started and ready; closed at the end."""
        async with AsyncExitStack() as stack:
            yield [await stack.enter_async_context(running(self.broker(name, **options))) for name in node_ids]

    def subscribers(self, channel: str) -> int:
        """How many nodes get the bytes of a room's channel."""
        if self.server is None:
            return self.bus.subscribers(channel)
        if isinstance(self.server, RedisCluster):
            keys = Keys(self.prefix, CLUSTER_SHARDS)
            return self.server.owner(keys.slot(keys.home(channel))).subscribers(keys.channel(channel), sharded=True)
        server = self.server.master if isinstance(self.server, RedisSentinels) else self.server
        return server.subscribers(Keys(self.prefix).channel(channel))

    def command(self, *arguments: Any) -> None:
        """One command on every data server."""
        assert self.server is not None
        servers = [self.server] if isinstance(self.server, RedisServer) else self.server.servers
        for server in servers:
            server.command(*arguments)


@asynccontextmanager
async def running(broker: Any, *, wait_ready: bool = True) -> AsyncIterator[Node]:
    """One broker as a node, from start to close."""
    sink = RecordingSink()
    await broker.start(sink)
    try:
        if wait_ready:
            await sink.in_time(broker.wait_ready())
        yield Node(broker, sink)
    finally:
        await broker.close()

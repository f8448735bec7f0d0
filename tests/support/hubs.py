"""Whole nodes without sockets: a hub on a broker, several of them on one bus."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

from broker.base import Broker
from broker.memory import MemoryBroker
from broker.memory_bus import MemoryBus
from broker.options import BrokerOptions
from server.hub import LocalHub
from server.metrics import Metrics
from server.settings import Settings
from tests.support.node import UNHURRIED

QUICK = BrokerOptions(heartbeat_s=0.2, lease_s=0.8, grace_s=0.3)
"""Time constants scaled down."""


@asynccontextmanager
async def running(broker: Broker, **settings: object) -> AsyncIterator[LocalHub]:
    hub = LocalHub(Settings.model_validate({"dev": True, "linger_s": 0, **UNHURRIED, **settings}), broker, Metrics())
    await hub.start()
    try:
        await broker.wait_ready()
        yield hub
        assert hub.failure is None, hub.failure
    finally:
        await hub.close()


@asynccontextmanager
async def hubs(
    count: int, make: Callable[[int], Broker] | None = None, **settings: object
) -> AsyncIterator[list[LocalHub]]:
    """``count`` nodes; on one memory bus, or on the brokers that ``make(index)`` gives."""
    bus = MemoryBus()
    make = make or (lambda index: MemoryBroker(node_id=f"n{index}", bus=bus, options=QUICK))
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(running(make(index), **settings)) for index in range(count)]

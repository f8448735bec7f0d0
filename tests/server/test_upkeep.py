"""What nodes tell one another of themselves, and whom a node sends away that has more than its share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from broker.memory import MemoryBroker
from broker.memory_bus import MemoryBus
from broker.options import BrokerOptions
from server.hub import LocalHub
from tests.support.connections import RecordingConnection
from tests.support.hubs import hubs
from tests.support.waiting import eventually

HEARTBEAT_S = 0.05


def on(bus: MemoryBus) -> Callable[[int], MemoryBroker]:
    options = BrokerOptions(heartbeat_s=HEARTBEAT_S, lease_s=0.2, grace_s=0.1)
    return lambda index: MemoryBroker(node_id=f"n{index}", bus=bus, options=options)


def told(bus: MemoryBus) -> dict[str, dict[str, Any]]:
    return {node: dict(description) for node, (description, _) in bus.nodes.items() if description}


async def test_a_node_tells_its_figures_says_at_once_that_it_leaves_and_is_forgotten_when_it_has() -> None:
    bus = MemoryBus()
    async with hubs(1, on(bus), heartbeat_s=60, lease_s=200) as (hub,):
        await eventually(lambda: told(bus))
        assert told(bus)["n0"] | {"started": 0, "updated": 0, "version": ""} == {
            "node": "n0",
            "version": "",
            "started": 0,
            "updated": 0,
            "connections": 0,
            "moved": 0,
            "rooms": 0,
            "leaving": False,
        }
        hub.leaving()
        await eventually(lambda: told(bus)["n0"]["leaving"])
    assert told(bus) == {}


def crowded(hub: LocalHub, other: LocalHub, count: int) -> list[RecordingConnection]:
    """Connections that go on at the other node when they are closed, as clients do."""

    class Moving(RecordingConnection):
        def close(self, code: int, reason: str = "") -> None:
            super().close(code, reason)
            self.leave(code)
            RecordingConnection(other)

    return [Moving(hub) for _ in range(count)]


async def test_the_oldest_are_sent_to_the_emptier_node_and_counted() -> None:
    bus = MemoryBus()
    rate = {"heartbeat_s": HEARTBEAT_S, "lease_s": 0.2, "rebalance_per_s": 1000}
    async with hubs(2, on(bus), **rate) as (full, other):
        raw = RecordingConnection(full, path="/raw")
        full.paths.discard(raw)
        full.raw_paths.add("/raw", raw)
        raw.raw = True
        connections = crowded(full, other, 39)
        await eventually(lambda: full.counts.connections == 20)
        await eventually(lambda: told(bus)["n0"]["moved"] == 20)
        await asyncio.sleep(10 * HEARTBEAT_S)
        assert [each.code for each in connections] == [1012] * 20 + [0] * 19
        assert raw.code == 0, "an application's own protocol does not know where to go on"
        for each in connections[:20]:
            assert [event["op"] for event in each.events[-1:]] == ["drain"]
        assert full.counts.rebalanced == 20


async def test_nobody_is_sent_away_unless_it_is_asked_for_nor_while_a_node_leaves() -> None:
    rate = {"heartbeat_s": HEARTBEAT_S, "lease_s": 0.2}
    async with hubs(2, on(MemoryBus()), **rate) as (full, other):
        crowded(full, other, 40)
        await asyncio.sleep(12 * HEARTBEAT_S)
        assert full.counts.rebalanced == 0
    async with hubs(2, on(MemoryBus()), **rate, rebalance_per_s=1000) as (full, other):
        crowded(full, other, 40)
        other.leaving()
        await asyncio.sleep(12 * HEARTBEAT_S)
        assert full.counts.rebalanced == 0
    async with hubs(2, on(MemoryBus()), **rate, rebalance_per_s=1000) as (full, other):
        full.leaving()
        crowded(full, other, 40)
        await asyncio.sleep(12 * HEARTBEAT_S)
        assert full.counts.rebalanced == 0, "the drain has them"


async def test_nobody_is_sent_away_while_the_broker_is_away() -> None:
    bus = MemoryBus()
    rate = {"heartbeat_s": HEARTBEAT_S, "lease_s": 0.2, "rebalance_per_s": 1000}
    async with hubs(2, on(bus), **rate) as (full, other):
        assert isinstance(full.broker, MemoryBroker)
        bus.interrupt(full.broker, "away")
        crowded(full, other, 40)
        await asyncio.sleep(12 * HEARTBEAT_S)
        assert full.counts.rebalanced == 0
        bus.restore(full.broker)
        await eventually(lambda: full.counts.rebalanced == 20)

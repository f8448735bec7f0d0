"""What an operator's page is told by a cluster, and that nobody says anything while nobody watches."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

import orjson
import pytest

from broker.memory import MemoryBroker
from broker.memory_bus import MemoryBus
from server import watching
from server.connection import CONGESTED
from server.hub import LocalHub
from server.payload import SampleSignal, encode_signal
from server.watching import samples_channel
from tests.support.connections import RecordingConnection as Client
from tests.support.hubs import QUICK, hubs, running
from tests.support.waiting import eventually

View = dict[str, Any]


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second lasts a twentieth."""
    for name in ("EVERY_S", "ASK_EVERY_S", "FRESH_S", "COUNT_EVERY_S"):
        monkeypatch.setattr(watching, name, getattr(watching, name) / 20)


class Watcher:
    def __init__(self, hub: LocalHub) -> None:
        self._views: deque[View] = deque()
        self._new = asyncio.Event()
        self.stop = hub.cluster.watching.watch(self._show)

    def _show(self, view: bytes) -> None:
        self._views.append(orjson.loads(view))
        self._new.set()

    async def until(self, wanted: Callable[[View], object]) -> View:
        """The next view that is as wanted."""
        async with asyncio.timeout(30):
            while True:
                while self._views:
                    view = self._views.popleft()
                    if wanted(view):
                        return view
                self._new.clear()
                await self._new.wait()


def nodes(view: View) -> dict[str, View]:
    return {sample["node"]: sample for sample in view["nodes"]}


async def test_a_watcher_at_one_node_sees_both_and_their_numbers_change() -> None:
    async with hubs(2) as (one, two):
        watcher = Watcher(one)
        view = await watcher.until(lambda view: len(view["nodes"]) == 2)
        assert (
            view["here"] == "n0"
            and view["broker"] == ""
            and {each["node"] for each in view["announced"]}
            <= {
                "n0",
                "n1",
            }
        )
        assert nodes(view)["n1"]["connections"] == 0
        clients = [Client(two, "42"), Client(two, "42"), Client(two, '"x"')]
        view = await watcher.until(lambda view: nodes(view).get("n1", {}).get("connections") == 3)
        assert nodes(view)["n1"]["users"] == 2 and nodes(view)["n0"]["connections"] == 0
        await watcher.until(lambda view: view["online"] == 2)
        for client in clients:
            client.leave()
        await watcher.until(lambda view: nodes(view).get("n1", {}).get("connections") == 0)
        watcher.stop()


async def test_when_nobody_watches_any_more_everybody_falls_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "WATCH_S", 1)
    async with hubs(2) as (one, two):
        watchers = [Watcher(one), Watcher(one)]
        for watcher in watchers:
            await watcher.until(lambda view: len(view["nodes"]) == 2)
            watcher.stop()

        def busy() -> set[str]:
            names = {task.get_name() for task in asyncio.all_tasks()}
            return names & {"follow the nodes", "tell operators", "count who is online"}

        bus = one.broker.bus  # type: ignore[attr-defined]
        await eventually(lambda: not busy() and not bus.subscribers(samples_channel("n0")), 10)
        before = two.broker.stats.publishes
        await asyncio.sleep(3 * watching.EVERY_S)
        assert two.broker.stats.publishes == before
        again = Watcher(one)
        await again.until(lambda view: len(view["nodes"]) == 2)
        again.stop()


async def test_a_killed_node_is_not_in_the_views_and_one_that_leaves_says_so() -> None:
    bus = MemoryBus()

    def broker(name: str) -> MemoryBroker:
        return MemoryBroker(node_id=name, bus=bus, options=QUICK)

    async with running(broker("a")) as a:
        watcher = Watcher(a)
        async with running(broker("b")) as b:
            await watcher.until(lambda view: nodes(view).get("b", {}).get("draining") is False)
            b.draining = True
            sample = nodes(await watcher.until(lambda view: nodes(view).get("b", {}).get("draining")))["b"]
            assert sample["ready"] is False and sample["reason"] == "draining"
            assert isinstance(b.broker, MemoryBroker)
            bus.kill(b.broker)
            await watcher.until(lambda view: nodes(view).keys() == {"a"})
        watcher.stop()


async def test_a_node_without_its_broker_shows_itself_and_says_why() -> None:
    async with hubs(2) as (one, _):
        watcher = Watcher(one)
        await watcher.until(lambda view: len(view["nodes"]) == 2)
        broker = one.broker
        assert isinstance(broker, MemoryBroker)
        broker.bus.interrupt(broker, "the plug was pulled")
        view = await watcher.until(
            lambda view: view["broker"] and view["announced"] is None and len(view["nodes"]) == 1
        )
        assert nodes(view)["n0"]["ready"] is False and "plug" in view["broker"]
        broker.bus.restore(broker)
        view = await watcher.until(lambda view: len(view["nodes"]) == 2)
        assert view["broker"] == ""
        watcher.stop()


@pytest.mark.parametrize("sample", [b"", b"[]", b'{"node":"someone-else"}', b'{"node":"x"}, {'])
async def test_what_is_no_sample_is_counted_and_dropped(sample: bytes) -> None:
    async with hubs(1) as (hub,):
        watcher = Watcher(hub)
        await watcher.until(lambda view: view["nodes"])
        await hub.broker.publish(samples_channel("n0"), encode_signal(SampleSignal("x", sample)))
        await eventually(lambda: hub.counts.foreign == 1)
        view = await watcher.until(lambda view: True)
        assert nodes(view).keys() == {"n0"}
        watcher.stop()


async def test_slow_readers_are_named() -> None:
    async with hubs(1) as (hub,):
        client = Client(hub, '"snail"')
        client.held |= CONGESTED
        watcher = Watcher(hub)
        view = await watcher.until(lambda view: nodes(view)["n0"]["slow"] == 1)
        [slowest] = nodes(view)["n0"]["slowest"]
        assert (slowest["user"], slowest["path"]) == ('"snail"', "/ws")
        client.leave()
        await watcher.until(lambda view: nodes(view)["n0"]["slow"] == 0)
        watcher.stop()

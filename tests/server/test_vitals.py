"""The gauges that say how a node is."""

from __future__ import annotations

import time

from server import vitals
from server.hub import LocalHub
from tests.server.test_metrics import samples
from tests.support.connections import RecordingConnection as Client
from tests.support.hubs import hubs
from tests.support.waiting import eventually


def gauges(hub: LocalHub) -> dict[str, float]:
    return {name.removeprefix("roomcast_"): value for name, value in samples(hub.metrics).items()}


async def test_they_say_what_the_node_is() -> None:
    async with hubs(1) as (hub,):
        vitals.watch(hub)
        assert gauges(hub)["ready"] == 1 and gauges(hub)["draining"] == 0
        for user in ("42", "42", '"x"', None):
            Client(hub, user)
        assert gauges(hub)["users"] == 2
        hub.draining = True
        assert gauges(hub)["ready"] == 0 and gauges(hub)["draining"] == 1
        hub.draining = False
        hub.failure = "a task crashed"
        assert gauges(hub)["ready"] == 0
        hub.failure = None


async def test_presence_that_cannot_be_told_or_read_lags() -> None:
    async with hubs(1) as (hub,):
        vitals.watch(hub)
        Client(hub, "1")
        await eventually(lambda: gauges(hub)["presence_lag_seconds"] == 0)
        hub.broker.bus.interrupt(hub.broker, "the plug was pulled")  # type: ignore[attr-defined]
        Client(hub, "2")
        await eventually(lambda: hub.broker.stats.presence_waits[0]() > 0.05)
        assert gauges(hub)["presence_lag_seconds"] > 0.05
        hub.broker.bus.restore(hub.broker)  # type: ignore[attr-defined]
        await eventually(lambda: gauges(hub)["presence_lag_seconds"] == 0)
        # Somebody watches a set that could not be read again: what they see ages, too.
        hub.broker.bus.interrupt(hub.broker, "the plug was pulled again")  # type: ignore[attr-defined]
        hub.presence.verify()
        await eventually(lambda: hub.presence.behind_s() > 0.05)
        hub.broker.bus.restore(hub.broker)  # type: ignore[attr-defined]
        await eventually(lambda: gauges(hub)["presence_lag_seconds"] == 0)


async def test_while_nothing_comes_back_the_lag_is_how_long_nothing_has() -> None:
    async with hubs(1) as (hub,):
        stats = hub.broker.stats
        stats.probe_rtt_s, stats.probe_confirmed_at_s = 0.25, time.monotonic() - 60
        assert vitals.subscriber_lag_s(hub) == 0.25
        hub.broker.bus.interrupt(hub.broker, "the plug was pulled")  # type: ignore[attr-defined]
        assert 60 <= vitals.subscriber_lag_s(hub) < 90

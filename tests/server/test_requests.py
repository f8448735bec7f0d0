"""What the hub answers to requests that are too many or too wrong. The ops themselves: tests/node."""

from __future__ import annotations

from typing import Any

from tests.support.connections import RecordingConnection as Client
from tests.support.hubs import hubs

FEW: dict[str, Any] = {
    "requests_per_s": 1,
    "requests_burst": 5,
    "inbound_bytes_per_s": 1024,
    "inbound_bytes_burst": 4096,
}


async def test_requests_over_the_limit_are_refused_with_their_id_and_then_closed() -> None:
    async with hubs(1, **FEW) as (hub,):
        client = Client(hub, "1")
        await client.until(lambda e: e["op"] == "welcome")
        for id in range(10):
            client.ask(op="ping", id=id)
        assert [e["op"] for e in client.events if e.get("op") == "pong"] == ["pong"] * 5
        refused = [e for e in client.events if e.get("op") == "reply"]
        assert [(e["id"], e["code"]) for e in refused] == [(id, "rate_limited") for id in range(5, 10)]
        for _ in range(95):
            client.ask(op="ping")
        assert client.code == 4009


async def test_bytes_over_the_limit_are_refused() -> None:
    async with hubs(1, **FEW) as (hub,):
        client = Client(hub, "1")
        client.ask(op="ping", id=1, filler="x" * 4000)
        client.ask(op="ping", id=2, filler="x" * 4000)
        assert (await client.reply(2))["code"] == "rate_limited"


async def test_an_idle_connection_has_no_budget() -> None:
    async with hubs(1) as (hub,):
        client = Client(hub, "1")
        assert client.budget is None


async def test_ten_bad_requests_close_with_4002() -> None:
    async with hubs(1) as (hub,):
        client = Client(hub, "1")
        await client.until(lambda e: e["op"] == "welcome")
        for _ in range(9):
            client.ask(op="nonsense")
        assert client.code == 0 and len(client.of("error")) == 9
        client.ask(op="nonsense")
        assert client.code == 4002


async def test_acks_keep_their_order_when_a_later_one_fails_first() -> None:
    async with hubs(1) as (hub,):
        client = Client(hub, "1")
        client.ask(op="join", room="r", id=0)
        await client.reply(0)
        client.ask(op="message", room="r", data=1, id=1)
        hub.broker.bus.interrupt(hub.broker, "cut")  # type: ignore[attr-defined]  # a memory broker
        client.ask(op="message", room="r", data=2, id=2)
        first = await client.until(lambda e: e.get("op") == "reply")
        second = await client.until(lambda e: e.get("op") == "reply")
        assert (first["id"], first["ok"]) == (1, True)
        assert (second["id"], second["code"]) == (2, "unavailable")
        hub.broker.bus.restore(hub.broker)  # type: ignore[attr-defined]

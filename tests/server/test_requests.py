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


async def test_reads_of_history_and_presence_have_a_limit_of_their_own() -> None:
    async with hubs(1, reads_per_s=1, reads_burst=3) as (hub,):
        client = Client(hub, "1")
        client.ask(op="join", room="r", id=0)
        await client.reply(0)
        for id, op in enumerate(["history", "get_presence"] * 3, 1):
            client.ask(op=op, room="r", id=id, **({"limit": 5} if op == "history" else {}))
        answers = [await client.reply(id) for id in range(1, 7)]
        assert [answer.get("code", "ok") for answer in answers] == ["ok"] * 3 + ["rate_limited"] * 3
        client.ask(op="ping", id=9)
        assert (await client.until(lambda e: e["op"] == "pong"))["id"] == 9


async def test_who_is_closed_for_asking_too_much_is_told_when_to_come_back() -> None:
    async with hubs(1, **FEW) as (hub,):
        client = Client(hub, "1")
        await client.until(lambda e: e["op"] == "welcome")
        for _ in range(105):
            client.ask(op="ping")
        assert client.code == 4009 and client.events[-1] == {"op": "backoff", "retry_after_ms": 10_000}


async def test_a_thousand_look_at_a_room_at_once_and_it_is_read_once() -> None:
    async with hubs(1) as (hub,):
        clients = [Client(hub, str(number)) for number in range(1000)]
        for client in clients:
            client.ask(op="join", room="r")
        await clients[0].until(lambda e: e["op"] == "welcome")
        reads: list[str | None] = []
        presence = hub.broker.presence
        roster = presence.roster

        async def counted(room: str | None) -> Any:
            reads.append(room)
            return await roster(room)

        hub.presence._rosters._read = counted
        for client in clients:
            client.ask(op="get_presence", room="r", id=1)
        for client in clients:
            assert (await client.reply(1, 20))["ok"]
        assert len(reads) <= 2 and set(reads) == {"r"}


async def test_in_a_large_room_messages_typing_and_receipts_are_limited_and_nobody_is_closed_for_it() -> None:
    async with hubs(1, large_room_members=2, large_room_messages_per_s=2) as (hub,):
        clients = [Client(hub, str(number)) for number in range(3)]
        for client in clients:
            client.ask(op="join", room="r", id=0)
            await client.reply(0)
        asking = clients[0]
        requests: list[dict[str, Any]] = [{"op": "message", "data": 1}, {"op": "typing", "typing": True}]
        requests.append({"op": "receipt", "message_id": "own", "status": "read"})
        codes: list[str] = []
        for id in range(1, 10):
            asking.ask(room="r", id=id, **requests[(id - 1) % 3])
            codes.append((await asking.reply(id)).get("code", "ok"))
        assert codes == ["ok"] * 4 + ["rate_limited"] * 5  # two messages; two of the typing and receipts
        for id in range(10, 250):
            asking.ask(op="message", room="r", data=1, id=id)
        assert (await asking.reply(249))["code"] == "rate_limited" and asking.code == 0
        clients[1].leave()
        asking.ask(op="message", room="r", data=1, id=300)
        assert (await asking.reply(300))["ok"], "it is not large any more"

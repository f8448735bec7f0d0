"""Receipts as clients see them, over two nodes."""

from __future__ import annotations

from typing import Any

from server.receipts import TOLD, Marks
from tests.support.connections import RecordingConnection as Client
from tests.support.hubs import hubs


async def joined(client: Client, room: str = "r", id: int = 1) -> dict[str, Any]:
    client.ask(op="join", room=room, id=id)
    return await client.reply(id)


async def receipt(client: Client) -> dict[str, Any]:
    return await client.until(lambda event: event.get("type") == "receipt")


async def test_a_receipt_moves_the_mark_and_reaches_the_others_once() -> None:
    async with hubs(2) as (one, two):
        writer, reader, third = Client(one, '"writer"'), Client(two, "42"), Client(one, '"third"')
        for client in (writer, reader, third):
            await joined(client)
        writer.ask(op="message", room="r", data=1, id=2)
        await writer.reply(2)
        await reader.until(lambda event: event.get("type") == "message")
        for id in (3, 4):
            reader.ask(op="receipt", room="r", message_id=1, status="read", id=id)
            assert (await reader.reply(id))["ok"]
        shape = {"op": "broadcast", "type": "receipt", "room": "r", "message_id": 1, "user_id": 42, "status": "read"}
        assert await receipt(writer) == shape and await receipt(third) == shape
        marker = await two.cluster.publish("r", "marker")
        for client in (writer, reader, third):
            await client.until(lambda event: event.get("offset") == marker.offset)
            assert not client.of("receipt")


async def test_a_late_joiner_gets_the_marks_and_what_is_unread() -> None:
    async with hubs(2) as (one, two):
        writer, reader = Client(one, '"writer"'), Client(one, "42")
        await joined(writer)
        await joined(reader)
        for number in range(5):
            writer.ask(op="message", room="r", data=number, id=f"m{number}")
            await writer.reply(f"m{number}")
        await reader.until(lambda event: event.get("offset") == 3)
        reader.ask(op="receipt", room="r", message_id=3, status="read", id=9)
        await reader.reply(9)
        reader.ask(op="receipt", room="r", message_id=4, status="delivered", id=10)
        await reader.reply(10)
        again = await joined(Client(two, "42"))
        assert again["unread"] == 2
        marks = {mark["user_id"]: (mark["delivered"], mark["read"]) for mark in again["receipts"]}
        assert marks == {"writer": (5, 5), 42: (4, 3)}
        assert (await joined(Client(two, '"new"')))["unread"] == 5
        same_node = await joined(Client(one, '"other"'))
        assert {m["user_id"]: (m["delivered"], m["read"]) for m in same_node["receipts"]} == marks
        assert "unread" not in await joined(Client(two, None))


async def test_ids_of_the_applications_own_are_relayed_only() -> None:
    async with hubs(1) as (hub,):
        sender, other = Client(hub, "1"), Client(hub, "2")
        await joined(sender)
        await joined(other)
        for message_id in ("uuid-7", 10**9):
            sender.ask(op="receipt", room="r", message_id=message_id, status="delivered", id=2)
            assert (await sender.reply(2))["ok"]
            assert (await receipt(other))["message_id"] == message_id
        assert not sender.of("receipt")
        assert (await joined(Client(hub, "3")))["receipts"] == []


async def test_members_only_and_not_the_anonymous() -> None:
    async with hubs(1) as (hub,):
        stranger, anonymous = Client(hub, "1"), Client(hub, None)
        stranger.ask(op="receipt", room="r", message_id=1, status="read", id=1)
        assert (await stranger.reply(1))["code"] == "not_joined"
        await joined(anonymous)
        anonymous.ask(op="receipt", room="r", message_id=1, status="read", id=2)
        assert (await anonymous.reply(2))["code"] == "forbidden"


async def test_many_joins_read_the_marks_once() -> None:
    async with hubs(1) as (hub,):
        first = Client(hub, "0")
        await joined(first)
        reads = 0
        read_marks = hub.broker.marks

        async def counting(room: str) -> list[Any]:
            nonlocal reads
            reads += 1
            return list(await read_marks(room))

        hub.broker.marks = counting  # type: ignore[method-assign]
        clients = [Client(hub, str(number)) for number in range(1, 50)]
        for client in clients:
            client.ask(op="join", room="other", id=1)
        for client in clients:
            await client.reply(1)
        assert reads == 1


def test_only_the_most_advanced_are_told_and_always_the_askers_own() -> None:
    marks = Marks()
    for number in range(TOLD + 50):
        marks.advance(str(number), "read", number)
    told = marks.told("0")
    assert len(told) == TOLD + 1 and told[0]["read"] == TOLD + 49 and told[-1]["read"] == 0
    assert marks.unread("10", 100) == 90 and marks.unread("nobody", 100) == 100

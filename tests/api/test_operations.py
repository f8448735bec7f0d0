"""What each operation does, over HTTP against a real node, as clients see it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from server.payload import MembershipSignal
from tests.api.calls import KEYS, Caller
from tests.support.chat import NodeHere, node_here
from tests.support.waiting import eventually

HI = {"text": "hi"}


@asynccontextmanager
async def node_with_api(**settings: Any) -> AsyncIterator[tuple[NodeHere, Caller]]:
    async with node_here("fast", api_keys=KEYS, api_requests_per_s=1e6, api_requests_burst=10**6, **settings) as node:
        yield node, Caller(node.served.port)


async def test_a_message_published_is_in_the_log_and_reaches_members() -> None:
    async with node_with_api() as (node, api), node.client("alice", "chat:x/y") as alice:
        position = (await api.post("/publish", room="chat:x/y", data=HI)).ok
        event = await alice.event()
        assert (event["type"], event["room"], event["user_id"], event["data"]) == ("message", "chat:x/y", None, HI)
        assert position == {"room": "chat:x/y", "epoch": position["epoch"], "offset": 1, "tag": event["tag"]}
        history = (await api.get("/history", room="chat:x/y")).ok
        ts = history["messages"][0]["ts"]
        assert history["messages"] == [{"offset": 1, "tag": event["tag"], "user_id": None, "ts": ts, "data": HI}]
        assert (history["epoch"], history["top"], history["more"]) == (position["epoch"], 1, False)


async def test_a_retry_key_in_the_header_or_the_body_makes_it_once() -> None:
    async with node_with_api() as (_, api):
        first = (await api.post("/publish", {"Idempotency-Key": "k1"}, room="r", data=1)).ok
        assert (await api.post("/publish", {"Idempotency-Key": '"k1"'}, room="r", data=1)).ok == first
        command = {"op": "publish", "room": "r", "data": 1, "key": "k1"}
        assert (await api.post("/batch", commands=[command, command])).ok["results"] == [first, first]
        assert (await api.post("/publish", {"Idempotency-Key": "k2"}, room="r", data=1)).ok["offset"] == 2
        other = Caller(api.port, KEYS.split(",")[0].rpartition(":")[2])
        elsewhere = await other.post("/publish", {"Idempotency-Key": "k1"}, room="r", data=1)
        assert elsewhere.ok["offset"] == 3, "retry keys belong to the name of a key"
        assert (await api.post("/publish", {"Idempotency-Key": "no key"}, room="r", data=1)).problem[0] == 400


async def test_a_broadcast_reaches_a_path() -> None:
    async with node_with_api() as (node, api), node.client("alice") as alice:
        assert (await api.post("/broadcast", path="/other", data=0)).ok == {"sent": True}
        assert (await api.post("/broadcast", path="/ws", data=HI)).ok == {"sent": True}
        expected = {"op": "broadcast", "type": "broadcast", "path": "/ws", "user_id": None, "data": HI}
        assert await alice.event() == expected


async def test_a_user_is_sent_to_by_the_type_of_the_id() -> None:
    async with node_with_api() as (node, api), node.client("42") as number, node.client("alice") as alice:
        await api.post("/send", user_id="42", data="for the text")
        await api.post("/send", user_id=42.0, data="for the number")
        await api.post("/send", user_id="alice", data=None)
        assert (await number.event())["data"] == "for the number"
        assert (await alice.event())["data"] is None
        await number.quiet()


async def test_a_batch_is_in_order_and_tells_of_each() -> None:
    async with node_with_api() as (node, api), node.client("alice", "r") as alice:
        commands: list[dict[str, Any]] = [{"op": "publish", "room": "r", "data": n, "key": f"k{n}"} for n in range(5)]
        commands += [{"op": "broadcast", "path": "/ws", "data": 5}, {"op": "send", "user_id": "alice", "data": 6}]
        results = (await api.post("/batch", commands=commands)).ok["results"]
        assert [result.get("offset") for result in results] == [1, 2, 3, 4, 5, None, None]
        assert results[5:] == [{"sent": True}] * 2
        assert {(await alice.event())["data"] for _ in range(7)} == set(range(7))
        again = (await api.post("/batch", commands=commands[:5])).ok["results"]
        assert again == results[:5]


@pytest.mark.parametrize(
    "bad",
    [
        {"op": "publish", "room": "__r", "data": 1},
        {"op": "publish", "room": "r"},
        {"op": "nothing"},
        {"op": "publish", "room": "r", "data": "x" * 2000},
    ],
)
async def test_a_batch_with_a_mistake_sends_nothing(bad: dict[str, Any]) -> None:
    async with node_with_api(max_message_bytes=1024) as (_, api):
        refused = await api.post("/batch", commands=[{"op": "publish", "room": "r", "data": 1}, bad])
        assert refused.status in (400, 413) and "commands/1" in refused.body["detail"]
        assert (await api.get("/history", room="r")).ok["epoch"] is None


async def test_presence_everywhere_in_a_room_and_in_pages() -> None:
    async with node_with_api() as (node, api), node.client("42", "r"), node.client("alice", "r"), node.client("bob"):
        everywhere = (await api.get("/presence")).ok
        assert everywhere["users"] == ["alice", "bob", 42] and everywhere["count"] == 3 and everywhere["next"] is None
        first = (await api.get("/presence", limit=2)).ok
        assert (first["users"], first["next"], first["count"]) == (["alice", "bob"], "bob", 3)
        assert (await api.get("/presence", limit=2, after="bob")).ok["users"] == [42]
        room = (await api.get("/presence", room="r")).ok
        assert (room["room"], room["users"]) == ("r", ["alice", 42])
        assert (await api.get("/presence/user", user_id="42")).ok == {"user_id": 42, "online": True}
        assert (await api.get("/presence/user", user_id='"42"')).ok == {"user_id": "42", "online": False}
        assert (await api.get("/presence", room="nobody")).ok["users"] == []


async def test_history_goes_back_and_forth_in_pages() -> None:
    async with node_with_api() as (_, api):
        for _ in range(3):
            await api.post("/batch", commands=[{"op": "publish", "room": "r", "data": n} for n in range(100)])

        async def offsets(**asked: int) -> tuple[list[int], bool]:
            found = (await api.get("/history", room="r", **asked)).ok
            return [message["offset"] for message in found["messages"]], found["more"]

        assert await offsets() == ([*range(251, 301)], True)
        assert await offsets(limit=250) == ([*range(51, 301)], True)
        assert await offsets(limit=500) == ([*range(1, 301)], False)
        assert await offsets(limit=250, before=51) == ([*range(1, 51)], False)
        assert await offsets(limit=2, before=10**9) == ([299, 300], True)
        assert await offsets(before=0) == await offsets(before=1) == ([], False)
        assert await offsets(since=0, limit=120) == ([*range(1, 121)], True)
        assert await offsets(since=290) == ([*range(291, 301)], False)
        assert await offsets(since=10**9) == ([], False)
        assert await offsets(since=1, before=5) == ([2, 3, 4], False)
        assert await offsets(since=1, before=5, limit=2) == ([2, 3], True)
        assert await offsets(since=5, before=5) == ([], False)


async def test_a_history_reply_is_bounded_in_bytes() -> None:
    async with node_with_api() as (_, api):
        text = "x" * 60_000
        for number in range(25):
            await api.post("/publish", room="r", data=f"{number}{text}")
        newest = (await api.get("/history", room="r", limit=500)).ok
        assert [message["offset"] for message in newest["messages"]] == [*range(9, 26)] and newest["more"]
        oldest = (await api.get("/history", room="r", limit=500, since=0)).ok
        assert [message["offset"] for message in oldest["messages"]] == [*range(1, 18)] and oldest["more"]


async def test_looking_at_a_room_that_never_was_opens_no_log() -> None:
    async with node_with_api() as (node, api):
        expected: dict[str, Any] = {"room": "r", "epoch": None, "top": 0, "messages": [], "more": False}
        assert (await api.get("/history", room="r")).ok == expected
        assert await node.hub.broker.tops(["r"]) == [None]


async def test_history_that_is_trimmed_says_that_there_is_no_more() -> None:
    async with node_with_api(history="*=10") as (_, api):
        for _ in range(3):
            await api.post("/batch", commands=[{"op": "publish", "room": "r", "data": n} for n in range(70)])
        found = (await api.get("/history", room="r", limit=500)).ok
        assert found["messages"][-1]["offset"] == 210 and not found["more"]
        assert 10 <= len(found["messages"]) < 210


async def test_nodes_are_listed() -> None:
    async with node_with_api() as (node, api), node.client("alice"):
        (found,) = (await api.get("/nodes")).ok["nodes"]
        assert found["node"] == node.hub.broker.node_id and found["version"]


async def test_disconnected_connections_are_those_meant_and_may_come_back() -> None:
    async with node_with_api() as (node, api), node.client("alice") as alice, node.client("bob") as bob:
        assert (await api.post("/disconnect", user_id="alice")).ok == {"done": True}
        assert await alice.closed() == 4004
        await bob.quiet()
        async with node.client("alice") as again:
            await again.quiet()


async def test_one_session_is_disconnected_and_revoked() -> None:
    async with node_with_api() as (node, api), node.connected("user=alice") as one, node.connected("user=alice") as two:
        session = (await one.frame())["session"]
        await two.frame()
        await api.post("/disconnect", user_id="alice", session=session)
        assert await one.closed() == 4004
        await two.quiet()
        assert (await api.post("/revoke", session=session, for_s=60)).ok == {"done": True}
        async with node.connected(f"user=alice&session={session}") as refused:
            assert await refused.closed() == 4001


async def test_a_revoked_user_stays_away() -> None:
    async with node_with_api() as (node, api), node.client("alice") as alice:
        await api.post("/revoke", user_id="alice", for_s=60)
        assert await alice.closed() == 4004
        async with node.connected("user=alice") as refused:
            assert await refused.closed() == 4001


@pytest.mark.parametrize("path", ["/disconnect", "/revoke"])
async def test_nobody_is_not_everybody(path: str) -> None:
    async with node_with_api() as (node, api), node.client("alice") as alice:
        assert (await api.post(path)).problem == (400, "bad_request")
        await alice.quiet()


async def test_rooms_are_listed_in_pages_with_their_connections() -> None:
    async with node_with_api() as (node, api):
        assert (await api.get("/rooms")).ok == {"rooms": [], "next": None, "missing": []}
        async with node.client("alice", "chat:a", "chat:b", "game:c"), node.client("bob", "chat:b") as bob:
            everything = [{"room": name, "connections": n} for name, n in (("chat:a", 1), ("chat:b", 2), ("game:c", 1))]
            assert (await api.get("/rooms")).ok == {"rooms": everything, "next": None, "missing": []}
            first = (await api.get("/rooms", limit=2)).ok
            assert (first["rooms"], first["next"]) == (everything[:2], "chat:b")
            assert (await api.get("/rooms", limit=2, after="chat:b")).ok["rooms"] == everything[2:]
            assert (await api.get("/rooms", pattern="*:b")).ok["rooms"] == everything[1:2]
            await bob.ok("leave", room="chat:b")
            assert (await api.get("/rooms", pattern="chat:b")).ok["rooms"] == [{"room": "chat:b", "connections": 1}]


async def test_a_users_connections_are_put_into_a_room_and_taken_out_again() -> None:
    async with node_with_api() as (node, api), node.client("42") as one, node.client("42", "r") as two:
        async with node.client("alice") as other:
            first = (await api.post("/publish", room="r", data="before")).ok
            assert (await two.event())["data"] == "before"
            assert (await api.post("/subscribe", user_id=42, room="r")).ok == {"done": True}
            told = await one.event()
            position = {"epoch": first["epoch"], "offset": 1, "tag": first["tag"]}
            assert told == {"op": "broadcast", "type": "joined", "room": "r", **position}
            await api.post("/publish", room="r", data="live")
            assert (await one.event())["data"] == "live" == (await two.event())["data"]
            await one.ok("message", room="r", data="mine")
            assert (await one.event())["data"] == "mine" == (await two.event())["data"]
            await other.quiet()

            await api.post("/unsubscribe", user_id=42, room="r")
            left = {"op": "broadcast", "type": "left", "room": "r"}
            assert await one.event() == await two.event() == left
            await api.post("/publish", room="r", data="nobody hears it")
            await one.quiet()
            await two.quiet()
            assert await one.refused("message", room="r", data=1) == "not_joined"


async def test_a_connection_in_too_many_rooms_is_told_so() -> None:
    async with node_with_api(max_rooms=1) as (node, api), node.client("alice", "r") as alice:
        await api.post("/subscribe", user_id="alice", room="s")
        event = await alice.event()
        assert (event["type"], event["code"], event["room"]) == ("error", "too_many_rooms", "s")


async def test_a_client_that_joins_at_the_same_moment_is_counted_once() -> None:
    async with node_with_api() as (node, _), node.client("alice") as alice:
        (connection,) = node.hub.users.members('"alice"')
        signal = MembershipSignal("r", True)
        await asyncio.gather(
            *(node.hub.cluster.put(connection, signal) for _ in range(3)),
            alice.ok("join", room="r", history=1),
        )
        assert node.hub.presence._here["r", '"alice"'] == 1
        await alice.ok("leave", room="r")
        assert node.hub.presence._here["r", '"alice"'] == 0
        await eventually(lambda: "r" not in node.hub.feed.rooms)


async def test_the_history_of_a_room_is_deleted_and_the_room_goes_on() -> None:
    async with node_with_api() as (node, api), node.client("alice", "r") as alice:
        for number in range(3):
            position = await alice.ok("message", room="r", data=number)
        await alice.events(3)
        assert (await api.delete("/history", room="r")).ok == {"done": True}
        found = (await api.get("/history", room="r")).ok
        assert (found["messages"], found["top"], found["epoch"]) == ([], 3, position["epoch"])
        assert (await api.post("/publish", room="r", data="on")).ok["offset"] == 4
        assert (await alice.event())["offset"] == 4
        async with node.client("bob") as bob:
            resume = {"epoch": position["epoch"], "offset": 1, "tag": "x"}
            assert (await bob.ok("join", room="r", resume=resume))["recovered"] is False
        assert (await api.delete("/history", room="never")).ok == {"done": True}


async def test_what_is_kept_about_a_user_is_deleted() -> None:
    async with node_with_api() as (node, api), node.client("bob", "r", "s") as bob:
        async with node.client("alice", "r", "s") as alice:
            for room in ("r", "s"):
                await alice.ok("message", room=room, data=1)
            await bob.events(2)
            await bob.ok("receipt", room="r", message_id=1, status="read")
            assert {mark["user_id"] for mark in (await bob.ok("join", room="r"))["receipts"]} == {"alice", "bob"}
            assert (await api.post("/forget", user_id="alice")).ok == {"rooms": 2}
            assert await alice.closed() == 4004
        assert {mark["user_id"] for mark in (await bob.ok("join", room="r"))["receipts"]} == {"bob"}
        assert [mark.user for mark in await node.hub.broker.marks("r")] == ['"bob"']
        assert (await api.post("/forget", user_id="alice")).ok == {"rooms": 0}

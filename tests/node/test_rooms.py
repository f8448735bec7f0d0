"""What clients of one node see of each other: rooms, events, errors. The same on both lanes."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from tests.support.chat import node_here
from tests.support.waiting import eventually

MSGPACK = [Subprotocol("roomcast.msgpack.v1")]


def message(room: str, offset: int, data: Any, user: Any = "alice") -> dict[str, Any]:
    """A live message without what is new each time (see ``stripped``)."""
    return {"op": "broadcast", "type": "message", "room": room, "offset": offset, "user_id": user, "data": data}


def stripped(frame: dict[str, Any]) -> dict[str, Any]:
    """Without tag and time, which must be there."""
    assert isinstance(frame.pop("tag"), str)
    if frame["type"] == "message":
        assert abs(frame.pop("ts") - time.time()) < 10
    return frame


async def test_welcome_is_the_first_frame_and_says_who_and_where(lane: str) -> None:
    async with node_here(lane, ping_s=7, max_message_bytes=2048) as node, node.connected("user=42") as alice:
        welcome = await alice.frame()
        session = welcome.pop("session")
        assert isinstance(session, str) and len(session) >= 16
        assert welcome == {
            "op": "welcome",
            "version": 1,
            "node": "here",
            "user_id": 42,
            "ping": 7,
            "max_message": 2048,
        }


async def test_a_joined_room_delivers_and_acks_and_a_left_one_does_not(lane: str) -> None:
    async with node_here(lane) as node, node.client("alice") as alice, node.client("bob") as bob:
        joined = await alice.ok("join", room="chat-room")
        epoch = joined.pop("epoch")
        assert joined == {
            "room": "chat-room",
            "offset": 0,
            "tag": "0",
            "recovered": None,
            "messages": [],
            "receipts": [],
            "unread": 0,
        }
        await bob.ok("join", room="chat-room")
        ack = await alice.ok("message", room="chat-room", data={"text": "hi"})
        live = await alice.event()
        assert ack == {"room": "chat-room", "epoch": epoch, "offset": 1, "tag": live["tag"]}
        assert live == await bob.event()
        assert stripped(live) == message("chat-room", 1, {"text": "hi"})
        assert await bob.ok("leave", room="chat-room") == {"room": "chat-room"}
        assert await bob.ok("leave", room="chat-room") == {"room": "chat-room"}
        await alice.ok("message", room="chat-room", data=2)
        assert stripped(await alice.event()) == message("chat-room", 2, 2)
        await bob.quiet()


async def test_a_second_join_asks_nobody_and_starts_at_the_top(lane: str) -> None:
    async with node_here(lane) as node, node.client("alice", "r") as alice, node.client("bob") as bob:
        await alice.ok("message", room="r", data=1)
        await alice.event()
        assert (await bob.ok("join", room="r"))["offset"] == 1
        assert (await alice.ok("join", room="r"))["offset"] == 1
        await alice.ok("message", room="r", data=2)
        assert stripped(await bob.event()) == message("r", 2, 2)
        assert stripped(await alice.event()) == message("r", 2, 2)
        await alice.quiet()


async def test_many_messages_at_once_are_acked_and_delivered_in_order(lane: str) -> None:
    count = 300
    async with node_here(lane) as node, node.client("alice", "r") as alice, node.client("bob", "r") as bob:
        for index in range(count):
            await alice.send("message", room="r", data=index, id=f"m{index}")
        live: list[dict[str, Any]] = []
        acks: list[dict[str, Any]] = []
        while len(live) < count or len(acks) < count:
            frame = await alice.frame()
            (acks if frame["op"] == "reply" else live).append(frame)
        assert [ack["id"] for ack in acks] == [f"m{index}" for index in range(count)]
        assert [ack["offset"] for ack in acks] == [frame["offset"] for frame in live] == list(range(1, count + 1))
        assert [frame["data"] for frame in live] == list(range(count))
        assert await bob.events(count) == live


async def test_requests_sent_together_wait_for_each_other(lane: str) -> None:
    """The join waits for the broker; the message behind it must find its sender in the room."""
    async with node_here(lane) as node, node.connected("user=alice") as alice:
        await alice.send("join", room="r", id=1)
        await alice.send("message", room="r", data="x", id=2)
        await alice.send("leave", room="r", id=3)
        await alice.send("message", room="r", data="y", id=4)
        replies: dict[int, bool] = {}
        while len(replies) < 4:
            frame = await alice.frame()
            if frame["op"] == "reply":
                replies[frame["id"]] = frame["ok"]
        assert replies == {1: True, 2: True, 3: True, 4: False}


async def test_echo_false_gives_the_sender_only_the_position(lane: str) -> None:
    async with node_here(lane) as node, node.client("alice", "r") as alice, node.client("bob", "r") as bob:
        ack = await alice.ok("message", room="r", data="x", echo=False)
        assert await alice.event() == {
            "op": "broadcast",
            "type": "position",
            "room": "r",
            "offset": 1,
            "tag": ack["tag"],
        }
        assert stripped(await bob.event()) == message("r", 1, "x")
        # In a history as well.
        again = await alice.ok("join", room="r", history=1)
        assert [frame["type"] for frame in again["messages"]] == ["position"]
        again = await bob.ok("join", room="r", history=1)
        assert [frame["type"] for frame in again["messages"]] == ["message"]


async def test_typing_and_receipts_reach_the_others_only(lane: str) -> None:
    async with node_here(lane) as node:
        async with node.client("42", "chat-room") as alice, node.client("bob", "chat-room") as bob:
            async with node.client("carol") as outside:
                await alice.send("typing", room="chat-room", typing=True)
                typing = {"op": "broadcast", "type": "typing", "room": "chat-room", "user_id": 42, "typing": True}
                assert await bob.event() == typing
                await alice.send("receipt", room="chat-room", message_id=123, status="read")
                assert await bob.event() == {
                    "op": "broadcast",
                    "type": "receipt",
                    "room": "chat-room",
                    "message_id": 123,
                    "user_id": 42,
                    "status": "read",
                }
                await alice.ok("receipt", room="chat-room", message_id="abc", status="delivered")
                assert (await bob.event())["message_id"] == "abc"
                await alice.quiet()
                await outside.quiet()


async def test_a_broadcast_reaches_everybody_on_the_path(lane: str) -> None:
    async with node_here(lane) as node, node.client("alice") as alice, node.client("bob") as bob:
        assert await alice.ok("broadcast", data=[1]) == {}
        expected = {"op": "broadcast", "type": "broadcast", "path": "/ws", "user_id": "alice", "data": [1]}
        assert await bob.event() == expected
        assert await alice.event() == expected
        await node.hub.cluster.broadcast_json("/ws", "from the application")
        assert await bob.event() == {**expected, "user_id": None, "data": "from the application"}


async def test_a_direct_message_reaches_all_connections_of_one_user(lane: str) -> None:
    async with node_here(lane) as node, node.client("42") as one, node.client("42") as two:
        async with node.client("%2B42") as other:
            await node.hub.cluster.send_to_user("42", {"a": 1})
            for each in (one, two):
                assert await each.event() == {"op": "broadcast", "type": "direct", "data": {"a": 1}}
            await other.quiet()


async def test_who_is_disconnected_by_an_operator_gets_4004(lane: str) -> None:
    async with node_here(lane) as node, node.client("alice") as alice, node.client("bob") as bob:
        await node.hub.cluster.disconnect('"alice"')
        assert await alice.closed() == 4004
        await bob.quiet()


# What goes wrong.


async def test_errors_have_the_documented_shapes(lane: str) -> None:
    async with node_here(lane) as node, node.client() as alice:
        error = {"op": "broadcast", "type": "error"}
        for op, fields in (
            ("message", {"data": 1}),
            ("typing", {"typing": True}),
            ("receipt", {"message_id": 1, "status": "read"}),
            ("history", {"limit": 1}),
        ):
            assert await alice.refused(op, room="r", **fields) == "not_joined"
            await alice.send(op, room="r", **fields)
            assert await alice.event() == {**error, "room": "r", "message": "join 'r' first", "code": "not_joined"}
        assert await alice.refused("join", room="no spaces") == "invalid_room"
        invalid = await alice.event()  # every refused join says so, with an id or without
        assert (invalid["room"], invalid["code"]) == ("no spaces", "invalid_room")
        assert await alice.refused("nonsense") == "bad_request"
        await alice.send("nonsense")
        unknown = await alice.event()
        assert unknown.keys() == {"op", "type", "message", "code"} and unknown["code"] == "bad_request"
        await alice.quiet()


async def test_the_room_after_the_last_allowed_one_is_refused(lane: str) -> None:
    async with node_here(lane, max_rooms=2) as node, node.client("alice", "a", "b") as alice:
        assert await alice.refused("join", room="c") == "too_many_rooms"
        assert (await alice.event())["code"] == "too_many_rooms"
        await alice.ok("join", room="a")
        await alice.ok("leave", room="a")
        await alice.ok("join", room="c")


async def test_the_tenth_bad_request_closes_with_4002(lane: str) -> None:
    async with node_here(lane) as node, node.client() as alice:
        for text in (
            "",
            "[]",
            "{",
            "null",
            '{"op":1}',
            '{"op":"join"}',
            '{"op":"join","room":7}',
            "x",
            '"x"',
            '{"a":"b"}',
        ):
            await alice.ws.send(text)
        assert await alice.closed() == 4002
        assert [frame["code"] for frame in alice.kept] == ["bad_request"] * 6 + ["invalid_room"] + ["bad_request"] * 3


async def test_the_wrong_kind_of_frame_closes_with_1003(lane: str) -> None:
    async with node_here(lane) as node:
        async with node.client() as alice:
            await alice.ws.send(b'{"op":"ping"}')
            assert await alice.closed() == 1003
        async with node.client(subprotocols=MSGPACK) as alice:
            await alice.ws.send('{"op":"ping"}')
            assert await alice.closed() == 1003


async def test_a_frame_over_max_message_closes_with_1009(lane: str) -> None:
    async with node_here(lane, max_message_bytes=2048) as node:
        async with node.client("alice", "r") as alice:
            await alice.ok("message", room="r", data="x" * 1900)
            await alice.ws.send('{"op":"ping","x":"' + "x" * 2048 + '"}')
            assert await alice.closed() == 1009


async def test_text_that_is_not_utf8_closes_with_1007(lane: str) -> None:
    async with node_here(lane) as node, node.client() as alice:
        await alice.ws.send(b'{"op":"ping","x":"\xff"}', text=True)
        assert await alice.closed() == 1007


# Two encodings.


async def test_json_and_msgpack_share_a_room(lane: str) -> None:
    async with node_here(lane) as node:
        async with node.client("alice", "r", subprotocols=MSGPACK) as alice, node.client("42", "r") as bob:
            assert alice.packed and alice.ws.subprotocol == "roomcast.msgpack.v1"
            data = {"text": "é", "n": [1, 2**53 + 1, -1.5, None, True], "deep": {"a": {"b": []}}}
            await alice.ok("message", room="r", data=data)
            live = await bob.event()
            assert live == await alice.event() and live["data"] == data
            await bob.ok("message", room="r", data=data, echo=False)
            packed = await alice.event()
            assert packed["data"] == data and packed["user_id"] == 42
            await bob.send("typing", room="r", typing=True)
            assert (await alice.event())["typing"] is True
            assert await alice.refused("leave", room="no spaces") == "invalid_room"


# History and resume.


async def test_a_join_brings_the_history_asked_for(lane: str) -> None:
    async with node_here(lane) as node, node.client("alice", "r") as alice, node.client("bob") as bob:
        for index in range(5):
            await alice.ok("message", room="r", data=index)
        joined = await bob.ok("join", room="r", history=3)
        assert [stripped(frame) for frame in joined["messages"]] == [message("r", n, n - 1) for n in (3, 4, 5)]
        assert joined["offset"] == 5 and joined["recovered"] is None
        page = await bob.ok("history", room="r", limit=2, before=3)
        assert [stripped(frame) for frame in page["messages"]] == [message("r", n, n - 1) for n in (1, 2)]
        assert page["epoch"] == joined["epoch"]
        assert [frame["offset"] for frame in (await bob.ok("history", room="r", limit=500))["messages"]] == [
            1,
            2,
            3,
            4,
            5,
        ]
        await bob.quiet()


async def test_a_resume_brings_what_was_missed_or_says_that_it_cannot(lane: str) -> None:
    async with node_here(lane) as node, node.client("alice", "r") as alice:
        async with node.client("bob") as bob:
            at = await bob.ok("join", room="r")
            first = await alice.ok("message", room="r", data="seen")
        position = {name: first[name] for name in ("epoch", "offset", "tag")}
        for index in range(3):
            await alice.ok("message", room="r", data=index)
        async with node.client("bob") as bob:
            resumed = await bob.ok("join", room="r", resume=position)
            assert resumed["recovered"] is True and resumed["offset"] == 4
            assert [stripped(frame) for frame in resumed["messages"]] == [message("r", n + 2, n) for n in range(3)]
            await alice.ok("message", room="r", data="live")
            assert stripped(await bob.event()) == message("r", 5, "live")
            for wrong in ({"epoch": "0"}, {"tag": "ffff"}, {"offset": 99}, {"offset": 2**60}, {"offset": -1}):
                answer = await bob.ok("join", room="r", resume={**position, **wrong})
                assert (answer["recovered"], answer["messages"], answer["offset"]) == (False, [], 5), wrong
            answer = await bob.ok("join", room="r", resume={**position, "epoch": "0"}, history=1)
            assert answer["recovered"] is False and [frame["offset"] for frame in answer["messages"]] == [5]
            assert at["offset"] == 0


async def test_a_long_resume_comes_in_pages(lane: str) -> None:
    async with node_here(lane) as node, node.client("alice", "r") as alice, node.client("bob") as bob:
        start = await alice.ok("join", room="r")
        await asyncio.gather(*[node.hub.cluster.publish("r", index) for index in range(730)])
        position = {name: start[name] for name in ("epoch", "offset", "tag")}
        page = await bob.ok("join", room="r", resume=position)
        assert page["more"] is True and page["recovered"] is True and page["offset"] == len(page["messages"]) == 500
        assert await bob.refused("message", room="r", data=1) == "not_joined"  # not live yet
        page = await bob.ok("join", room="r", resume={name: page[name] for name in ("epoch", "offset", "tag")})
        assert "more" not in page and [frame["data"] for frame in page["messages"]] == list(range(500, 730))
        await alice.ok("message", room="r", data="live")
        assert (await bob.event())["data"] == "live"


# Sessions come back.


async def test_a_session_is_kept_over_a_reconnect_and_a_malformed_one_replaced(lane: str) -> None:
    async with node_here(lane) as node:
        async with node.connected("user=alice") as alice:
            session = (await alice.frame())["session"]
        async with node.connected(f"user=alice&session={session}") as alice:
            assert (await alice.frame())["session"] == session
        for malformed in ("short", "x" * 65, "a" * 20 + "%20"):
            async with node.connected(f"user=alice&session={malformed}") as alice:
                assert (await alice.frame())["session"] not in (malformed, session)


async def test_a_retried_message_is_one_entry(lane: str) -> None:
    async with node_here(lane) as node, node.client("alice", "r") as alice:
        one = await alice.ok("message", room="r", data=1, key="k")
        assert await alice.ok("message", room="r", data=1, key="k") == one
        assert (await alice.event())["offset"] == 1
        await alice.quiet()


async def test_nothing_is_left_of_connections_that_went(lane: str) -> None:
    async with node_here(lane) as node:
        hub = node.hub
        own = set(hub.interest._channels)  # what a node without clients listens to
        async with node.client("alice", "r", "s") as alice, node.client("bob", "r") as bob:
            assert (hub.counts.connections, hub.counts.rooms) == (2, 2)
            alice.ws.transport.abort()
            with pytest.raises(ConnectionClosed):
                await alice.frame()
            await bob.ws.close(1001)
        await eventually(lambda: hub.counts.connections == 0 and set(hub.interest._channels) == own)
        assert hub.counts.rooms == len(hub.paths) == len(hub.users) == len(hub.sessions) == 0
        assert not hub.feed.rooms and not node.served.connections
        assert sum(hub.counts.closes.values()) == 2

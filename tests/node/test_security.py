"""What a client cannot say for others, and what it is not told. The list of all of it: SECURITY.md."""

from __future__ import annotations

import json
import time
from contextlib import AsyncExitStack
from typing import Any

import jwt
import pytest

from roomcast import Hub
from tests.handlers.world import SECRET, Client, running
from tests.support.chat import NodeHere, node_here
from tests.support.served import raw_client


async def test_the_server_says_who_when_and_which_message_it_is(lane: str) -> None:
    claimed: dict[str, Any] = {
        "user_id": "admin", "user": "admin", "from": "admin", "sender": "admin", "session": "s" * 22,
        "ts": 1, "time": 1, "offset": 999, "tag": "forged", "type": "direct", "excluded": "x",
    }  # fmt: skip
    async with node_here(lane) as node, node.client("mallory", "r") as mallory, node.client("bob", "r") as bob:
        ack = await mallory.ok("message", room="r", data="hi", **claimed)
        before = time.time()
        heard = await bob.event()
        assert heard.keys() == {"op", "type", "room", "offset", "tag", "user_id", "ts", "data"}
        assert (heard["user_id"], heard["offset"], heard["type"]) == ("mallory", 1, "message")
        assert heard["tag"] == ack["tag"] != "forged" and abs(heard["ts"] - before) < 60
        await mallory.ok("typing", room="r", typing=True, user_id="admin")
        assert (await bob.event())["user_id"] == "mallory"
        await mallory.ok("receipt", room="r", message_id="own", status="read", user_id="admin")
        assert (await bob.event())["user_id"] == "mallory"


async def test_nothing_of_a_token_but_the_user_leaves_the_node(lane: str) -> None:
    claims = {"sub": "alice", "exp": time.time() + 60, "email": "alice@private.example", "role": "a private role"}
    token = jwt.encode(claims, SECRET, "HS256")
    async with running(Hub(), lane=lane, secret=SECRET, presence_broadcast="all") as node:
        frames: list[str] = []
        async with node.client("/ws", token=token) as alice, node.client("/ws", token=token) as other:
            for client in (alice, other):
                for op in ("join", "get_presence", "history"):
                    await client.say({"op": op, "room": "r", "id": 1, "presence": True, "limit": 5})
                await client.say({"op": "message", "room": "r", "data": 1})
                await client.say({"op": "typing", "room": "r", "typing": True})
            await alice.say({"op": "ping", "id": "last"})
            while not frames or '"last"' not in frames[-1]:
                frames.append(await alice.hear())
        assert len(frames) > 6 and {json.loads(frame)["op"] for frame in frames} >= {"welcome", "reply", "broadcast"}
        for frame in frames:
            assert "private" not in frame and token not in frame and SECRET not in frame


async def test_who_is_not_in_a_room_learns_nothing_of_it(lane: str) -> None:
    async with node_here(lane, presence_broadcast="rooms") as node:
        async with node.client("alice", "secret") as alice, node.client("mallory") as mallory:
            await alice.ok("message", room="secret", data="x")
            for op, fields in (
                ("get_presence", {}),
                ("history", {"limit": 5}),
                ("message", {"data": 1}),
                ("typing", {"typing": True}),
                ("receipt", {"message_id": 1, "status": "read"}),
            ):
                there = await mallory.ask(op, room="secret", **fields)
                nowhere = await mallory.ask(op, room="nowhere", **fields)
                assert (there["ok"], there["code"]) == (nowhere["ok"], nowhere["code"]) == (False, "not_joined")
                assert there["message"].replace("secret", "nowhere") == nowhere["message"]
            assert await mallory.refused("get_presence") == "forbidden"
            await mallory.quiet()


async def test_a_forbidden_room_says_the_same_whether_it_exists_and_with_a_position_in_it(lane: str) -> None:
    hub = Hub()

    @hub.room_authorizer("private:*")
    async def nobody(user: object, room: str) -> bool:
        return False

    async with running(hub, lane=lane) as node:
        top = await hub.publish("private:real", "x")
        resume = {"epoch": top.epoch.decode(), "offset": top.offset - 1, "tag": "0"}
        async with node.member("mallory") as mallory:
            told = []
            for room in ("private:real", "private:other"):
                for fields in ({}, {"resume": resume}, {"history": 5}):
                    reply = await mallory.ask("join", room=room, **fields)
                    told.append((reply["ok"], reply["code"], reply["message"]))
            assert len(set(told)) == 1 and told[0][:2] == (False, "forbidden")


async def test_another_user_s_session_hides_nothing_from_that_user_and_swallows_nothing(lane: str) -> None:
    """A session is no credential: who has got hold of a key must not be able to use it against its user."""
    session = "&session=" + "s" * 22
    async with node_here(lane, presence_broadcast="none") as node, node.client("alice", "r", query=session) as alice:
        async with node.client("mallory", "r", query=session) as mallory:
            await mallory.ok("message", room="r", data="hidden", echo=False)
            assert (await alice.event())["data"] == "hidden"
            assert (await mallory.event())["type"] == "position"
            await mallory.ok("message", room="r", data="first", key="k")
            assert (await alice.event())["data"] == (await mallory.event())["data"] == "first"
            ack = await alice.ok("message", room="r", data="second", key="k")
            assert (await alice.event())["data"] == (await mallory.event())["data"] == "second"
            assert (await alice.ok("message", room="r", data="second", key="k"))["offset"] == ack["offset"]
        reply = await alice.ok("join", room="r", history=5)
        assert [each.get("data") for each in reply["messages"]] == ["hidden", "first", "second"]


async def test_a_token_s_grants_count_for_what_a_join_brings(lane: str) -> None:
    rooms = {"r": ["join"], "open": ["join", "presence"]}
    token = jwt.encode({"sub": "bob", "exp": time.time() + 60, "rooms": rooms}, SECRET, "HS256")
    async with running(Hub(), lane=lane, secret=SECRET, presence_broadcast="rooms") as node:
        async with node.client("/ws", token=token) as bob:
            assert (await bob.frame())["op"] == "welcome"
            assert (await bob.ask("join", room="r", presence=True))["code"] == "forbidden"
            reply = await bob.ask("join", room="r", history=5)
            assert reply["ok"] and "members" not in reply, "who may join may read the history, too"
            assert "members" in await bob.ask("join", room="open", presence=True)


@pytest.mark.parametrize("by", ["token", "authorizer"])
async def test_who_loses_the_right_to_presence_is_no_longer_told_and_stays_in_the_room(lane: str, by: str) -> None:
    def token(user: str, *actions: str) -> str:
        claims = {"sub": user, "exp": time.time() + 60, "rooms": {"r": ["join", "publish", *actions]}}
        return jwt.encode(claims, SECRET, "HS256")

    hub = Hub()
    may_see = {"amy", "bob"}
    hub.room_authorizer("r")(lambda conn, room, action: action != "presence" or conn.user_id in may_see)
    async with running(hub, lane=lane, secret=SECRET, presence_broadcast="rooms") as node, AsyncExitStack() as stack:

        async def come(user: str, **fields: Any) -> Client:
            client = await stack.enter_async_context(node.client("/ws", token=token(user, "presence")))
            await client.frame()
            assert (await client.ask("join", room="r", **fields))["ok"]
            return client

        amy = await come("amy", presence=True)
        assert (await amy.frame())["user_id"] == "amy"
        bob = await come("bob", presence=True)
        for watcher in (amy, bob):
            assert (await watcher.frame())["user_id"] == "bob"
        if by == "token":
            assert (await bob.ask("auth", token=token("bob")))["ok"]
        else:
            may_see.remove("bob")
            await hub.recheck_rooms("bob")
        error = await bob.frame()
        assert (error["type"], error["room"], error["code"]) == ("error", "r", "forbidden")
        carl = await come("carl")
        assert (await amy.frame())["user_id"] == "carl"
        assert (await carl.ask("message", room="r", data="still here"))["ok"]
        for watcher in (amy, bob):
            assert (await watcher.frame())["data"] == "still here"
        assert (await bob.ask("join", room="r", presence=True))["code"] == "forbidden"


async def test_http_answers_carry_the_headers_of_their_kind(lane: str) -> None:
    """No page elsewhere may read them, but for the client itself; no browser may guess at what they are."""
    expected = {
        "/healthz": {b"content-type": b"text/plain; charset=utf-8"},
        "/readyz": {b"content-type": b"application/json"},
        "/metrics": {b"content-type": b"text/plain; version=0.0.4; charset=utf-8"},
        "/roomcast.js": {b"x-content-type-options": b"nosniff", b"access-control-allow-origin": b"*"},
        "/demo": {b"x-content-type-options": b"nosniff", b"content-security-policy": b"default-src 'none'; script-src"},
        "/nowhere": {},
    }
    async with node_here(lane) as node:
        for path, wanted in expected.items():
            request = f"GET {path} HTTP/1.1\r\nHost: a\r\nOrigin: https://evil.example\r\n\r\n".encode()
            async with raw_client(node.served.port, request) as client:
                _, head = await client.head()
            got = {n.lower(): v.strip() for n, _, v in (line.partition(b":") for line in head.split(b"\r\n")[1:])}
            assert b"server" not in got and b"set-cookie" not in got
            assert (b"access-control-allow-origin" in got) == (path == "/roomcast.js")
            for name, value in wanted.items():
                assert got[name].startswith(value), (path, name)


async def test_rooms_and_users_make_no_series() -> None:
    """Whoever could make series up could fill every Prometheus: who comes, joins and speaks adds none."""

    async def series(node: NodeHere) -> set[str]:
        _, page = await node.get("/metrics")
        return {line.rpartition(" ")[0] for line in page.decode().splitlines() if not line.startswith("#")}

    async def use(node: NodeHere, number: int) -> None:
        async with node.client(f"user{number}", *(f"room{number}.{each}" for each in range(20))) as client:
            await client.ok("message", room=f"room{number}.0", data=number)
            assert await client.refused("join", room=f"no room {number}") == "invalid_room"

    async with node_here("fast") as node:
        await use(node, 0)
        before = await series(node)
        for number in range(1, 20):
            await use(node, number)
        assert await series(node) == before
        assert not [each for each in before if "room0" in each or "user0" in each]

"""The application's say in rooms: authorizers, message hooks, join and leave, and the hub's own functions."""

from __future__ import annotations

import asyncio
import uuid
from contextlib import AsyncExitStack
from typing import Any

import pytest

from roomcast import Hub, Refusal, WebSocket
from tests.handlers.world import LANES, Client, running
from tests.support.features import covers

pytestmark = pytest.mark.parametrize("lane", LANES)


@covers("A20", "A21")
@pytest.mark.parametrize("is_async", [True, False])
async def test_an_authorizer_decides_who_joins(lane: str, is_async: bool) -> None:
    hub = Hub()

    def may(conn: WebSocket, room: str) -> Any:
        if room.startswith("admin:"):
            return conn.user and conn.user.id == "root"
        return True

    async def may_async(conn: WebSocket, room: str) -> Any:
        return may(conn, room)

    hub.room_authorizer(may_async if is_async else may)
    async with running(hub, lane=lane) as node:
        async with node.member("eve", "lobby") as eve, node.member("root", "lobby", "admin:secrets") as root:
            await eve.say({"op": "join", "room": "admin:secrets"})
            error = await eve.frame()
            assert error.pop("code") == "forbidden"
            assert error == {
                "op": "broadcast",
                "type": "error",
                "room": "admin:secrets",
                "message": "Unauthorized or invalid room join request",
            }
            await hub.publish("admin:secrets", 1)
            await hub.publish("lobby", 2)
            assert (await eve.frame())["data"] == 2
            assert [(await root.frame())["data"], (await root.frame())["data"]] == [1, 2], "only eve heard the error"


@covers("A20")
async def test_without_an_authorizer_everybody_may(lane: str) -> None:
    async with running(Hub(), lane=lane) as node, node.member("eve", "admin:secrets") as eve:
        assert (await eve.ask("message", room="admin:secrets", data=1))["ok"]


async def test_every_action_is_asked_about_and_resuming_is_joining(lane: str) -> None:
    hub = Hub()
    asked: list[tuple[str, str]] = []
    allowed = {"join", "publish", "history", "presence"}

    @hub.room_authorizer("chat:*")
    async def may(conn: WebSocket, room: str, action: str) -> bool:
        asked.append((room, action))
        return action in allowed

    async with (
        running(hub, lane=lane, presence_broadcast="rooms") as node,
        node.member("ann", "chat:a", "other") as ann,
    ):
        position = await ann.ask("message", room="chat:a", data=1)
        assert (await ann.ask("history", room="chat:a", limit=5))["ok"]
        assert (await ann.ask("get_presence", room="chat:a"))["ok"]
        assert (await ann.ask("message", room="other", data=1))["ok"]
        assert asked == [("chat:a", action) for action in ("join", "publish", "history", "presence")]
        allowed.clear()
        for op, fields in (("message", {"data": 1}), ("history", {"limit": 5}), ("get_presence", {})):
            assert (await ann.ask(op, room="chat:a", **fields))["code"] == "forbidden"
        resume = {name: position[name] for name in ("epoch", "offset", "tag")}
        assert (await ann.ask("join", room="chat:a", resume=resume))["code"] == "forbidden", "again on resume"


async def test_a_join_that_asks_for_more_is_asked_about_all_of_it(lane: str) -> None:
    """Else who may join could see who is there, or what was said, though neither is allowed."""
    hub = Hub()
    asked: list[str] = []
    allowed = {"join"}

    @hub.room_authorizer("*")
    async def may(conn: WebSocket, room: str, action: str) -> bool:
        asked.append(action)
        return action in allowed

    async with running(hub, lane=lane, presence_broadcast="rooms") as node, node.member("ann") as ann:
        for more, action in (({"presence": True}, "presence"), ({"history": 5}, "history")):
            asked.clear()
            reply = await ann.ask("join", room="r", **more)
            assert (reply["ok"], reply["code"]) == (False, "forbidden") and action in reply["message"]
            assert asked == ["join", action]
            assert (await ann.ask("typing", room="r", typing=True))["code"] == "not_joined"
        assert (await ann.ask("join", room="r", history=0))["ok"]
        allowed |= {"presence", "history"}
        reply = await ann.ask("join", room="r", presence=True, history=5)
        assert reply["ok"] and "members" in reply


async def test_all_authorizers_that_match_must_agree_and_failing_is_a_no(
    lane: str, caplog: pytest.LogCaptureFixture
) -> None:
    hub = Hub()
    hub.room_authorizer("*")(lambda conn, room: True)
    hub.room_authorizer("*:secret")(lambda conn, room: False)
    hub.room_authorizer("bad:*")(lambda conn, room: 1 / 0)
    async with running(hub, lane=lane) as node, node.member("ann", "a:open") as ann:
        assert (await ann.ask("join", room="a:secret"))["code"] == "forbidden"
        assert (await ann.ask("join", room="bad:x"))["code"] == "internal"
        assert (await ann.ask("ping", id=7))["op"] == "pong", "the connection lives on"
    [record] = [r for r in caplog.records if r.levelname == "ERROR"]
    assert "request id" in record.getMessage()


async def test_messages_may_be_changed_enriched_or_refused_before_they_are_published(lane: str) -> None:
    hub = Hub()

    @hub.on_message("chat:*")
    async def polite(conn: WebSocket, room: str, data: Any) -> Any:
        if "damn" in data["text"]:
            raise Refusal("forbidden", "mind your language")
        return {**data, "name": str(conn.user_id).title()}

    @hub.on_message("chat:loud")
    def loud(conn: Any, room: str, data: Any) -> Any:
        return {**data, "text": data["text"].upper()}

    @hub.on_message
    async def watch(conn: WebSocket, room: str, data: Any) -> None:
        seen.append(data)

    seen: list[Any] = []
    async with running(hub, lane=lane) as node, node.member("ann", "chat:loud", "other") as ann:
        await ann.say({"op": "message", "room": "chat:loud", "data": {"text": "hi"}})
        assert (await ann.frame())["data"] == {"text": "HI", "name": "Ann"}
        refused = await ann.ask("message", room="chat:loud", data={"text": "damn"})
        assert (refused["code"], refused["message"]) == ("forbidden", "mind your language")
        await ann.say({"op": "message", "room": "other", "data": [1]})
        assert (await ann.frame())["data"] == [1]
    assert seen == [{"text": "HI", "name": "Ann"}, [1]]


@pytest.mark.parametrize("answer", [{1, 2}, float("nan"), "x" * 70_000])
async def test_what_a_hook_returns_is_checked(lane: str, answer: Any) -> None:
    hub = Hub()
    hub.on_message(lambda conn, room, data: answer)
    async with running(hub, lane=lane) as node, node.member("ann", "a") as ann:
        code = (await ann.ask("message", room="a", data=1))["code"]
        assert code == ("too_large" if isinstance(answer, str) else "internal")


async def test_join_and_leave_are_told_once_however_they_come_about(lane: str) -> None:
    hub = Hub()
    told: list[tuple[str, Any, str]] = []
    changed = asyncio.Condition()

    async def note(what: str, conn: WebSocket, room: str) -> None:
        async with changed:
            told.append((what, conn.user_id, room))
            changed.notify_all()

    @hub.on_join
    async def joined(conn: WebSocket, room: str) -> None:
        await note("join", conn, room)

    @hub.on_leave("a*")
    async def left(conn: WebSocket, room: str) -> None:
        await note("leave", conn, room)

    async def told_in_all(count: int) -> None:
        async with changed:
            await asyncio.wait_for(changed.wait_for(lambda: len(told) >= count), 30)

    async with running(hub, lane=lane) as node:
        async with node.member("ann", "a", "a2", "b") as ann:
            await ann.ask("join", room="a")
            await ann.ask("leave", room="a")
            await ann.ask("leave", room="a")
            await told_in_all(4)
            assert told == [("join", "ann", "a"), ("join", "ann", "a2"), ("join", "ann", "b"), ("leave", "ann", "a")]
        await told_in_all(5)
        assert told[4:] == [("leave", "ann", "a2")]


async def test_hooks_may_speak_to_the_connection(lane: str) -> None:
    hub = Hub()

    @hub.on_join
    async def joined(conn: WebSocket, room: str) -> None:
        await conn.send_json({"hello": conn.headers["x-name"], "path": conn.path})

    @hub.on_message
    def close(conn: Any, room: str, data: Any) -> None:
        conn.close(4123, "said too much")

    async with running(hub, lane=lane) as node, node.client("/ws", {"x-name": "n"}, user="ann") as ann:
        await ann.frame()
        await ann.say({"op": "join", "room": "a"})
        assert await ann.frame() == {"hello": "n", "path": "/ws"}
        await ann.say({"op": "message", "room": "a", "data": 1})
        assert await ann.closed() == (4123, "said too much")


@pytest.mark.parametrize(("given", "allowed"), [({}, False), ({"client_broadcast": True}, True)])
async def test_clients_broadcast_where_the_application_allows_it(
    lane: str, given: dict[str, Any], allowed: bool
) -> None:
    hub = Hub(**given)
    hub.authenticate(lambda credentials: credentials.query["name"])
    async with running(hub, lane=lane, dev=False) as node, node.client("/ws", name="ann") as ann:
        await ann.frame()
        reply = await ann.ask("broadcast", data=1)
        assert reply["ok"] is allowed


@covers("A14", "A15", "A34")
async def test_the_hubs_functions_reach_the_whole_cluster(lane: str) -> None:
    here, there = Hub(), Hub()
    for hub in (here, there):
        hub.on("/app")(lambda conn, message: None)
    bus = {"broker": f"memory://{uuid.uuid4()}", "presence_broadcast": "all"}

    async def until(client: Client, **wanted: Any) -> None:
        while not wanted.items() <= (await client.frame()).items():
            pass

    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        near, far = await enter(running(here, lane=lane, **bus)), await enter(running(there, lane=lane, **bus))
        ann, tab = await enter(near.member(101)), await enter(far.member(101))
        bob, raw = await enter(far.member("bob", "room")), await enter(far.client("/app", user=5))
        await until(ann, user_id=5, status="online")
        assert await here.get_online_users() == [5, 101, "bob"]
        assert await here.is_user_online(101) and await here.is_user_online("bob")
        assert not await here.is_user_online("101"), "42 and '42' are two users"
        assert await there.get_online_users() == [5, 101, "bob"]
        await here.publish("room", {"x": 1})
        await until(bob, type="message", data={"x": 1})
        await here.send_to_user(101, "hi")
        await until(ann, type="direct", data="hi")
        await until(tab, type="direct", data="hi")
        await here.broadcast("/ws", "text")
        await until(bob, type="broadcast", path="/ws", user_id=None, data="text")
        await here.broadcast("/app", "text")
        while await raw.hear() != "text":
            pass


async def test_what_the_hub_is_given_is_checked(lane: str) -> None:
    hub = Hub()
    with pytest.raises(RuntimeError, match="not running"):
        await hub.publish("a", 1)
    async with running(hub, lane=lane):
        for wrong in ("", "no spaces", "__revoked"):
            with pytest.raises(ValueError, match="is no room"):
                await hub.publish(wrong, 1)
        with pytest.raises(ValueError, match="NaN"):
            await hub.publish("a", float("nan"))
        with pytest.raises(ValueError, match="user id"):
            await hub.send_to_user(True, 1)
        with pytest.raises(ValueError, match="whom to disconnect"):
            await hub.disconnect()
        with pytest.raises(ValueError, match="what to revoke"):
            await hub.revoke()

"""``@hub.on`` and its like: callbacks per path, as in Asok, on both lanes."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from roomcast import Hub, WebSocket
from tests.handlers.world import LANES, running
from tests.support.features import covers

pytestmark = pytest.mark.parametrize("lane", LANES)


@covers("A9", "A12", "A27", "A28", "A31", "A34")
async def test_a_message_reaches_its_handler_and_the_whole_path(lane: str) -> None:
    hub = Hub()

    @hub.on("/chat/[room]")
    async def on_message(conn: WebSocket, message: str) -> None:
        name = conn.user.id if conn.user else "Guest"
        await hub.broadcast(f"/chat/{conn.params['room']}", f"{name}: {message}")
        await conn.send(conn.path)

    async with running(hub, lane=lane) as node:
        async with node.client("/chat/general") as guest, node.client("/chat/general", user="ann") as ann:
            async with node.client("/chat/other", user="eve") as eve:
                await ann.say("hello")
                assert {await ann.hear(), await ann.hear()} == {"ann: hello", "/chat/general"}
                assert await guest.hear() == "ann: hello"
                await guest.say("hi")
                assert await ann.hear() == "Guest: hi"
                await eve.say("alone")
                assert {await eve.hear(), await eve.hear()} == {"eve: alone", "/chat/other"}


@covers("A9", "A10", "A11", "A31", "A34")
async def test_plain_functions_do_it_too_in_a_thread(lane: str) -> None:
    hub = Hub()
    plain: Any = hub  # in a thread its coroutine methods return when it is done
    threads: list[threading.Thread] = []

    @hub.on_connect("/chat")
    def on_connect(conn: Any) -> None:
        conn.send("Connected to notification stream")

    @hub.on("/chat")
    def on_message(conn: Any, message: str) -> None:
        threads.append(threading.current_thread())
        plain.broadcast("/chat", f"someone: {message}")

    @hub.on_disconnect("/chat")
    def on_disconnect(conn: Any) -> None:
        plain.broadcast("/chat", "Someone left the chat")

    async with running(hub, lane=lane) as node:
        async with node.client("/chat") as stays:
            assert await stays.hear() == "Connected to notification stream"
            async with node.client("/chat") as goes:
                assert await goes.hear() == "Connected to notification stream"
                await goes.say("x")
                assert await goes.hear() == await stays.hear() == "someone: x"
            assert await stays.hear() == "Someone left the chat"
    assert threads[0] is not threading.main_thread()


@covers("A35", "A36", "A32")
async def test_json_goes_to_all_but_the_sender(lane: str) -> None:
    hub = Hub()

    @hub.on("/alerts")
    async def on_message(conn: WebSocket, message: str) -> None:
        await hub.broadcast_json("/alerts", {"type": "alert", "content": message}, exclude=conn)
        await hub.broadcast("/alerts", "text for the others", exclude=conn)
        await conn.send_json({"sent": True})

    async with running(hub, lane=lane) as node, node.client("/alerts") as a, node.client("/alerts") as b:
        await a.say("System restart")
        assert await b.frame() == {"type": "alert", "content": "System restart"}
        assert await b.hear() == "text for the others"
        assert await a.frame() == {"sent": True}
        await b.say("again")
        assert await b.frame() == {"sent": True}, "nothing came to b from itself"
        assert await a.frame() == {"type": "alert", "content": "again"}, "nothing came to a from itself before"


@covers("A26", "A29", "A30", "A33")
async def test_what_a_connection_knows(lane: str) -> None:
    hub = Hub()
    seen: list[Any] = []

    @hub.on_connect("/info")
    async def on_connect(conn: WebSocket, lang: str, page: int = 1) -> None:
        seen.extend([conn.user.id, conn.user_id, conn.headers["X-Thing"], conn.addr, lang, page])
        await conn.close(4321, "enough")

    async with running(hub, lane=lane) as node:
        async with node.client("/info", {"x-thing": "7"}, user=42, lang="de", page=3) as client:
            host, port = client.ws.local_address[:2]
            assert await client.closed() == (4321, "enough")
    assert seen == [42, 42, "7", (host, port), "de", 3]


@covers("A16", "A39")
async def test_ops_are_the_hubs_and_other_text_the_handlers(lane: str) -> None:
    hub = Hub()
    heard: list[str] = []

    @hub.on("/app")
    async def on_message(conn: WebSocket, message: str) -> None:
        heard.append(message)
        await conn.send("heard")

    async with running(hub, lane=lane, presence_broadcast="all") as node:
        async with node.client("/app", user=101) as client:
            reply = await client.ask("join", room="lobby")
            assert reply["ok"] and reply["room"] == "lobby"
            await client.say({"op": "get_presence"})
            while (frame := await client.frame()).get("type") != "presence_list":
                pass
            assert frame == {"op": "broadcast", "type": "presence_list", "users": [101]}
            for text in ("plain", '{"op":"mine"}', "[1]"):
                await client.say(text)
                assert await client.hear() == "heard"
            bad = await client.ask("join", room="no such name!")
            assert (bad["ok"], bad["code"]) == (False, "invalid_room")
            await hub.send_to_user(101, {"direct": 1})
            assert await client.frame() == {"op": "broadcast", "type": "direct", "data": {"direct": 1}}
            assert await client.ask("leave", room="lobby")
    assert heard == ["plain", '{"op":"mine"}', "[1]"]


async def test_a_path_without_a_message_handler_answers_text_as_ws_does(lane: str) -> None:
    hub = Hub()

    @hub.on_connect("/quiet")
    async def on_connect(conn: WebSocket) -> None:
        await conn.send("connected")

    async with running(hub, lane=lane) as node, node.client("/quiet") as client:
        assert await client.hear() == "connected"
        await client.say("plain")
        assert (await client.frame())["code"] == "bad_request"


async def test_a_handler_may_put_its_connection_into_rooms(lane: str) -> None:
    hub = Hub()
    events: list[tuple[str, str]] = []

    @hub.on_join("lobby")
    async def joined(conn: WebSocket, room: str) -> None:
        events.append(("join", conn.path))

    @hub.on_leave("lobby")
    async def left(conn: WebSocket, room: str) -> None:
        events.append(("leave", conn.path))

    @hub.websocket_route("/raw")
    async def raw(ws: WebSocket) -> None:
        await ws.join("lobby")
        await ws.send("joined")
        assert await ws.receive() == "leave"
        await ws.leave("lobby")
        await ws.send("left")
        await ws.receive()

    async with running(hub, lane=lane) as node, node.client("/raw") as client:
        assert await client.hear() == "joined"
        await hub.publish("lobby", {"n": 1})
        frame = await client.frame()
        assert (frame["type"], frame["data"], frame["user_id"]) == ("message", {"n": 1}, None)
        await client.say("leave")
        assert await client.hear() == "left"
        await hub.publish("lobby", {"n": 2})
        assert [m["data"] for m in await hub.history("lobby")] == [{"n": 1}, {"n": 2}]
        await hub.broadcast("/raw", "end")
        assert await client.hear() == "end", "the second message did not reach it"
    assert events == [("join", "/raw"), ("leave", "/raw")]

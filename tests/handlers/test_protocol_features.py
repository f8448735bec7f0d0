"""What the reference frameworks' clients see of presence, typing and receipts, in their very frames."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from starlette.routing import Mount

from roomcast import Hub
from tests.handlers.world import LANES, Client, connected, running
from tests.support.features import covers
from tests.support.served import raw_client

pytestmark = pytest.mark.parametrize("lane", LANES)


async def until(client: Client, kind: str) -> Any:
    """The next frame of this type, without the code that may have been added."""
    while (frame := await client.frame()).get("type") != kind:
        pass
    return frame


@covers("A13", "A16", "A17", "A18")
async def test_presence_counts_tabs_over_all_nodes(lane: str) -> None:
    shared: dict[str, Any] = {"broker": f"memory://{uuid.uuid4()}", "presence_broadcast": "all", "grace_s": 0.05}
    async with running(Hub(), lane=lane, **shared) as here, running(Hub(), lane=lane, **shared) as there:
        async with here.member("watcher") as watcher:
            own = {"op": "broadcast", "type": "presence", "user_id": "watcher", "status": "online"}
            online = {"op": "broadcast", "type": "presence", "user_id": 42, "status": "online"}
            async with here.member(42):
                frame = await until(watcher, "presence")
                assert (await until(watcher, "presence") if frame == own else frame) == online
                async with there.member(42), there.member(43):
                    assert (await until(watcher, "presence"))["user_id"] == 43, "a second tab changes nothing"
                    await watcher.say({"op": "get_presence"})
                    listed = await until(watcher, "presence_list")
                    assert sorted(listed.pop("users"), key=str) == [42, 43, "watcher"]
                    assert listed == {"op": "broadcast", "type": "presence_list"}
                assert (await until(watcher, "presence"))["user_id"] == 43, "nor does closing it"
            assert await until(watcher, "presence") == {**online, "status": "offline"}


@covers("A22", "A23")
async def test_typing_goes_to_all_others_in_the_room(lane: str) -> None:
    async with running(Hub(), lane=lane) as node:
        async with node.member(42, "chat-room") as ann, node.member(43, "chat-room") as bob:
            await ann.say({"op": "typing", "room": "chat-room", "typing": True})
            assert await bob.frame() == {
                "op": "broadcast",
                "type": "typing",
                "room": "chat-room",
                "user_id": 42,
                "typing": True,
            }
            assert (await ann.ask("ping"))["op"] == "pong"


@covers("A24", "A25")
async def test_receipts_go_to_all_others_in_the_room(lane: str) -> None:
    hub = Hub()
    async with running(hub, lane=lane) as node:
        async with node.member(42, "chat-room") as ann, node.member(43, "chat-room") as bob:
            for number in range(3):
                await hub.publish("chat-room", number)
                assert (await ann.frame())["data"] == (await bob.frame())["data"] == number
            await ann.say({"op": "receipt", "room": "chat-room", "message_id": 2, "status": "read"})
            assert await bob.frame() == {
                "op": "broadcast",
                "type": "receipt",
                "room": "chat-room",
                "message_id": 2,
                "user_id": 42,
                "status": "read",
            }


@covers("B22")
async def test_another_real_time_server_is_mounted_beside_the_hub(lane: str) -> None:
    """Socket.IO and its like are ASGI applications: the hub's node serves them as they are."""

    async def other(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept"})
            await send({"type": "websocket.send", "text": "other " + scope["path"]})
            await receive()
        else:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"polling"})

    async with running(Hub(routes=[Mount("/socket.io", app=other)]), lane=lane) as node:
        async with connected(node.url + "/socket.io/") as client, node.member("ann", "lobby"):
            assert await client.hear() == "other /socket.io/"
        request = b"GET /socket.io/ HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
        async with raw_client(node.port, request) as http:
            assert b"polling" in await http.rest()

"""Handler classes and controllers, as in Nori and Nexios."""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

import jwt
import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute

from roomcast import Hub, JsonWebSocketHandler, WebSocket, WebSocketEndpoint, WebSocketHandler
from tests.handlers.world import LANES, SECRET, connected, running, session_cookie
from tests.support.features import covers
from tests.support.served import lane_config, raw_client, serving

pytestmark = pytest.mark.parametrize("lane", LANES)


class ChatHandler(JsonWebSocketHandler):
    def __init__(self) -> None:
        self.left: list[int] = []
        self.done = asyncio.Event()

    async def on_connect(self, websocket: WebSocket) -> None:
        websocket.state.count = 0
        await websocket.send_json({"event": "welcome", "message": "Connected to the server"})

    async def on_receive_json(self, websocket: WebSocket, data: dict[str, Any]) -> None:
        websocket.state.count += 1
        await websocket.send_json({"event": "echo", "original_data": data, "count": websocket.state.count})

    async def on_disconnect(self, websocket: WebSocket, close_code: int) -> None:
        self.left.append(close_code)
        self.done.set()


@covers("N1", "N2", "N3", "N6", "N7", "N8", "N12")
async def test_a_json_handler_greets_echoes_and_cleans_up(lane: str) -> None:
    hub, handler = Hub(), ChatHandler()
    hub.add_ws_route(handler, "/ws/chat")
    async with running(hub, lane=lane) as node:
        async with node.client("/ws/chat") as client:
            assert await client.frame() == {"event": "welcome", "message": "Connected to the server"}
            for count in (1, 2):
                await client.say({"n": count})
                assert await client.frame() == {"event": "echo", "original_data": {"n": count}, "count": count}
            await client.ws.close(4005)
        await asyncio.wait_for(handler.done.wait(), 30)
    assert handler.left == [4005]


@covers("N6")
async def test_on_receive_of_a_json_handler_gets_a_dict(lane: str) -> None:
    class Handler(JsonWebSocketHandler):
        async def on_receive(self, websocket: WebSocket, data: Any) -> None:
            await websocket.send_json({"message": data.get("message")})

    hub = Hub()
    hub.add_ws_route(Handler, "/json")
    async with running(hub, lane=lane) as node, node.client("/json") as client:
        await client.say({"message": "m"})
        assert await client.frame() == {"message": "m"}
        await client.say("[1]")
        assert await client.closed() == (1003, "a JSON object is expected here")


@covers("N1", "N5", "N14")
async def test_instances_stand_in_starlettes_own_routes_beside_http(lane: str) -> None:
    class Echo(WebSocketHandler):
        async def on_receive(self, websocket: WebSocket, data: str) -> None:
            await websocket.send(data.upper())

    async def page(request: Any) -> PlainTextResponse:
        return PlainTextResponse("page")

    routes = [Route("/page", page), WebSocketRoute("/ws/echo", Echo())]
    async with running(Hub(routes=routes), lane=lane) as node, node.client("/ws/echo") as client:
        await client.say("raw {string")
        assert await client.hear() == "RAW {STRING"
    async with serving(lane_config(Starlette(routes=routes), fast=lane == "fast")) as alone:
        async with connected(alone.url + "/ws/echo") as client:
            await client.say("without a hub")
            assert await client.hear() == "WITHOUT A HUB"
        async with raw_client(alone.port, b"GET /page HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n") as http:
            assert (await http.rest()).endswith(b"page")


@covers("N4", "N11", "N12")
@pytest.mark.parametrize("browser", ["signed in", "signed out", "forged", "no origin"])
async def test_a_session_is_checked_in_on_connect(lane: str, browser: str) -> None:
    class ProtectedChatHandler(JsonWebSocketHandler):
        async def on_connect(self, websocket: WebSocket) -> None:
            user_id = websocket.session.get("user_id")
            if not user_id:
                await websocket.close(code=4001)
                return
            websocket.state.user_id = user_id
            await websocket.send_json({"event": "welcome", "user_id": user_id})

        async def on_receive(self, websocket: WebSocket, data: dict[str, Any]) -> None:
            await websocket.send_json({"from": websocket.state.user_id, "message": data.get("message")})

    hub = Hub()
    hub.add_ws_route(ProtectedChatHandler(), "/ws/chat")
    async with running(hub, lane=lane, secret="x" * 32, session_secret=SECRET) as node:
        cookie = session_cookie({"user_id": 42} if browser != "signed out" else {"theme": "dark"})
        if browser == "forged":
            cookie = session_cookie({"user_id": 42}, "another secret")
        own = {} if browser == "no origin" else {"origin": f"http://127.0.0.1:{node.port}"}
        async with node.client("/ws/chat", cookie, **own) as client:
            if browser == "signed in":
                assert await client.frame() == {"event": "welcome", "user_id": 42}
                await client.say({"message": "m"})
                assert await client.frame() == {"from": 42, "message": "m"}
            else:
                assert await client.closed() == (4001, "")


@covers("N13")
async def test_a_handler_may_verify_a_token_from_the_query_itself(lane: str) -> None:
    class Handler(JsonWebSocketHandler):
        async def on_connect(self, websocket: WebSocket) -> None:
            try:
                payload = jwt.decode(websocket.query_params.get("token") or "", SECRET, algorithms=["HS256"])
            except jwt.InvalidTokenError:
                await websocket.close(code=4001)
                return
            await websocket.send_json(payload)

    hub = Hub()
    hub.add_ws_route(Handler(), "/ws/chat")
    async with running(hub, lane=lane, secret="the node's own secret, another one altogether") as node:
        async with node.client("/ws/chat", token=jwt.encode({"user_id": 1}, SECRET)) as client:
            assert await client.frame() == {"user_id": 1}
        bad: list[dict[str, Any]] = [{}, {"token": "bad"}, {"token": jwt.encode({"user_id": 1}, "y" * 40)}]
        for query in bad:
            async with node.client("/ws/chat", **query) as client:
                assert await client.closed() == (4001, "")


@covers("N9", "N10")
async def test_who_says_nothing_for_long_is_closed_with_1000(lane: str) -> None:
    class Impatient(WebSocketHandler):
        receive_timeout: ClassVar[float | None] = 0.1

        async def on_receive(self, websocket: WebSocket, data: str) -> None:
            await websocket.send(data)

    assert WebSocketHandler.receive_timeout == 300
    hub = Hub()
    hub.add_ws_route(Impatient, "/idle")
    async with running(hub, lane=lane) as node, node.client("/idle") as client:
        await client.say("here")
        assert await client.hear() == "here"
        assert await client.closed() == (1000, "nothing was said for 0.1 s")


@covers("X6", "X7")
async def test_a_controller_accepts_and_reads_by_itself(lane: str) -> None:
    class WebSocketController(WebSocketEndpoint):
        path = "/ws/controller"

        async def on_connect(self, websocket: WebSocket) -> None:
            await websocket.accept()

        async def on_receive(self, websocket: WebSocket) -> None:
            while True:
                data = await websocket.receive_text()
                await self.send_text(f"Echo: {data}")

    hub = Hub()
    hub.add_ws_route(WebSocketController())
    async with running(hub, lane=lane) as node:
        async with node.client("/ws/controller") as a, node.client("/ws/controller") as b:
            await a.say("a")
            await b.say("b")
            assert (await a.hear(), await b.hear()) == ("Echo: a", "Echo: b"), "self speaks to the right connection"


@covers("X6", "X7")
async def test_a_controller_needs_no_base_class_and_may_take_one_message_at_a_time(lane: str) -> None:
    class Controller:
        async def on_connect(self, websocket: WebSocket) -> None:
            await websocket.accept(subprotocol="chat")

        def on_receive(self, websocket: Any, data: str) -> None:
            websocket.send_text(data * 2)

    hub = Hub()
    hub.add_ws_route("/c", Controller())  # as Starlette has it: the path first
    async with running(hub, lane=lane) as node, node.client("/c", subprotocols=["chat"]) as client:
        assert client.ws.subprotocol == "chat"
        await client.say("ab")
        assert await client.hear() == "abab"

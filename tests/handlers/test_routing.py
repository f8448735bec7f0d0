"""Routers that group and nest, middleware of both kinds, and YAML."""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path
from typing import Any

import msgpack
import pytest
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from websockets.exceptions import InvalidStatus

from roomcast import Hub, WebSocket, WebSocketRouter, YamlError
from tests.handlers.world import LANES, SECRET, Running, running, session_cookie
from tests.support.features import covers
from tests.support.served import raw_client

lanes = pytest.mark.parametrize("lane", LANES)


def chat_router() -> WebSocketRouter:
    router = WebSocketRouter()

    @router.ws_route("/chat")
    async def chat(websocket: WebSocket) -> None:
        await websocket.accept()
        async for data in websocket:
            await websocket.send_text(f"Chat Message: {data}")

    @router.ws_route("/notifications")
    async def notifications(websocket: WebSocket) -> None:
        await websocket.send_text("Notification")

    return router


@lanes
@covers("X1", "X11", "X12")
async def test_routers_group_endpoints_and_are_mounted_anywhere(lane: str) -> None:
    inner, outer, hub = chat_router(), WebSocketRouter(prefix="/v1"), Hub()
    outer.mount_ws_router(inner, prefix="/team/[team]")
    hub.mount_ws_router(inner)
    hub.include_ws_router(outer)

    @inner.on("/late")
    async def late(conn: WebSocket, message: str) -> None:
        await conn.send(f"{conn.params} {message}")

    async with running(hub, lane=lane) as node:
        for path in ("/chat", "/v1/team/blue/chat"):
            async with node.client(path) as client:
                await client.say("x")
                assert await client.hear() == "Chat Message: x"
        async with node.client("/v1/team/blue/notifications") as client:
            assert await client.hear() == "Notification"
        async with node.client("/v1/team/blue/late") as client:
            await client.say("x")
            assert await client.hear() == "{'team': 'blue'} x"


async def auth_check(websocket: WebSocket, call_next: Any) -> None:
    if websocket.query_params.get("token") != "valid-token":
        await websocket.accept()
        await websocket.close(code=1008, reason="Unauthorized")
        return
    await call_next()


class Header:
    """Class middleware with an argument."""

    def __init__(self, name: str = "x-team") -> None:
        self.name = name

    async def __call__(self, websocket: WebSocket, call_next: Any) -> None:
        websocket.state.team = websocket.headers.get(self.name)
        await call_next(websocket)


@lanes
@covers("X13", "X14", "X15")
async def test_middleware_runs_before_handlers_and_may_turn_away(lane: str) -> None:
    hub = Hub()
    hub.mount_ws_router(chat_router())
    hub.add_ws_middleware(auth_check)
    hub.add_ws_middleware(Header, name="x-group")

    @hub.on_connect("/team")
    async def team(conn: WebSocket) -> None:
        await conn.send(conn.state.team)

    async with running(hub, lane=lane) as node:
        for path in ("/chat", "/team", "/ws"):
            async with node.client(path, user="ann") as client:
                assert await client.closed() == (1008, "Unauthorized")
        async with node.client("/team", {"x-group": "blue"}, token="valid-token") as client:
            assert await client.hear() == "blue"
        async with node.client("/ws", token="valid-token", user="ann") as client:
            assert (await client.frame())["user_id"] == "ann"
            assert (await client.ask("join", room="lobby"))["ok"], "the protocol works behind middleware"
            await hub.publish("lobby", 1)
            assert (await client.frame())["data"] == 1
        async with node.client("/ws", token="valid-token", subprotocols=["roomcast.msgpack.v1"]) as client:
            assert client.ws.subprotocol == "roomcast.msgpack.v1"
            assert msgpack.unpackb(await client.hear())["op"] == "welcome"
            await client.say(msgpack.packb({"op": "ping", "id": 1}))
            assert msgpack.unpackb(await client.hear()) == {"op": "pong", "id": 1}


@lanes
@covers("X11", "X13")
async def test_a_routers_middleware_is_its_own_and_stays_around_the_handler(lane: str) -> None:
    order: list[str] = []
    guarded, hub = chat_router(), Hub()

    async def around(websocket: WebSocket, call_next: Any) -> None:
        order.append("before")
        await call_next()
        order.append("after")

    guarded.add_ws_middleware(around)
    hub.mount_ws_router(guarded, "/guarded")
    hub.mount_ws_router(chat_router())
    async with running(hub, lane=lane) as node:
        async with node.client("/notifications") as client:
            await client.closed()
        assert order == []
        async with node.client("/guarded/notifications") as client:
            await client.closed()
        assert order == ["before", "after"]


class Counting:
    """Plain ASGI middleware that wraps what it sees."""

    events: list[str]

    def __init__(self, app: Any, events: list[str]) -> None:
        self.app = app
        self.events = events

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def counted(event: Any) -> None:
            self.events.append(event["type"])
            await send(event)

        await self.app(scope, receive, counted)


@lanes
async def test_plain_asgi_middleware_sees_every_event(lane: str) -> None:
    events: list[str] = []
    hub = Hub(middleware=[Middleware(Counting, events=events)])
    hub.mount_ws_router(chat_router())
    async with running(hub, lane=lane) as node:
        async with node.client("/chat") as client:
            await client.say("x")
            assert await client.hear() == "Chat Message: x"
            await hub.broadcast("/chat", "to all")
            assert await client.hear() == "to all"
        async with node.member("ann", "lobby") as client:
            await hub.publish("lobby", 1)
            assert (await client.frame())["data"] == 1
    assert events.count("websocket.accept") == 2 and events.count("websocket.send") == 5


PINGBOT = """
log = []

def open(handler):
    log.append(("open", handler.session["id"]))
    handler.write_message({"opened": True})

def on_message(handler, message):
    log.append(("message", handler.session["id"]))
    handler.write_message("Got message: " + message)

async def on_close(handler):
    log.append(("close", handler.session["id"]))
"""
YAML = """
url:
  pingbot:
    pattern: /pingbot
    handler: WebSocketHandler
    kwargs:
      open: {{function: {module}.open}}
      on_message: {{function: {module}.on_message}}
      on_close: {{function: {module}.on_close}}
      origins: [gramener.example, localhost, 127.0.0.1]
  members:
    pattern: /members/[room]
    handler: WebSocketHandler
    kwargs:
      on_message: {{function: {module}.on_message}}
      auth: true
"""


@pytest.fixture
def pingbot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    name = f"pingbot_{abs(hash(request.node.name))}"
    (tmp_path / f"{name}.py").write_text(PINGBOT)
    (tmp_path / "bots.yaml").write_text(YAML.format(module=name))
    monkeypatch.syspath_prepend(str(tmp_path))
    return name


@lanes
@covers("G1", "G2", "G3", "G4", "G7", "G8")
async def test_yaml_names_the_functions(lane: str, pingbot: str, tmp_path: Path) -> None:
    hub = Hub()
    hub.add_yaml(tmp_path / "bots.yaml")
    async with running(hub, lane=lane) as node:
        async with node.client("/pingbot") as client:
            assert await client.frame() == {"opened": True}
            await client.say("Hello world")
            assert await client.hear() == "Got message: Hello world"
    log = sys.modules[pingbot].log
    assert [step for step, _ in log] == ["open", "message", "close"]
    assert len({id for _, id in log}) == 1 and log[0][1]


@lanes
@covers("G5", "A3")
@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        ("https://gramener.example", True),
        ("http://localhost:5173", True),
        ("https://sub.gramener.example", False),
        ("https://gramener.example.evil", False),
        ("null", False),
    ],
)
async def test_yaml_origins_are_bare_domains(
    lane: str, pingbot: str, tmp_path: Path, origin: str, allowed: bool
) -> None:
    hub = Hub()
    hub.add_yaml(tmp_path / "bots.yaml")
    async with running(hub, lane=lane, secret=SECRET) as node:
        if allowed:
            async with node.client("/pingbot", origin=origin) as client:
                assert await client.frame() == {"opened": True}
        else:
            with pytest.raises(InvalidStatus) as refused:
                async with node.client("/pingbot", origin=origin):
                    pass
            assert refused.value.response.status_code == 403


@lanes
@covers("G6", "G7")
async def test_yaml_auth_asks_for_a_user(lane: str, pingbot: str, tmp_path: Path) -> None:
    hub = Hub()
    hub.add_yaml(tmp_path / "bots.yaml")
    async with running(hub, lane=lane, secret="x" * 32, session_secret=SECRET) as node:
        own = f"http://127.0.0.1:{node.port}"
        async with node.client("/members/a", origin=own) as client:
            assert (await client.closed())[0] == 4001
        cookie = session_cookie({"user_id": 7, "id": "browser-1"})
        async with node.client("/members/a", cookie, origin=own) as client:
            await client.say("x")
            assert await client.hear() == "Got message: x"
    assert ("message", "browser-1") in sys.modules[pingbot].log, "a session's own id is left alone"


@covers("G1")
@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("url: {}", "needs a mapping `url:`"),
        ("url: {a: {handler: WebSocketHandler}}", "url.a: needs a pattern"),
        ("url: {a: {pattern: /a, handler: FileHandler}}", "must be WebSocketHandler"),
        ("url: {a: {pattern: /a, handler: WebSocketHandler, kwargs: {opne: x.y}}}", "kwargs may be auth, "),
        ("url: {a: {pattern: /a, handler: WebSocketHandler, kwargs: {auth: maybe}}}", "auth is true or false"),
        ("url: {a: {pattern: /a, handler: WebSocketHandler, kwargs: {origins: {a: 1}}}}", "origins is a list"),
        ("url: {a: {pattern: /a, handler: WebSocketHandler, kwargs: {open: {function: json.nope}}}}", "json has no"),
        ("url: {a: {pattern: /a, handler: WebSocketHandler, kwargs: {open: {function: nope.x}}}}", "cannot import"),
        ("url: [", "cannot read"),
    ],
)
def test_a_mistake_in_yaml_is_one_line(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text(textwrap.dedent(text))
    with pytest.raises(YamlError, match=said) as error:
        Hub().add_yaml(tmp_path / "bad.yaml")
    assert "\n" not in str(error.value)


def test_what_cannot_be_registered_says_why() -> None:
    hub = Hub()
    with pytest.raises(ValueError, match="/ws is the node's own"):
        hub.on("/ws")
    with pytest.raises(ValueError, match="where shall"):
        hub.add_ws_route(auth_check)
    with pytest.raises(ValueError, match="no type of message"):
        hub.websocket_route("/a", value_type="xml")(auth_check)
    with pytest.raises(TypeError, match="takes no connection"):
        hub.websocket_route("/a")(lambda: None)
    with pytest.raises(ValueError, match="another auth"):
        hub.on("/a", auth=True)
        hub.on_connect("/a", auth=False)


async def test_in_dev_mode_the_root_leads_to_the_demo_unless_the_application_has_one() -> None:
    async def head_of(node: Running) -> bytes:
        async with raw_client(node.served.port, b"GET /?user=bob HTTP/1.1\r\nHost: a\r\n\r\n") as client:
            status, head = await client.head()
            return b"%d %s" % (status, head)

    def own(request: Request) -> PlainTextResponse:
        return PlainTextResponse("mine")

    async with running(Hub()) as node:
        answer = await head_of(node)
        assert answer.startswith(b"307 ") and b"location: demo?user=bob\r\n" in answer
    async with running(Hub(routes=[Route("/", own)])) as node:
        assert (await head_of(node)).startswith(b"200 ")
    async with running(Hub(), secret=SECRET) as node:
        assert (await head_of(node)).startswith(b"404 "), "only in dev mode"

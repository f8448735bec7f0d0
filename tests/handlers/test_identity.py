"""Who may come, and for how long: over real sockets, on both lanes, and on every node of a cluster."""

from __future__ import annotations

import asyncio
import time
import uuid
from contextlib import AsyncExitStack
from typing import Any, ClassVar

import jwt
import pytest
from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import PlainTextResponse
from websockets.exceptions import ConnectionClosedError, InvalidStatus

from roomcast import Hub, Settings, WebSocket
from server import expiry
from server.revocation import Revoked
from tests.handlers.world import LANES, SECRET, Running, running, session_cookie
from tests.support.busy import busy_s
from tests.support.features import covers
from tests.support.redis_server import RedisServer
from tests.support.served import raw_client

lanes = pytest.mark.parametrize("lane", LANES)


def token(ttl_s: float = 60, **claims: Any) -> str:
    now = time.time()
    return jwt.encode({"user_id": "ann", "exp": now + ttl_s, "iat": now - 5, **claims}, SECRET)


async def user_on_ws(node: Running, headers: dict[str, str] | None = None, **options: Any) -> Any:
    """Who the welcome says one is, or the close code."""
    async with node.client("/ws", headers, **options) as client:
        try:
            return (await client.frame())["user_id"]
        except ConnectionClosedError as error:
            assert error.rcvd is not None
            return error.rcvd.code


@lanes
async def test_tokens_come_by_header_query_and_subprotocol(lane: str) -> None:
    async with running(Hub(), lane=lane, secret=SECRET) as node:
        assert await user_on_ws(node, token=token()) == "ann"
        assert await user_on_ws(node, {"authorization": f"Bearer {token(user_id=42)}"}) == 42
        offered = ["roomcast.json.v1", f"roomcast.token.{token()}"]
        async with node.client("/ws", subprotocols=offered) as client:
            assert client.ws.subprotocol == "roomcast.json.v1" and (await client.frame())["user_id"] == "ann"
        assert await user_on_ws(node) == 4001
        assert await user_on_ws(node, token="bad") == 4001
        assert await user_on_ws(node, user="ann") == 4001, "?user= is for dev mode"


@lanes
@covers("A8", "A26")
async def test_a_cookie_counts_only_with_an_allowed_origin(lane: str) -> None:
    hub = Hub(allowed_origins=["https://shop.example"])
    cookie = session_cookie({"user_id": 42})
    users = {42: "the model instance"}
    seen: list[Any] = []

    @hub.load_user
    def load_user(user_id: Any) -> Any:
        return users.get(user_id)

    @hub.on_connect("/who")
    async def who(conn: WebSocket) -> None:
        seen.append(conn.user)
        await conn.send("seen")

    async with running(hub, lane=lane, secret="x" * 32, session_secret=SECRET) as node:
        own = f"http://127.0.0.1:{node.port}"
        assert await user_on_ws(node, cookie, origin=own) == 42
        assert await user_on_ws(node, cookie, origin="https://shop.example") == 42
        assert await user_on_ws(node, cookie) == 4001, "no Origin: the cookie authenticates nobody"
        assert await user_on_ws(node, session_cookie({"user_id": 42}, "forged" * 9), origin=own) == 4001
        assert await user_on_ws(node, session_cookie({"user_id": 7}), origin=own) == 4001, "unknown to the application"
        for foreign in ("https://evil.example", "null", f"http://127.0.0.1:{node.port + 1}"):
            with pytest.raises(InvalidStatus) as refused:
                await user_on_ws(node, cookie, origin=foreign)
            assert refused.value.response.status_code == 403
        async with node.client("/who", cookie, origin=own) as client:
            assert await client.hear() == "seen"
    assert seen == ["the model instance"]


ORIGINS = [
    ("https://a.com", True),
    ("https://A.COM", True),
    ("https://x.mydomain.com", True),
    ("https://b.com", True),
    ("https://c.com", True),
    ("https://cors.example", True),
    ("https://mydomain.com", False),
    ("https://a.com.evil", False),
    ("https://a.com:8443", False),
    ("http://a.com", False),
    ("null", False),
    ("https://anything.example", False),
]


@lanes
@covers("A3", "A4", "A5", "A6", "A7")
@pytest.mark.parametrize(("origin", "allowed"), ORIGINS)
async def test_origins_come_from_settings_constructor_environment_and_the_applications_cors(
    lane: str, origin: str, allowed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WS_ALLOWED_ORIGINS", "https://b.com, https://unused.example")

    class App:
        config: ClassVar[dict[str, Any]] = {"CORS_ORIGINS": ["https://c.com", "*"]}

    hub = Hub(app=App(), allowed_origins=["https://a.com", "https://*.mydomain.com"])
    hub.on_connect("/x", auth=False)(lambda conn: conn.send("in"))
    async with running(hub, lane=lane, secret=SECRET, origins="https://cors.example") as node:
        for path in ("/ws", "/x"):
            if allowed:
                async with node.client(path, origin=origin, token=token()) as client:
                    assert await client.hear()
            else:
                with pytest.raises(InvalidStatus) as refused:
                    async with node.client(path, origin=origin, token=token()):
                        pass
                assert refused.value.response.status_code == 403


@covers("A4")
async def test_local_pages_are_allowed_while_developing_only() -> None:
    hub = Hub()
    for settings, allowed in (({"dev": True}, True), ({"secret": SECRET}, False)):
        async with running(hub, **settings) as node:
            for origin in ("http://localhost:5173", "http://127.0.0.1:3000"):
                if allowed:
                    assert await user_on_ws(node, origin=origin, user=1) == 1
                else:
                    with pytest.raises(InvalidStatus):
                        await user_on_ws(node, origin=origin, token=token())


@covers("A4")
async def test_the_cors_list_of_a_fastapi_application_counts() -> None:
    app = FastAPI()
    app.add_middleware(CORSMiddleware, allow_origins=["https://front.example", "*"])
    async with running(Hub(app=app), secret=SECRET) as node:
        assert await user_on_ws(node, origin="https://front.example", token=token()) == "ann"
        with pytest.raises(InvalidStatus):
            await user_on_ws(node, origin="https://other.example", token=token())


@lanes
@covers("A30")
async def test_forwarded_headers_count_only_from_trusted_proxies(lane: str) -> None:
    claimed = {"x-forwarded-for": "203.0.113.9", "x-forwarded-host": "evil.example", "forwarded": "host=evil.example"}
    for trusted, address in ((), "127.0.0.1"), (("127.0.0.1",), "203.0.113.9"):
        hub = Hub()
        hub.on_connect("/addr", auth=False)(lambda conn: conn.send(conn.addr[0]))
        async with running(hub, lane=lane, secret=SECRET, trusted_proxies=trusted) as node:
            async with node.client("/addr", claimed) as client:
                assert await client.hear() == address
            with pytest.raises(InvalidStatus):
                async with node.client("/addr", claimed, origin="https://evil.example"):
                    pass


@lanes
async def test_who_comes_where(lane: str) -> None:
    """Protocol endpoints want credentials as /ws does, raw ones are the application's affair, unless said otherwise."""
    hub = Hub()
    hub.on_connect("/on")(lambda conn: conn.send(str(conn.user_id)))
    hub.on_connect("/free", auth=False)(lambda conn: conn.send(str(conn.user_id)))
    hub.websocket_route("/raw")(lambda ws: ws.send(str(ws.user_id)))
    hub.websocket_route("/guarded", auth=True)(lambda ws: ws.send(str(ws.user_id)))
    results: dict[str, list[Any]] = {}
    async with running(hub, lane=lane, secret=SECRET) as node:
        for path in ("/on", "/free", "/raw", "/guarded"):
            attempts: list[dict[str, Any]] = [{}, {"token": token()}, {"token": "bad"}]
            for given in attempts:
                async with node.client(path, **given) as client:
                    try:
                        results.setdefault(path, []).append(await client.hear())
                    except ConnectionClosedError as error:
                        results.setdefault(path, []).append(error.rcvd and error.rcvd.code)
    assert results == {
        "/on": [4001, "ann", 4001],
        "/free": ["None", "ann", 4001],
        "/raw": ["None", "ann", "None"],
        "/guarded": [4001, "ann", 4001],
    }


@lanes
async def test_grants_in_the_token(lane: str) -> None:
    hub = Hub()
    hub.room_authorizer("chat:closed")(lambda conn, room: False)
    rooms = {"chat:*": ["join", "publish"], "news": ["join"]}
    async with running(hub, lane=lane, secret=SECRET) as node:
        async with node.client("/ws", token=token(rooms=rooms)) as ann:
            await ann.frame()
            assert (await ann.ask("join", room="chat:a"))["ok"] and (await ann.ask("join", room="news"))["ok"]
            assert (await ann.ask("message", room="chat:a", data=1))["ok"]
            assert (await ann.ask("message", room="news", data=1))["code"] == "forbidden"
            assert (await ann.ask("join", room="other"))["code"] == "forbidden"
            assert (await ann.ask("join", room="chat:closed"))["code"] == "forbidden", "authorizers have a say, too"
            assert (await ann.ask("broadcast", data=1))["code"] == "forbidden"
        async with node.client("/ws", token=token(broadcast=True)) as ann:
            await ann.frame()
            assert (await ann.ask("broadcast", data=1))["ok"]


# Expiry (C31).


@lanes
async def test_c31_a_token_that_expires_is_told_of_and_closed_on_every_node(
    lane: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bus: dict[str, Any] = {"broker": f"memory://{uuid.uuid4()}", "secret": SECRET, "leeway_s": 0.3}
    hubs = Hub(), Hub()
    hubs[0].websocket_route("/raw")(lambda ws: ws.receive())
    async with running(hubs[0], lane=lane, **bus) as here, running(hubs[1], lane=lane, **bus) as there:
        expires = time.time() + 1.2
        soon = token(exp=expires)
        async with AsyncExitStack() as stack:
            enter = stack.enter_async_context
            clients = [await enter(node.client("/ws", token=soon)) for node in (here, there)]
            raw = await enter(here.client("/raw", token=soon))
            for client in clients:
                assert (await client.frame())["op"] == "welcome"
                told = await client.frame()
                assert told["op"] == "auth_expiring" and told["in_s"] in (1, 2)
            for client in clients:
                assert (await client.closed())[0] == 4003
                assert expires + 0.3 - 0.1 <= time.time() <= expires + 0.3 + 2
            assert (await raw.closed())[0] == 4003


@lanes
async def test_a_fresh_token_on_the_open_connection(lane: str) -> None:
    async with running(Hub(), lane=lane, secret=SECRET, leeway_s=0) as node:
        rooms = {"a": ["join"], "b": ["join"]}
        async with node.client("/ws", token=token(1.5, rooms=rooms)) as ann:
            assert [(await ann.frame())["op"] for _ in range(2)] == ["welcome", "auth_expiring"]
            for room in rooms:
                assert (await ann.ask("join", room=room))["ok"]
            assert (await ann.ask("auth", token="bad"))["code"] == "unauthorized"
            assert (await ann.ask("auth", token=token(user_id="eve")))["code"] == "forbidden"
            assert (await ann.ask("auth", token=token(300, rooms={"a": ["join"]})))["ok"]
            out = await ann.frame()
            assert (out["type"], out["room"]) == ("error", "b"), "what the new token does not grant is left"
            await asyncio.sleep(1.6)  # the old token's end is the subject
            assert (await ann.ask("leave", room="a"))["ok"]


@lanes
async def test_the_end_of_a_token_is_told_once_and_of_a_short_one_at_half_its_life(lane: str) -> None:
    async with running(Hub(), lane=lane, secret=SECRET, leeway_s=0) as node:
        expires = time.time() + 4
        short = token(exp=expires)
        async with node.client("/ws", token=short) as ann:
            assert [(await ann.frame())["op"] for _ in range(2)] == ["welcome", "auth_expiring"]
            assert 1.5 - busy_s() < expires - time.time() < 2.1
            for id in range(3):
                await ann.say({"op": "auth", "token": short, "id": id})
            assert [(await ann.frame()).get("id") for _ in range(3)] == [0, 1, 2]
            with pytest.raises(ConnectionClosedError) as caught:  # and nothing more is told
                await ann.frame()
            assert caught.value.rcvd is not None and caught.value.rcvd.code == 4003


async def test_expiry_keeps_nothing_of_connections_that_are_gone() -> None:
    class Gone:
        raw = False

    table = expiry.Expiry(30)
    for _ in range(1000):
        connection: Any = Gone()
        table.watch(connection, time.time() + 600)
        table.forget(connection)
    assert not table._due and len(table._moments) <= 65
    table.close()


# Sending away.


@lanes
@pytest.mark.parametrize("by", ["user", "session", "token"])
async def test_disconnect_reaches_every_node_and_they_may_come_back(lane: str, by: str) -> None:
    bus: dict[str, Any] = {"broker": f"memory://{uuid.uuid4()}", "secret": SECRET}
    operator, other = Hub(), Hub()
    other.websocket_route("/raw")(lambda ws: ws.receive())
    async with running(operator, lane=lane, **bus), running(other, lane=lane, **bus) as there:
        mine, bobs = token(jti="t-1"), token(user_id="bob", jti="t-2")
        async with there.client("/ws", token=mine) as ann, there.client("/ws", token=bobs) as bob:
            session = (await ann.frame())["session"]
            await bob.frame()
            async with there.client("/raw", token=mine, session=session) as raw:
                given: dict[str, Any] = {
                    "user": {"user_id": "ann"},
                    "session": {"session": session},
                    "token": {"token_id": "t-1"},
                }[by]
                before = time.monotonic()
                await operator.disconnect(**given)
                assert (await ann.closed())[0] == (await raw.closed())[0] == 4004
                assert time.monotonic() - before < 2 + busy_s()
            assert (await bob.ask("ping"))["op"] == "pong"
        assert await user_on_ws(there, token=mine) == "ann"


@lanes
@pytest.mark.parametrize("by", ["user", "session", "token"])
async def test_revoking_reaches_every_node_those_that_start_later_too(lane: str, by: str) -> None:
    bus: dict[str, Any] = {"broker": f"memory://{uuid.uuid4()}", "secret": SECRET}
    operator, other, later = Hub(), Hub(), Hub()
    async with running(operator, lane=lane, **bus) as here, running(other, lane=lane, **bus) as there:
        old = token(jti="t-1")
        async with there.client("/ws", token=old) as ann:
            session = (await ann.frame())["session"]
            given: dict[str, Any] = {
                "user": {"user_id": "ann"},
                "session": {"session": session},
                "token": {"token_id": "t-1"},
            }[by]
            before = time.monotonic()
            await operator.revoke(**given)
            assert (await ann.closed())[0] == 4004 and time.monotonic() - before < 2 + busy_s()
        async with running(later, lane=lane, **bus) as new:
            for node in (here, there, new):
                assert await user_on_ws(node, token=old, session=session) == 4001
                assert await user_on_ws(node, token=token(user_id="bob")) == "bob"
                fresh = token(jti="t-3", iat=time.time() + 1)
                assert await user_on_ws(node, token=fresh) == "ann", "what was issued since is good"
                async with node.client("/ws", token=fresh) as client:
                    await client.frame()
                    refused = await client.ask("auth", token=old)
                    assert refused["ok"] is (by == "session"), "nor does it replace a good token"


async def test_a_revocation_ends() -> None:
    async with running(Hub(), secret=SECRET) as node:
        revocations = node.node.hub.revocations
        hub = node.node._registered
        assert isinstance(hub, Hub)
        await hub.revoke("ann", for_s=0.2)
        assert await user_on_ws(node, token=token()) == 4001
        await asyncio.sleep(0.25)  # its end is the subject
        assert await user_on_ws(node, token=token()) == "ann"
        with pytest.raises(ValueError, match="lasts up to"):
            await revocations.revoke("user", '"ann"', 1e9)


def test_what_a_revocation_covers() -> None:
    from server.identity import Identity

    user = Revoked("user", "42", at=100.0, until=200.0)
    assert user.covers(Identity("42", issued_at=99), None) and user.covers(Identity("42"), None)
    assert not user.covers(Identity("42", issued_at=101), None) and not user.covers(Identity('"42"'), None)


@lanes
async def test_rooms_are_checked_again_on_every_node(lane: str) -> None:
    bus: dict[str, Any] = {"broker": f"memory://{uuid.uuid4()}", "secret": SECRET}
    members = {"ann", "bob"}
    hubs = Hub(), Hub()
    for hub in hubs:
        hub.room_authorizer("team:*")(lambda conn, room: conn.user_id in members)
    async with running(hubs[0], lane=lane, **bus) as here, running(hubs[1], lane=lane, **bus) as there:
        async with here.client("/ws", token=token()) as ann, there.client("/ws", token=token(user_id="bob")) as bob:
            for client in (ann, bob):
                await client.frame()
                for room in ("team:a", "lobby"):
                    assert (await client.ask("join", room=room))["ok"]
            members.clear()
            await hubs[0].recheck_rooms("bob", "lobby*")
            await hubs[0].recheck_rooms("bob")
            error = await bob.frame()
            assert (error["room"], error["code"]) == ("team:a", "forbidden")
            assert await bob.frame() == {"op": "broadcast", "type": "left", "room": "team:a"}
            await hubs[0].publish("team:a", 1)
            assert (await ann.frame())["data"] == 1, "only bob was asked about"
            await hubs[0].recheck_rooms()
            assert [(await ann.frame())["type"] for _ in range(2)] == ["error", "left"]
            await hubs[0].publish("team:a", 2)
            await hubs[0].publish("lobby", 3)
            assert (await ann.frame())["data"] == (await bob.frame())["data"] == 3


async def test_sending_away_works_over_redis_and_survives_the_nodes(redis_server: RedisServer, prefix: str) -> None:
    shared: dict[str, Any] = {"broker": redis_server.url, "prefix": prefix, "secret": SECRET}
    operator, other = Hub(), Hub()
    allowed = {"ann", "bob"}
    other.room_authorizer(lambda conn, room: conn.user_id in allowed)
    mine, bobs = token(jti="t-1"), token(user_id="bob", jti="t-2")
    async with running(operator, **shared) as here, running(other, **shared) as there:
        for node in (here, there):
            await asyncio.wait_for(node.node.hub.broker.wait_ready(), 30)
        async with there.client("/ws", token=mine) as ann, there.client("/ws", token=bobs) as bob:
            for client in (ann, bob):
                await client.frame()
                assert (await client.ask("join", room="r"))["ok"]
            before = time.monotonic()
            allowed.remove("bob")
            await operator.recheck_rooms()
            assert (await bob.frame())["code"] == "forbidden"
            await operator.revoke("ann")
            assert (await ann.closed())[0] == 4004
            await operator.disconnect(token_id="t-2")
            assert (await bob.closed())[0] == 4004
            assert time.monotonic() - before < 2 + busy_s()
    async with running(Hub(), **shared) as later:
        await asyncio.wait_for(later.node.hub.broker.wait_ready(), 30)
        async with later.client("/ws", token=mine) as again:
            assert (await again.closed())[0] in (4001, 4004), "the log of revocations is read after the start"
        assert await user_on_ws(later, token=bobs) == "bob"


# Mounted into another application.


@lanes
async def test_a_hub_mounts_into_fastapi(lane: str, caplog: pytest.LogCaptureFixture) -> None:
    hub = Hub(Settings(dev=True, presence_broadcast="none"))
    app = FastAPI(lifespan=hub.lifespan)

    @app.get("/page")
    async def page() -> PlainTextResponse:
        await hub.broadcast("/chat/a", "from HTTP")
        return PlainTextResponse("page")

    app.mount("/live", hub.asgi)

    @hub.on("/chat/[room]")
    async def chat(conn: WebSocket, message: str) -> None:
        if message == "fail":
            raise ValueError("on purpose")
        await hub.broadcast(conn.path, message)

    async with running(hub, lane=lane, app=app, under="/live") as outer:
        async with outer.client("/chat/a", user="ann") as ann, outer.client("/ws", user="bob") as bob:
            await ann.say("hello")
            assert await ann.hear() == "hello"
            assert (await bob.frame())["op"] == "welcome" and (await bob.ask("join", room="r"))["ok"]
            async with raw_client(outer.port, b"GET /page HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n") as http:
                assert (await http.rest()).endswith(b"page")
            assert await ann.hear() == "from HTTP"
            await ann.say("fail")
            assert (await ann.closed())[0] == 1011
            assert (await bob.ask("ping"))["op"] == "pong"
    assert len([r for r in caplog.records if r.levelname == "ERROR"]) == 1
    with pytest.raises(RuntimeError, match="hub is not running"):
        await hub.publish("a", 1)


async def test_a_hub_alone_is_an_asgi_application() -> None:
    hub = Hub(Settings(dev=True))
    async with running(hub, app=hub.asgi) as node:
        assert await user_on_ws(node, user=1) == 1
        await hub.publish("a", 1)

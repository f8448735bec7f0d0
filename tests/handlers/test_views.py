"""View functions, as in Bocadillo and Nexios."""

from __future__ import annotations

import asyncio
import logging
from typing import Any
from uuid import UUID

import pytest
from starlette import status
from starlette.middleware import Middleware
from starlette.middleware.sessions import SessionMiddleware
from websockets.exceptions import InvalidStatus

from roomcast import Hub, WebSocket, WebSocketDisconnect
from tests.handlers.world import LANES, running
from tests.support.features import covers

pytestmark = pytest.mark.parametrize("lane", LANES)


@covers("B1", "B3", "B9", "X1", "X4")
async def test_parameters_of_path_and_query_are_typed_keyword_arguments(lane: str) -> None:
    hub = Hub()

    @hub.websocket_route("/chat/{channel}", value_type="json")
    async def chat(ws: WebSocket, channel: str, anonymous: bool = False) -> None:
        user = "Anonymous" if anonymous else ws.headers["user"]
        async for message in ws:
            await ws.send({"user": user, "channel": channel, "message": message})

    async with running(hub, lane=lane) as node:
        async with node.client("/chat/news", {"user": "ann"}) as client:
            await client.say({"a": 1})
            assert await client.frame() == {"user": "ann", "channel": "news", "message": {"a": 1}}
        async with node.client("/chat/news", anonymous="true") as client:
            await client.say("[1]")
            assert await client.frame() == {"user": "Anonymous", "channel": "news", "message": [1]}


@covers("B2", "B3")
@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/nowhere", 403),
        ("/item/x", 403),
        ("/item/5", 400),
        ("/item/5?key=nope", 400),
        ("/item/5?key=12345678-1234-5678-1234-567812345678&tags=a&tags=b", 101),
    ],
)
async def test_unknown_paths_and_bad_parameters_are_refused_before_the_upgrade(
    lane: str, path: str, expected: int
) -> None:
    hub = Hub()
    called = []

    @hub.websocket_route("/item/{number:int}")
    async def item(ws: WebSocket, number: int, key: UUID, tags: list[str] = []) -> None:  # noqa: B006
        called.append((number, key, tags))

    async with running(hub, lane=lane) as node:
        if expected == 101:
            async with node.client(path) as client:
                assert await client.closed() == (1000, "")
            assert called == [(5, UUID("12345678-1234-5678-1234-567812345678"), ["a", "b"])]
        else:
            with pytest.raises(InvalidStatus) as refused:
                async with node.client(path):
                    pass
            assert refused.value.response.status_code == expected and not called


@covers("B4")
async def test_the_request_can_be_inspected(lane: str) -> None:
    hub = Hub(middleware=[Middleware(SessionMiddleware, secret_key="x" * 32)])
    seen: dict[str, Any] = {}

    @hub.websocket_route("/look")
    async def look(ws: WebSocket) -> None:
        seen.update(url=str(ws.url), header=ws.headers["X-CASE"], page=ws.query_parameters["page"], session=ws.session)
        with pytest.raises(TypeError):
            ws.headers["x"] = "y"  # type: ignore[index]

    async with running(hub, lane=lane) as node:
        async with node.client("/look", {"x-case": "a"}, page=2) as client:
            await client.closed()
        assert seen == {"url": f"ws://127.0.0.1:{node.port}/look?page=2", "header": "a", "page": "2", "session": {}}


@covers("B5", "B12", "X3")
async def test_four_lines_make_an_echo(lane: str) -> None:
    hub = Hub()

    @hub.websocket_route("/echo")
    async def echo(ws: WebSocket) -> None:
        message = await ws.receive()
        await ws.send(f"You said: {message}")

    async with running(hub, lane=lane) as node, node.client("/echo") as client:
        await client.say("hi")
        assert await client.hear() == "You said: hi"
        assert await client.closed() == (1000, "")


@covers("B6", "B7", "B8")
@pytest.mark.parametrize(
    ("options", "said", "received", "sent", "heard"),
    [
        ({}, "a", "a", "b", "b"),
        ({"receive_type": "json"}, '{"a":1}', {"a": 1}, "b", "b"),
        ({"send_type": "json"}, "a", "a", {"b": 2}, '{"b":2}'),
        ({"value_type": "json"}, '{"a":1}', {"a": 1}, {"b": "ü"}, '{"b":"ü"}'),
        ({"value_type": "bytes"}, b"\x00\xff", b"\x00\xff", b"\xff", b"\xff"),
        ({"value_type": "bytes", "send_type": "text"}, b"\x00\xff", b"\x00\xff", "b", "b"),
    ],
)
async def test_types_of_messages(
    lane: str, options: dict[str, Any], said: str | bytes, received: Any, sent: Any, heard: str | bytes
) -> None:
    hub = Hub()
    got: list[Any] = []

    @hub.websocket_route("/typed", **options)
    async def typed(ws: WebSocket) -> None:
        got.append(await ws.receive())
        await ws.send(sent)

    async with running(hub, lane=lane) as node, node.client("/typed") as client:
        await client.say(said)
        assert await client.hear() == heard
        assert got == [received]


@covers("B6", "B7")
async def test_each_type_has_its_own_methods_too(lane: str) -> None:
    hub = Hub()

    @hub.websocket_route("/all")
    async def view(ws: WebSocket) -> None:
        await ws.send_text(await ws.receive_text())
        await ws.send_json(await ws.receive_json())
        await ws.send_bytes(await ws.receive_bytes())

    async with running(hub, lane=lane) as node, node.client("/all") as client:
        for message in ("text", "[1]", b"bytes"):
            await client.say(message)
            assert await client.hear() == message


async def test_what_is_no_json_closes_with_1003_and_is_no_failure(lane: str, caplog: pytest.LogCaptureFixture) -> None:
    hub = Hub()

    @hub.websocket_route("/json", value_type="json")
    async def view(ws: WebSocket) -> None:
        await ws.receive()

    async with running(hub, lane=lane) as node, node.client("/json") as client:
        await client.say("{")
        assert (await client.closed())[0] == 1003
    assert not [r for r in caplog.records if r.levelno >= logging.ERROR]


@covers("B10")
async def test_raw_events(lane: str) -> None:
    hub = Hub()

    @hub.websocket_route("/echo")
    async def echo(ws: WebSocket) -> None:
        event = await ws.receive_event()
        await ws.send_event({"type": "websocket.send", "text": f"You said: {event['text']}"})

    async with running(hub, lane=lane) as node, node.client("/echo") as client:
        await client.say("hi")
        assert await client.hear() == "You said: hi"


@covers("B13", "B14", "B15", "B16", "X2")
async def test_opening_and_closing_by_hand(lane: str) -> None:
    hub = Hub()
    done = asyncio.Event()

    @hub.websocket_route("/manual", auto_accept=False)
    async def manual(ws: WebSocket) -> None:
        await ws.accept()
        await ws.close(4000)
        with pytest.raises(RuntimeError):
            await ws.close()
        await ws.ensure_closed()

    @hub.websocket_route("/with", auto_accept=False)
    async def within(ws: WebSocket) -> None:
        async with ws:
            await ws.send("inside")
            await ws.close(4100, "enough")
        await ws.ensure_closed()
        done.set()

    @hub.websocket_route("/leave", auto_accept=False)
    async def leave(ws: WebSocket) -> None:
        async with ws:
            await ws.send("inside")

    async with running(hub, lane=lane) as node:
        async with node.client("/manual") as client:
            assert await client.closed() == (4000, "")
        async with node.client("/with") as client:
            assert await client.hear() == "inside"
            assert await client.closed() == (4100, "enough")
        async with node.client("/leave") as client:
            assert await client.hear() == "inside"
            assert await client.closed() == (1000, "")
        assert done.is_set()


@covers("B17", "B24")
async def test_rejecting_is_a_403_and_the_handler_may_go_on_as_if_nothing_were(
    lane: str, caplog: pytest.LogCaptureFixture
) -> None:
    hub = Hub()

    @hub.websocket_route("/hello", auto_accept=False)
    async def hello(ws: WebSocket) -> None:
        if ws.headers.get("api-key") != "s3kr3t":
            await ws.reject()
        async with ws:
            await ws.send("welcome")

    @hub.websocket_route("/late")
    async def late(ws: WebSocket) -> None:
        await ws.reject()

    async with running(hub, lane=lane) as node:
        with pytest.raises(InvalidStatus) as refused:
            async with node.client("/hello"):
                pass
        assert refused.value.response.status_code == 403
        async with node.client("/hello", {"api-key": "s3kr3t"}) as client:
            assert await client.hear() == "welcome"
        async with node.client("/late") as client:
            assert await client.closed() == (1008, "rejected")
    assert not [r for r in caplog.records if r.levelno >= logging.ERROR]


@covers("B18")
async def test_close_codes_are_those_of_starlette_and_ones_own(lane: str) -> None:
    hub = Hub()

    @hub.websocket_route("/{code:int}")
    async def view(ws: WebSocket, code: int) -> None:
        await ws.close(code)

    async with running(hub, lane=lane) as node:
        for code in (status.WS_1000_NORMAL_CLOSURE, status.WS_1003_UNSUPPORTED_DATA, 4000, 4999):
            async with node.client(f"/{code}") as client:
                assert (await client.closed())[0] == code


@covers("B19", "B20", "B21", "X5")
@pytest.mark.parametrize(
    ("caught", "code", "is_caught"),
    [
        (None, 1000, True),
        (None, 1001, True),
        (None, 4000, False),
        ((1000, 4000), 4000, True),
        (all, 4999, True),
        ((), 1000, False),
    ],
)
@pytest.mark.parametrize("auto_accept", [True, False])
async def test_which_close_codes_end_a_view_in_silence(
    lane: str, caught: Any, code: int, is_caught: bool, auto_accept: bool
) -> None:
    options = {} if caught is None else {"caught_close_codes": caught}
    raised: list[BaseException | None] = []
    ended = asyncio.Event()

    async def watch(ws: WebSocket, call_next: Any) -> None:
        try:
            await call_next()
            raised.append(None)
        except WebSocketDisconnect as error:
            raised.append(error)
            raise
        finally:
            ended.set()

    hub = Hub()
    hub.add_ws_middleware(watch)

    @hub.websocket_route("/view", auto_accept=auto_accept, **options)
    async def view(ws: WebSocket) -> None:
        if auto_accept:
            await ws.receive()
        else:
            async with ws:
                await ws.receive()

    async with running(hub, lane=lane) as node:
        async with node.client("/view") as client:
            await client.ws.close(code)
        await asyncio.wait_for(ended.wait(), 30)
    if is_caught:
        assert raised == [None]
    else:
        assert isinstance(raised[0], WebSocketDisconnect) and raised[0].code == code


@covers("X2", "X8")
async def test_an_explicit_accept_and_a_list_of_connections(lane: str) -> None:
    hub = Hub()
    active_connections: list[WebSocket] = []

    @hub.websocket_route("/ws/broadcast")
    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        active_connections.append(websocket)
        await websocket.send_text("ready")
        try:
            while True:
                data = await websocket.receive_text()
                for connection in active_connections:
                    await connection.send_text(f"Broadcast: {data}")
        except WebSocketDisconnect:
            active_connections.remove(websocket)
            for connection in active_connections:
                await connection.send_text(f"{len(active_connections)} left")

    async with running(hub, lane=lane) as node:
        async with node.client("/ws/broadcast") as a:
            assert await a.hear() == "ready"
            async with node.client("/ws/broadcast") as b:
                assert await b.hear() == "ready"
                await b.say("x")
                assert await a.hear() == await b.hear() == "Broadcast: x"
            assert await a.hear() == "1 left"


@covers("X9")
async def test_a_view_may_catch_its_errors_and_say_so(lane: str) -> None:
    hub = Hub()

    @hub.websocket_route("/ws/error")
    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        try:
            while True:
                data = await websocket.receive_text()
                if data == "error":
                    raise ValueError("Simulated error")
                await websocket.send_text(f"Message: {data}")
        except WebSocketDisconnect:
            pass
        except Exception as e:
            await websocket.send_text(f"Error: {e}")

    async with running(hub, lane=lane) as node, node.client("/ws/error") as client:
        await client.say("fine")
        assert await client.hear() == "Message: fine"
        await client.say("error")
        assert await client.hear() == "Error: Simulated error"
        assert await client.closed() == (1000, "")


@covers("X10")
async def test_a_view_may_check_a_token_of_its_own(lane: str) -> None:
    hub = Hub()

    @hub.websocket_route("/ws/secure", auto_accept=False)
    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        if websocket.query_params.get("token") != "secret-token":
            await websocket.close(code=1008, reason="Unauthorized")
            return
        await websocket.send_text("Secure message")

    async with running(hub, lane=lane, secret="x" * 32) as node:
        async with node.client("/ws/secure", token="secret-token") as client:
            assert await client.hear() == "Secure message"
        async with node.client("/ws/secure", token="other") as client:
            assert await client.closed() == (1008, "Unauthorized")


async def test_a_plain_function_may_be_the_whole_conversation(lane: str) -> None:
    hub = Hub()

    @hub.websocket_route("/sync")
    def view(ws: Any, times: int = 1) -> None:
        message = ws.receive()
        for _ in range(times):
            ws.send(message)
        ws.close(4001)

    async with running(hub, lane=lane) as node, node.client("/sync", times=2) as client:
        await client.say("x")
        assert [await client.hear(), await client.hear()] == ["x", "x"]
        assert await client.closed() == (4001, "")

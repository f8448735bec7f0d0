"""A handler that fails takes only its own connection along; one that never ends is ended."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from roomcast import Hub, JsonWebSocketHandler, WebSocket, WebSocketEndpoint
from tests.handlers.world import LANES, running
from tests.support.busy import busy_s
from tests.support.features import covers

pytestmark = pytest.mark.parametrize("lane", LANES)

Style = Callable[[Hub, str, Path], None]
STEPS = ("connect", "receive", "disconnect")


class Boom(Exception):
    pass


def fail(step: str, here: str) -> None:
    if step == here:
        raise Boom(step)


def decorators(hub: Hub, step: str, folder: Path) -> None:
    @hub.on_connect("/x")
    async def connect(conn: WebSocket) -> None:
        fail(step, "connect")

    @hub.on("/x")
    async def receive(conn: WebSocket, message: str) -> None:
        fail(step, "receive")

    @hub.on_disconnect("/x")
    async def disconnect(conn: WebSocket) -> None:
        fail(step, "disconnect")


def sync_decorators(hub: Hub, step: str, folder: Path) -> None:
    hub.on_connect("/x")(lambda conn: fail(step, "connect"))
    hub.on("/x")(lambda conn, message: fail(step, "receive"))
    hub.on_disconnect("/x")(lambda conn: fail(step, "disconnect"))


def a_class(hub: Hub, step: str, folder: Path) -> None:
    class Handler(JsonWebSocketHandler):
        async def on_connect(self, websocket: WebSocket) -> None:
            fail(step, "connect")

        async def on_receive_json(self, websocket: WebSocket, data: dict[str, Any]) -> None:
            fail(step, "receive")

        async def on_disconnect(self, websocket: WebSocket, close_code: int) -> None:
            fail(step, "disconnect")

    hub.add_ws_route(Handler(), "/x")


def controller(hub: Hub, step: str, folder: Path) -> None:
    class Controller(WebSocketEndpoint):
        async def on_connect(self, websocket: WebSocket) -> None:
            await websocket.accept()
            fail(step, "connect")

        async def on_receive(self, websocket: WebSocket) -> None:
            await websocket.receive()
            fail(step, "receive")

        async def on_disconnect(self, websocket: WebSocket, close_code: int) -> None:
            fail(step, "disconnect")

    hub.add_ws_route(Controller(), "/x")


def view(hub: Hub, step: str, folder: Path) -> None:
    @hub.websocket_route("/x")
    async def endpoint(ws: WebSocket) -> None:
        fail(step, "connect")
        try:
            await ws.receive()
            fail(step, "receive")
            await ws.receive()
        finally:
            if step == "disconnect":
                raise Boom(step)


def from_yaml(hub: Hub, step: str, folder: Path) -> None:
    module = f"failing_{abs(hash((step, str(folder))))}"
    (folder / f"{module}.py").write_text(
        f"""
from tests.handlers.test_errors import fail
def opened(handler): fail({step!r}, "connect")
def message(handler, text): fail({step!r}, "receive")
def closed(handler): fail({step!r}, "disconnect")
"""
    )
    names = {"open": "opened", "on_message": "message", "on_close": "closed"}
    kwargs = ", ".join(f"{key}: {{function: {module}.{name}}}" for key, name in names.items())
    (folder / "x.yaml").write_text(f"url: {{x: {{pattern: /x, handler: WebSocketHandler, kwargs: {{{kwargs}}}}}}}")
    hub.add_yaml(folder / "x.yaml")


def records(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.levelno >= logging.ERROR]


@covers("B11")
@pytest.mark.parametrize("style", [decorators, sync_decorators, a_class, controller, view, from_yaml])
@pytest.mark.parametrize("step", STEPS)
async def test_a_failing_handler_closes_its_own_connection_and_is_logged_once(
    lane: str,
    style: Style,
    step: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    hub = Hub()
    style(hub, step, tmp_path)
    raised: asyncio.Queue[BaseException] = asyncio.Queue()

    async def watch(websocket: WebSocket, call_next: Any) -> None:
        try:
            await call_next()
        except Exception as error:
            raised.put_nowait(error)
            raise

    hub.add_ws_middleware(watch)

    @hub.on_connect("/other")
    async def other(conn: WebSocket) -> None:
        await conn.send("here")

    async with running(hub, lane=lane) as node, node.client("/other") as bystander:
        assert await bystander.hear() == "here"
        async with node.client("/x", {"x-request-id": "req-1"}) as client:
            if step == "receive":
                await client.say({"a": 1})
            if step == "disconnect":
                await client.ws.close()
            else:
                code, reason = await client.closed()
                assert code == 1011 and "req-1" in reason
        assert isinstance(await asyncio.wait_for(raised.get(), 30), Boom), "it is raised again, for whoever is around"
        await hub.broadcast("/other", "still")
        assert await bystander.hear() == "still"
    [record] = records(caplog)
    assert "request id req-1" in record.getMessage() and record.exc_info is not None


async def test_without_a_request_id_one_is_made(lane: str, caplog: pytest.LogCaptureFixture) -> None:
    hub = Hub()
    view(hub, "connect", Path())
    async with running(hub, lane=lane) as node:
        async with node.client("/x", {"x-request-id": "forged\tid " * 20}) as client:
            _, reason = await client.closed()
    made = re.fullmatch("the handler failed: ([0-9a-f]{16})", reason)
    assert made and made[1] in records(caplog)[0].getMessage()


async def test_a_failing_start_tells_the_server(lane: str) -> None:
    hub = Hub()
    hub.on_startup(lambda: fail("start", "start"))
    with pytest.raises(SystemExit):
        async with running(hub, lane=lane):
            pass


async def test_startup_and_shutdown_run_once_and_may_publish(lane: str) -> None:
    hub = Hub()
    steps: list[Any] = []

    @hub.on_startup
    async def begin() -> None:
        steps.append((await hub.publish("lobby", "begun")).offset)

    @hub.on_shutdown
    def end() -> None:
        steps.append("ended")

    async with running(hub, lane=lane):
        assert steps == [1]
    assert steps == [1, "ended"]


@pytest.mark.parametrize("how", ["disconnect", "drain"])
async def test_a_handler_that_never_returns_is_cancelled(lane: str, how: str) -> None:
    hub = Hub(handler_grace_s=0.05)
    cancelled = asyncio.Event()

    @hub.websocket_route("/forever")
    async def forever(ws: WebSocket) -> None:
        await ws.send("begun")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    async with running(hub, lane=lane) as node, node.client("/forever") as client:
        assert await client.hear() == "begun"
        if how == "disconnect":
            await client.ws.close()
        else:
            node.node.hub.everyone()[0].close(1012)
        await asyncio.wait_for(cancelled.wait(), 30)


async def test_a_handler_that_never_returns_does_not_hold_up_the_end(lane: str) -> None:
    hub = Hub(handler_grace_s=60)
    ended: list[str] = []

    @hub.on("/forever")
    async def forever(conn: WebSocket, message: str) -> None:
        await conn.send("begun")
        await asyncio.Event().wait()

    @hub.on_disconnect("/forever")
    async def disconnect(conn: WebSocket) -> None:
        ended.append("disconnect")

    async with running(hub, lane=lane) as node:
        async with node.client("/forever") as client:
            await client.say("x")
            assert await client.hear() == "begun"
            before = time.monotonic()
    assert time.monotonic() - before < 10 + busy_s() and ended == ["disconnect"]


async def test_a_slow_handler_delays_nobody(lane: str) -> None:
    hub = Hub(handler_grace_s=0)
    release = asyncio.Event()

    @hub.on("/slow")
    async def slow(conn: WebSocket, message: str) -> None:
        await release.wait()
        await conn.send("done")

    async with running(hub, lane=lane) as node:
        async with node.client("/slow") as busy, node.client("/slow") as idle:
            await busy.say("work")
            for text in ("a", "b"):
                await hub.broadcast("/slow", text)
                assert await idle.hear() == text
                assert await busy.hear() == text, "not even the busy one waits for its broadcasts"
            release.set()
            assert await busy.hear() == "done"


async def test_a_handler_that_reads_nothing_bounds_what_its_client_may_send(lane: str) -> None:
    hub = Hub(handler_grace_s=0)

    @hub.websocket_route("/deaf")
    async def deaf(ws: WebSocket) -> None:
        await ws.send("begun")
        await asyncio.Event().wait()

    async with running(hub, lane=lane) as node, node.client("/deaf") as client:
        assert await client.hear() == "begun"

        said = 0

        async def flood() -> None:
            nonlocal said
            while said < 2000:
                await client.say("x" * 60_000)
                said += 1

        flooding = asyncio.ensure_future(flood())
        before = -1
        while before != said and not flooding.done():
            before = said
            await asyncio.sleep(0.5)  # long enough for many more, if anybody took them
        assert not flooding.done() and said * 60_000 < 32 * 2**20, "the kernel's buffers are full"
        flooding.cancel()
        client.ws.transport.abort()

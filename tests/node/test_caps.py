"""Who gets in and who does not, as clients see it, on both lanes: caps, back-off, bad credentials, and what an
application's own endpoints are sent. C38 of the fault catalogue."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import jwt
import pytest
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket
from websockets.exceptions import InvalidStatus

from roomcast import Hub
from server import limits
from tests.handlers.world import SECRET, Client, Running, running
from tests.support.waiting import eventually


def token(user: object, secret: str = SECRET, lives_s: float = 60) -> str:
    return jwt.encode({"sub": str(user), "exp": time.time() + lives_s}, secret, "HS256")


async def status(node: Running, path: str = "/ws", headers: dict[str, str] | None = None, **query: Any) -> int:
    """The answer to a handshake: 101, or what is there instead."""
    try:
        async with node.client(path, headers, **query):
            return 101
    except InvalidStatus as error:
        if error.response.status_code in (429, 503):
            assert 1 <= int(error.response.headers["retry-after"]) <= 60
        assert error.response.body
        return error.response.status_code


def refused(node: Running, reason: str) -> int:
    return node.node.hub.counts.refused[reason]


@contextlib.asynccontextmanager
async def tabs(node: Running, user: str, count: int) -> AsyncIterator[list[Client]]:
    async with contextlib.AsyncExitStack() as stack:
        yield [await stack.enter_async_context(node.member(user)) for _ in range(count)]


async def test_over_the_node_s_cap_handshakes_get_503_until_somebody_leaves(lane: str) -> None:
    async with running(Hub(), lane=lane, max_connections=3) as node:
        async with tabs(node, "alice", 3):
            assert [await status(node, user="bob") for _ in range(2)] == [503, 503]
            assert refused(node, "full") == 2
        await eventually(lambda: not node.node.hub.counts.connections)
        assert await status(node, user="bob") == 101


async def test_endpoints_of_the_application_count_too(lane: str) -> None:
    async def route(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.receive()

    hub = Hub(routes=[WebSocketRoute("/route", route)])

    @hub.websocket_route("/raw")
    async def raw(conn: Any) -> None:
        async for _ in conn:
            pass

    async with running(hub, lane=lane, max_connections=3) as node:
        async with node.client("/route"), node.client("/raw"), node.member("alice"):
            for path in ("/route", "/raw", "/ws"):
                assert await status(node, path) == 503
        await eventually(lambda: not node.node._accepting._entering and not node.node.hub.counts.connections)
        assert await status(node, "/raw") == 101


async def test_over_a_user_s_cap_connections_are_closed_with_4010_and_a_hint(lane: str) -> None:
    async with running(Hub(), lane=lane, max_connections_per_user=3, connects_per_min=1e6) as node:
        async with tabs(node, "alice", 3):
            async with node.client("/ws", user="alice") as client:
                hint = await client.frame()
                assert hint["op"] == "backoff" and 20_000 <= hint["retry_after_ms"] <= 40_000
                assert (await client.closed())[0] == 4010
            async with node.member("bob"):
                pass
        await eventually(lambda: not node.node.hub.counts.connections)
        async with tabs(node, "alice", 3):
            pass
        assert refused(node, "user") == 1


async def test_a_user_s_cap_holds_when_all_come_at_once(lane: str) -> None:
    async with running(Hub(), lane=lane, max_connections_per_user=10) as node:

        async def come() -> str:
            async with node.client("/ws", user="alice") as client:
                op = str((await client.frame())["op"])
                done.append(op)
                await eventually(lambda: len(done) == 40)
                return op

        done: list[str] = []
        ops = Counter(await asyncio.gather(*(come() for _ in range(40))))
        assert ops == {"welcome": 10, "backoff": 30}


async def test_an_endpoint_of_the_application_has_the_user_s_cap_without_the_frame(lane: str) -> None:
    hub = Hub()

    @hub.websocket_route("/raw", auth=True)
    async def raw(conn: Any) -> None:
        async for _ in conn:
            pass

    async with running(hub, lane=lane, max_connections_per_user=1) as node, node.client("/raw", user="alice"):
        await eventually(lambda: node.node.hub.counts.connections == 1)
        async with node.client("/raw", user="alice") as client:
            assert (await client.closed())[0] == 4010


async def test_addresses_are_counted_if_asked_for_and_only_a_trusted_proxy_names_them(lane: str) -> None:
    async with running(Hub(), lane=lane, max_connections_per_address=1, trusted_proxies="127.0.0.1") as node:
        first, second = {"X-Forwarded-For": "192.0.2.1"}, {"X-Forwarded-For": "192.0.2.2"}
        async with node.client("/ws", first, user="alice"):
            assert await status(node, headers=first, user="bob") == 429
            assert await status(node, headers=second, user="bob") == 101
            assert await status(node, user="carol") == 101, "the proxy itself"
        await eventually(lambda: not node.node.hub.counts.connections)
        assert await status(node, headers=first, user="bob") == 101
    async with running(Hub(), lane=lane, max_connections_per_address=1) as node, node.client("/ws", first, user="a"):
        assert await status(node, headers=second, user="b") == 429, "anybody may claim anything"


async def test_a_client_that_reconnects_in_a_loop_is_told_to_back_off_and_others_are_not(lane: str) -> None:
    """C38: it resets every connection as soon as it has it."""
    async with running(Hub(), lane=lane, max_connections_per_user=20, connects_per_min=60) as node:
        ops: Counter[str] = Counter()
        for _ in range(60):
            async with node.client("/ws", user="loop") as client:
                frame = await client.frame()
                ops[frame["op"]] += 1
                if frame["op"] == "backoff":
                    assert 1000 <= frame["retry_after_ms"] <= 7000
                    assert (await client.closed())[0] == 4010
        assert 20 <= ops["welcome"] <= 20 + 30 and ops["backoff"] == 60 - ops["welcome"] == refused(node, "too_often")
        async with node.member("somebody"):
            pass


# Credentials.


async def test_a_thousand_bad_tokens_cost_little_and_lock_nobody_out(
    lane: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "server")
    async with running(Hub(), lane=lane, secret=SECRET, failed_auth_per_min=60) as node:
        answers: Counter[int] = Counter()
        bad = [token(f"u{number}", secret="x" * 32) for number in range(1000)]

        async def guess() -> None:
            while bad:
                try:
                    async with node.client("/ws", token=bad.pop()) as client:
                        answers[(await client.closed())[0]] += 1
                except InvalidStatus as error:
                    answers[error.response.status_code] += 1

        guessing = [asyncio.create_task(guess()) for _ in range(10)]
        for number in range(10):
            async with node.client("/ws", token=token(number)) as client:
                assert (await client.frame())["op"] == "welcome", "from the same address"
        await asyncio.gather(*guessing)
        assert answers.keys() == {4001, 429} and answers.total() == 1000
        assert 60 <= answers[4001] <= 90 and refused(node, "guesses") == answers[429]
        assert len([r for r in caplog.records if r.name.startswith("server")]) < 100, "a line for each would fill disks"


async def test_who_guesses_at_one_user_does_not_lock_that_user_out(lane: str) -> None:
    async with running(Hub(), lane=lane, secret=SECRET, failed_auth_per_min=3, trusted_proxies="127.0.0.1") as node:
        codes = []
        for number in range(6):
            address = {"X-Forwarded-For": f"192.0.2.{number}"}
            try:
                async with node.client("/ws", address, token=token("alice", secret="x" * 32)) as client:
                    codes.append((await client.closed())[0])
            except InvalidStatus as error:
                codes.append(error.response.status_code)
        assert codes == [4001] * 3 + [429] * 3
        async with node.client("/ws", token=token("alice")) as client:
            assert (await client.frame())["op"] == "welcome"


async def test_guessing_on_an_open_connection_is_limited_too_for_the_user_who_guesses(lane: str) -> None:
    async with running(Hub(), lane=lane, secret=SECRET, failed_auth_per_min=3) as node:
        bad = token("alice", secret="x" * 32)
        codes = []
        for _ in range(3):  # connections: the limit is the user's
            async with node.client("/ws", token=token("mallory")) as client:
                assert (await client.frame())["op"] == "welcome"
                codes += [(await client.ask("auth", token=bad))["code"] for _ in range(2)]
        assert codes == ["unauthorized"] * 3 + ["rate_limited"] * 3
        async with node.client("/ws", token=token("alice")) as client:
            assert (await client.frame())["op"] == "welcome"
            assert (await client.ask("auth", token=token("alice", lives_s=-3600)))["code"] == "unauthorized"
            assert (await client.ask("auth", token=token("alice")))["ok"]


async def test_expired_tokens_and_none_at_all_are_no_guesses(lane: str) -> None:
    async with running(Hub(), lane=lane, secret=SECRET, failed_auth_per_min=2) as node:
        expired: dict[str, Any] = {"token": token("alice", lives_s=-3600)}
        for query in (expired, {}, expired) * 3:
            async with node.client("/ws", **query) as client:
                assert (await client.closed())[0] == 4001
        assert refused(node, "outdated") == 6 and refused(node, "no_credentials") == 3


# What an application's own endpoints are sent.


def listening(heard: list[Any]) -> Hub:
    """On /raw with a handler, on /route as a Starlette route."""

    async def route(websocket: WebSocket) -> None:
        await websocket.accept()
        with contextlib.suppress(Exception):
            while True:
                heard.append(await websocket.receive_text())

    hub = Hub(routes=[WebSocketRoute("/route", route)])

    @hub.websocket_route("/raw")
    async def raw(conn: Any) -> None:
        async for message in conn:
            heard.append(message)

    return hub


@pytest.mark.parametrize(("lane", "path"), [("fast", "/raw"), ("fast", "/route"), ("plain", "/raw")])
async def test_messages_to_the_application_come_at_a_pace_and_none_is_lost(lane: str, path: str) -> None:
    heard: list[str] = []
    async with running(listening(heard), lane=lane, raw_messages_per_s=100, raw_messages_burst=50) as node:
        async with node.client(path) as client:
            began = time.monotonic()
            for number in range(150):
                await client.say(str(number))
            await eventually(lambda: len(heard) == 150, 20)
            assert time.monotonic() - began >= 0.95
        assert heard == [str(number) for number in range(150)]


@pytest.mark.parametrize(("lane", "path"), [("fast", "/raw"), ("fast", "/route"), ("plain", "/raw")])
async def test_bytes_too_and_who_pushes_on_is_closed_with_4009(
    lane: str, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "STRAINED_S", 0.5)
    heard: list[str] = []
    async with running(listening(heard), lane=lane, raw_bytes_per_s=20_000, raw_bytes_burst=20_000) as node:
        async with node.client(path) as client:

            async def push() -> None:
                while True:
                    await client.say("x" * 5000)

            pushing = asyncio.create_task(push())
            code, reason = await client.closed()
            assert code == 4009 and reason
            assert len(heard) < 20
            pushing.cancel()
            await asyncio.wait([pushing])
            assert pushing.cancelled() or pushing.exception()


async def test_text_for_a_handler_beside_the_protocol_has_the_limit_of_requests(lane: str) -> None:
    heard: list[Any] = []
    hub = Hub()

    @hub.on("/chat")
    async def chat(conn: Any, message: str) -> None:
        heard.append(message)

    async with running(hub, lane=lane, requests_per_s=1, requests_burst=5) as node:
        async with node.client("/chat", user="alice") as client:
            for number in range(8):
                await client.say(f"no op {number}")
            for _ in range(3):
                error = await client.frame()
                assert (error["type"], error["code"]) == ("error", "rate_limited")
        await eventually(lambda: len(heard) == 5)

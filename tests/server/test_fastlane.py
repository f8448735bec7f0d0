"""The fast lane on real sockets, under both event loops: handshakes, ASGI as applications know it, bounds on heads."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
import uvloop
from uvicorn.protocols.utils import ClientDisconnected

from server import frames, uvicorn_http
from server.connection import BUSY, Connection, Listener
from server.fastlane import EXTENSION, Disconnected, FastConnection
from tests.support.served import ACCEPT, RawClient, handshake, lane_config, raw_client, serving
from tests.support.waiting import eventually
from tests.support.wires import BINARY, CLOSE, PING, TEXT, client_frame, close_payload

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
App = Callable[[dict[str, Any], Receive, Send], Awaitable[None]]

ACCEPTED = {"type": "websocket.accept"}


@pytest.fixture(params=["asyncio", "uvloop"])
def loop_factory(request: pytest.FixtureRequest) -> Callable[[], asyncio.AbstractEventLoop]:
    return uvloop.new_event_loop if request.param == "uvloop" else asyncio.new_event_loop


@pytest.fixture(params=[True, False], ids=["ours", "uvicorn"])
def fast(request: pytest.FixtureRequest) -> bool:
    """What holds of both says that an application may move from one to the other."""
    return bool(request.param)


@pytest.fixture(autouse=True)
def silent_logs() -> Iterator[None]:
    """Of applications that fail on purpose."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


async def opened(client: RawClient) -> bytes:
    status, head = await client.head()
    assert status == 101
    return head


async def echo(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    await receive()
    await send(ACCEPTED)
    while (event := await receive())["type"] == "websocket.receive":
        await send({**event, "type": "websocket.send"})


# Handshakes.


async def nobody(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    raise AssertionError(f"the application was called for {scope['type']}")


BAD = {
    "POST": (handshake(line="POST /ws HTTP/1.1"), 400),
    "POST with a body": (handshake(line="POST /ws HTTP/1.1", add=("Content-Length: 5",)) + b"hello", 400),
    "POST with a body that does not come": (handshake(line="POST /ws HTTP/1.1", add=("Content-Length: 9999999",)), 400),
    "HEAD": (handshake(line="HEAD /ws HTTP/1.1"), 400),
    "HTTP/1.0": (handshake(line="GET /ws HTTP/1.0"), 400),
    "HTTP/3.7": (handshake(line="GET /ws HTTP/3.7"), 400),
    "no version": (handshake(drop="Sec-WebSocket-Version"), 426),
    "version 8": (handshake(drop="Sec-WebSocket-Version", add=("Sec-WebSocket-Version: 8",)), 426),
    "two versions": (handshake(add=("Sec-WebSocket-Version: 8",)), 426),
    "no key": (handshake(drop="Sec-WebSocket-Key"), 400),
    "an empty key": (handshake(drop="Sec-WebSocket-Key", add=("Sec-WebSocket-Key:",)), 400),
    "a short key": (handshake(drop="Sec-WebSocket-Key", add=("Sec-WebSocket-Key: AAAA",)), 400),
    "a key that is not base64": (
        handshake(drop="Sec-WebSocket-Key", add=("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZ!==",)),
        400,
    ),
    "two keys": (handshake(add=("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",)), 400),
    "no Host": (handshake(drop="Host"), 400),
    "two Hosts": (handshake(add=("Host: other.example",)), 400),
    "a body by length": (handshake(add=("Content-Length: 5",)) + b"hello", 400),
    "an empty body by length": (handshake(add=("Content-Length: 0",)), 400),
    "a chunked body": (handshake(add=("Transfer-Encoding: chunked",)) + b"0\r\n\r\n", 400),
    "both lengths": (handshake(add=("Transfer-Encoding: chunked", "Content-Length: 5")) + b"0\r\n\r\n", 400),
    "two upgrades": (handshake(add=("Upgrade: h2c",)), 400),
    "another upgrade before ours": (handshake(drop="Upgrade", add=("Upgrade: h2c, websocket",)), 400),
    "h2c": (handshake(drop="Upgrade", add=("Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__")), 400),
    "h2c by POST": (
        handshake(line="POST /ws HTTP/1.1", drop="Upgrade", add=("Upgrade: h2c", "Content-Length: 5")) + b"hello",
        400,
    ),
    "CONNECT": (b"CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n", 400),
    "HTTP/2 by prior knowledge": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    "GET with two Hosts": (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
    "GET without a Host": (b"GET / HTTP/1.1\r\n\r\n", 400),
    "GET over HTTP/3.7": (b"GET / HTTP/3.7\r\nHost: a\r\n\r\n", 400),
    "GET with another encoding": (
        b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    "chunks over HTTP/1.0": (b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    **{
        f"POST with {what}": (f"POST / HTTP/1.1\r\nHost: a\r\n{headers}\r\n\r\n0\r\n\r\n".encode(), 400)
        for what, headers in {
            "length and chunks": "Content-Length: 5\r\nTransfer-Encoding: chunked",
            "chunks and length": "Transfer-Encoding: chunked\r\nContent-Length: 5",
            "the same length twice": "Content-Length: 5\r\nContent-Length: 5",
            "a list of lengths": "Content-Length: 5, 5",
            "a signed length": "Content-Length: +5",
            "chunks twice": "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
            "an unknown encoding": "Transfer-Encoding: xchunked",
            "an encoding after chunks": "Transfer-Encoding: chunked, identity",
            "a tab before the colon": "Transfer-Encoding\t: chunked",
        }.items()
    },
    "two lengths": (handshake(add=("Content-Length: 5", "Content-Length: 6")) + b"hello!", 400),
    "a folded header": (handshake(add=("X-A: b", " c")), 400),
    "a space before the colon": (handshake(add=("X-A : b",)), 400),
    "a bare line feed": (handshake().replace(b"\r\nUpgrade", b"\nUpgrade"), 400),
    "a NUL": (handshake(add=("X-A: \0",)), 400),
    "not HTTP": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 20, 400),
}


@pytest.mark.parametrize(("request_bytes", "status"), BAD.values(), ids=BAD)
async def test_a_wrong_handshake_is_refused_and_no_application_called(request_bytes: bytes, status: int) -> None:
    async with serving(lane_config(nobody)) as served, raw_client(served.port, request_bytes) as client:
        got, head = await client.head()
        assert got == status
        assert b"\r\nconnection: close\r\n" in head.lower()
        if status == 426:
            assert b"\r\nsec-websocket-version: 13\r\n" in head.lower()
        await client.rest()


@pytest.mark.parametrize("drop", ["Upgrade", "Connection"])
async def test_without_upgrade_it_is_plain_http(drop: str) -> None:
    kinds: list[str] = []

    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        kinds.append(scope["type"])
        await send({"type": "http.response.start", "status": 404, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body"})

    async with serving(lane_config(app)) as served, raw_client(served.port, handshake(drop=drop)) as client:
        assert (await client.head())[0] == 404
    assert kinds == ["http"]


async def test_an_offer_that_is_none_is_ignored() -> None:
    """Upgrade counts only where Connection names it (RFC 9110 §7.8); HTTP/1.0 needs no Host."""
    offer = b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: h2c\r\n\r\n"
    async with serving(lane_config(ok)) as served:
        for request in (offer, b"GET / HTTP/1.0\r\n\r\n"):
            async with raw_client(served.port, request) as client:
                assert (await client.head())[0] == 200


async def test_a_good_handshake_and_what_the_application_sees(fast: bool) -> None:
    scopes: list[dict[str, Any]] = []

    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        scopes.append(scope)
        assert await receive() == {"type": "websocket.connect"}
        await send({"type": "websocket.accept", "subprotocol": "b", "headers": [(b"X-One", b"1"), (b"x-one", b"2")]})
        assert (await receive())["type"] == "websocket.disconnect"

    path = "/a%20b/%C3%A9?x=%20&y"
    offered = ("Sec-WebSocket-Protocol: a, b", "Sec-WebSocket-Protocol: c", "X-A: \xfcber")
    request = handshake(path, add=offered).decode().encode("latin-1")
    async with serving(lane_config(app, fast=fast)) as served, raw_client(served.port, request) as client:
        head = (await opened(client)).lower()
        for line in (
            b"upgrade: websocket",
            b"connection: upgrade",
            b"sec-websocket-protocol: b",
            b"x-one: 1",
            b"x-one: 2",
        ):
            assert b"\r\n" + line + b"\r\n" in head
        assert b"\r\nsec-websocket-accept: " + ACCEPT.lower() + b"\r\n" in head
        assert b"extensions" not in head
        client.send(client_frame(CLOSE, close_payload(1000)))
        assert await client.frame() == (0x88, close_payload(1000))
        assert await client.rest() == b""
        port = client.writer.get_extra_info("sockname")[1]
    [scope] = scopes
    assert scope["type"] == "websocket" and scope["scheme"] == "ws" and scope["http_version"] == "1.1"
    assert scope["path"] == "/a b/é" and scope["raw_path"] == b"/a%20b/%C3%A9" and scope["query_string"] == b"x=%20&y"
    assert scope["subprotocols"] == ["a", "b", "c"] and scope["root_path"] == ""
    assert (b"host", b"127.0.0.1") in scope["headers"] and (b"x-a", b"\xfcber") in scope["headers"]
    assert scope["client"] == ("127.0.0.1", port) and scope["server"] == ("127.0.0.1", served.port)
    assert scope["asgi"]["spec_version"] == "2.4" and scope["state"] == {}
    assert "websocket.http.response" in scope["extensions"] and (EXTENSION in scope["extensions"]) == fast
    assert "method" not in scope


@pytest.mark.parametrize("pieces", [1, 2, 400])
async def test_frames_may_come_with_the_handshake_and_in_any_pieces(pieces: int) -> None:
    data = handshake() + client_frame(TEXT, b"one") + client_frame(PING, b"p") + client_frame(BINARY, b"two")
    async with serving(lane_config(echo)) as served, raw_client(served.port) as client:
        size = -(-len(data) // pieces)
        for begin in range(0, len(data), size):
            client.send(data[begin : begin + size])
            if pieces > 2:
                await client.writer.drain()
                await asyncio.sleep(0)
        await opened(client)
        got = [await client.frame() for _ in range(3)]
        # The pong is not the application's: it may overtake.
        assert sorted(got) == sorted([(0x81, b"one"), (0x8A, b"p"), (0x82, b"two")])
        assert got.index((0x81, b"one")) < got.index((0x82, b"two"))


async def test_a_handshake_may_follow_an_answered_request() -> None:
    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await echo(scope, receive, send)
        else:
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
            await send({"type": "http.response.body"})

    request = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    async with serving(lane_config(app)) as served, raw_client(served.port, request) as client:
        assert (await client.head())[0] == 200
        client.send(handshake() + client_frame(TEXT, b"hi"))
        await opened(client)
        assert await client.frame() == (0x81, b"hi")


async def test_a_handshake_behind_an_unanswered_request_ends_the_connection() -> None:
    release = asyncio.Event()
    kinds: list[str] = []

    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        kinds.append(scope["type"])
        await release.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"late"})

    both = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" + handshake()
    async with serving(lane_config(app)) as served, raw_client(served.port, both) as client:
        assert await client.rest() == b""
        release.set()
    assert kinds == ["http"]


# ASGI, as applications know it.


async def test_text_and_bytes_of_all_lengths_come_back(fast: bool) -> None:
    async with serving(lane_config(echo, fast=fast)) as served, raw_client(served.port, handshake()) as client:
        await opened(client)
        for length in (0, 1, 125, 126, 65535, 65536):
            client.send(client_frame(TEXT, b"x" * length) + client_frame(BINARY, b"\xff" * length))
            assert await client.frame() == (0x81, b"x" * length)
            assert await client.frame() == (0x82, b"\xff" * length)


async def test_a_close_before_the_accept_is_403(fast: bool) -> None:
    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.close", "code": 4000})
        ends.append(await receive())

    ends: list[dict[str, Any]] = []
    async with serving(lane_config(app, fast=fast)) as served, raw_client(served.port, handshake()) as client:
        assert (await client.head())[0] == 403
        await client.rest()
        await eventually(lambda: ends)
    assert ends[0]["type"] == "websocket.disconnect" and ends[0]["code"] == 1006


async def test_a_denial_response_is_sent_as_given(fast: bool) -> None:
    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        await receive()
        headers = [(b"x-why", b"no"), (b"content-type", b"application/json"), (b"content-length", b"12")]
        await send({"type": "websocket.http.response.start", "status": 418, "headers": headers})
        await send({"type": "websocket.http.response.body", "body": b'{"a":', "more_body": True})
        await send({"type": "websocket.http.response.body", "body": b"[1,2]}\n"})

    async with serving(lane_config(app, fast=fast)) as served, raw_client(served.port, handshake()) as client:
        status, head = await client.head()
        assert status == 418 and b"x-why: no" in head and head.lower().count(b"content-length: 12") == 1
        assert await client.rest() == b'{"a":[1,2]}\n'


@pytest.mark.parametrize("failure", ["returns", "raises"])
async def test_an_application_that_does_not_answer_gives_500(fast: bool, failure: str) -> None:
    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        await receive()
        if failure == "raises":
            raise ValueError("on purpose")

    async with serving(lane_config(app, fast=fast)) as served, raw_client(served.port, handshake()) as client:
        assert (await client.head())[0] == 500
        await client.rest()


@pytest.mark.parametrize(("failure", "code"), [("raises", 1011), ("returns", 1000)])
async def test_an_application_that_ends_closes_the_connection_with_a_code(failure: str, code: int) -> None:
    """uvicorn's own class ends it without a close frame."""

    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        await receive()
        await send(ACCEPTED)
        await send({"type": "websocket.send", "text": "last"})
        if failure == "raises":
            raise ValueError("on purpose")

    async with serving(lane_config(app)) as served, raw_client(served.port, handshake()) as client:
        await opened(client)
        assert await client.frame() == (0x81, b"last")
        first, payload = await client.frame()
        assert first == 0x88 and payload[:2] == code.to_bytes(2, "big")
        client.send(client_frame(CLOSE, payload[:2]))
        assert await client.rest() == b""


async def test_a_close_by_the_application_and_what_it_may_do_then(fast: bool) -> None:
    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        await receive()
        await send(ACCEPTED)
        await send({"type": "websocket.close", "code": 4000, "reason": "enough"})
        seen.append(await receive())
        for event in ({"type": "websocket.send", "text": "x"}, {"type": "websocket.close"}):
            try:
                await send(event)
            except RuntimeError as error:
                seen.append(error)
        done.set()

    seen: list[Any] = []
    done = asyncio.Event()
    async with serving(lane_config(app, fast=fast)) as served, raw_client(served.port, handshake()) as client:
        await opened(client)
        assert await client.frame() == (0x88, close_payload(4000, b"enough"))
        async with asyncio.timeout(30):
            await done.wait()
        client.send(client_frame(CLOSE, close_payload(4000)))
        assert await client.rest() == b""
    assert seen[0] == {"type": "websocket.disconnect", "code": 4000, "reason": "enough"}
    assert [type(each) for each in seen[1:]] == [RuntimeError, RuntimeError]


async def test_a_close_by_the_peer_is_told_with_code_and_reason(fast: bool) -> None:
    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        await receive()
        await send(ACCEPTED)
        events.append(await receive())
        events.append(await receive())
        try:
            await send({"type": "websocket.send", "text": "x"})
        except OSError as error:
            events.append(error)
        done.set()

    events: list[Any] = []
    done = asyncio.Event()
    async with serving(lane_config(app, fast=fast)) as served, raw_client(served.port, handshake()) as client:
        await opened(client)
        client.send(client_frame(TEXT, b"a") + client_frame(CLOSE, close_payload(4321, b"bye")))
        assert await client.frame() == (0x88, close_payload(4321, b"bye"))
        async with asyncio.timeout(30):
            await done.wait()
    assert events[0] == {"type": "websocket.receive", "text": "a"}
    assert events[1] == {"type": "websocket.disconnect", "code": 4321, "reason": "bye"}
    assert isinstance(events[2], Disconnected if fast else ClientDisconnected)


async def test_receive_after_the_end_says_so_again() -> None:
    """uvicorn's own class waits for ever."""

    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        await receive()
        await send(ACCEPTED)
        events.extend([await receive(), await receive(), await receive()])
        done.set()

    events: list[dict[str, Any]] = []
    done = asyncio.Event()
    async with serving(lane_config(app)) as served:
        async with raw_client(served.port, handshake()) as client:
            await opened(client)
        async with asyncio.timeout(30):
            await done.wait()
    assert [(event["type"], event["code"]) for event in events] == [("websocket.disconnect", 1006)] * 3


async def test_text_that_is_not_utf8_closes_with_1007(fast: bool) -> None:
    for data in (
        client_frame(TEXT, b"\xc3\x28"),
        client_frame(TEXT, b"\xc3", fin=False) + client_frame(0, b"\x28"),
        client_frame(TEXT, b"\xed\xa0\x80"),
        client_frame(TEXT, b"\xf4\x90\x80\x80"),
    ):
        async with serving(lane_config(echo, fast=fast)) as served, raw_client(served.port, handshake()) as client:
            await opened(client)
            client.send(client_frame(TEXT, b"\xc3", fin=False) + client_frame(0, b"\xa9"))
            assert await client.frame() == (0x81, b"\xc3\xa9")
            client.send(data)
            first, payload = await client.frame()
            assert first == 0x88 and payload[:2] == b"\x03\xef"
            assert await client.rest() == b""


@pytest.mark.parametrize(
    ("events", "error"),
    [
        ([{"type": "websocket.send", "text": "x"}], RuntimeError),
        ([{"type": "websocket.http.response.body", "body": b""}], RuntimeError),
        ([ACCEPTED, ACCEPTED], RuntimeError),
        ([ACCEPTED, {"type": "http.response.start"}], RuntimeError),
        ([{"type": "websocket.close"}, {"type": "websocket.close"}], (RuntimeError, OSError)),
        ([{"type": "websocket.accept", "headers": [(b"x", b"a\r\nb: c")]}], ValueError),
        ([{"type": "websocket.accept", "headers": [(b"x\r\n", b"a")]}], ValueError),
        ([{"type": "websocket.accept", "subprotocol": "a\r\nb: c"}], ValueError),
        (
            [
                {"type": "websocket.http.response.start", "status": 401, "headers": [(b"x", b"\n")]},
                {"type": "websocket.http.response.body"},
            ],
            ValueError,
        ),
        ([{"type": "websocket.http.response.start", "status": 403}, ACCEPTED], RuntimeError),
        (
            [{"type": "websocket.http.response.start", "status": 101}, {"type": "websocket.http.response.body"}],
            ValueError,
        ),
    ],
)
async def test_an_application_that_errs_is_told(
    events: list[dict[str, Any]], error: type[Exception] | tuple[type[Exception], ...]
) -> None:
    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        await receive()
        for event in events[:-1]:
            await send(event)
        with pytest.raises(error):
            await send(events[-1])
        done.set()

    done = asyncio.Event()
    async with serving(lane_config(app)) as served, raw_client(served.port, handshake()) as client:
        async with asyncio.timeout(30):
            await done.wait()
        _, head = await client.head()
        assert b"b: c" not in head


async def test_an_application_that_does_not_receive_is_not_read_for_it() -> None:
    """Its inbox is bounded, and nothing is lost or reordered when it goes on."""

    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        connections.append(scope["extensions"][EXTENSION]["connection"])
        await receive()
        await send(ACCEPTED)
        texts.append((await receive())["text"])
        await go_on.wait()
        while (event := await receive())["type"] == "websocket.receive":
            texts.append(event["text"])

    connections: list[FastConnection] = []
    texts: list[str] = []
    go_on = asyncio.Event()
    count = 3000
    async with serving(lane_config(app)) as served:
        async with raw_client(served.port, handshake()) as client:
            await opened(client)
            for index in range(count):
                client.send(client_frame(TEXT, f"{index:1000}".encode()))
            [connection] = connections
            await eventually(lambda: connection.held)
            assert connection._asgi is not None and connection._asgi.inbox_bytes < 2 * 65536
            go_on.set()
            client.send(client_frame(CLOSE))
            assert await client.frame() == (0x88, b"")
        await eventually(lambda: len(texts) == count)
    assert texts == [f"{index:1000}" for index in range(count)]


async def test_send_waits_for_a_peer_that_does_not_read() -> None:
    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        connections.append(scope["extensions"][EXTENSION]["connection"])
        await receive()
        await send(ACCEPTED)
        try:
            while True:
                await send({"type": "websocket.send", "bytes": b"x" * 100_000})
                sent.append(1)
        except OSError:
            ended.set()
            raise

    connections: list[FastConnection] = []
    sent: list[int] = []
    ended = asyncio.Event()
    async with serving(lane_config(app)) as served:
        async with raw_client(served.port, handshake()) as client:
            await opened(client)
            client.writer.transport.pause_reading()  # type: ignore[attr-defined]
            [connection] = connections
            await eventually(lambda: connection.outbound_bytes() > 65536)
            assert connection.outbound_bytes() < 300_000
        async with asyncio.timeout(30):
            await ended.wait()  # not left waiting for a transport that is gone


async def test_an_application_that_only_sends_learns_of_a_close() -> None:
    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        await receive()
        await send(ACCEPTED)
        try:
            while True:
                await send({"type": "websocket.send", "text": "tick"})
                await asyncio.sleep(0.001)
        except OSError:
            ended.set()

    ended = asyncio.Event()
    async with serving(lane_config(app)) as served, raw_client(served.port, handshake()) as client:
        await opened(client)
        client.send(client_frame(CLOSE, close_payload(1000)))
        assert (await client.rest()).endswith(frames.close_frame(1000))
        async with asyncio.timeout(30):
            await ended.wait()


# The hand-off.


class Busy(Listener):
    """Answers each message a little later and holds the connection meanwhile, as the hub does for a join."""

    def __init__(self) -> None:
        self.heard: list[bytes] = []
        self.codes: list[int] = []
        self.overlapped = False
        self._pending = False

    def turned(self, connection: Connection) -> None:
        pass

    def received(self, connection: Connection, data: bytes, text: bool) -> None:
        self.overlapped = self.overlapped or self._pending
        self._pending = True
        self.heard.append(data)
        connection.hold(BUSY)
        asyncio.get_running_loop().call_soon(self._done, connection, data)

    def _done(self, connection: Connection, data: bytes) -> None:
        self._pending = False
        connection.send_event(data)
        connection.release(BUSY)

    def lost(self, connection: Connection, code: int) -> None:
        self.codes.append(code)


def handing_off(listener: Listener, connections: list[FastConnection] | None = None) -> App:
    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        connection: FastConnection = scope["extensions"][EXTENSION]["connection"]
        if connections is not None:
            connections.append(connection)
        assert connection.owns(receive, send)
        await receive()
        await send(ACCEPTED)
        connection.listener = listener
        connection.hand_off()

    return app


async def test_after_the_hand_off_requests_that_came_early_wait_for_each_other() -> None:
    listener = Busy()
    early = [b"one", b"two", b"three", b"f" * 200, b"five"]
    data = handshake() + b"".join(client_frame(TEXT, each) for each in early)
    async with serving(lane_config(handing_off(listener))) as served:
        async with raw_client(served.port, data) as client:
            await opened(client)
            assert [(await client.frame())[1] for _ in early] == early
            client.send(client_frame(CLOSE, close_payload(1000)))
            await client.rest()
        await eventually(lambda: listener.codes)
    assert listener.heard == early and not listener.overlapped and listener.codes == [1000]


async def test_after_the_hand_off_no_task_and_no_asgi_state_is_left() -> None:
    listener = Busy()
    connections: list[FastConnection] = []
    async with serving(lane_config(handing_off(listener, connections))) as served:
        before = len(asyncio.all_tasks())
        clients = []
        for _ in range(20):
            client = raw_client(served.port, handshake())
            clients.append(client)
            await opened(await client.__aenter__())
        await eventually(lambda: not served.server.server_state.tasks)
        assert len(asyncio.all_tasks()) == before
        assert all(each._asgi is None and each._deadline is None and each._overdue is None for each in connections)
        assert len(served.connections) == 20
        for client in clients:
            await client.__aexit__(None, None, None)
        await eventually(lambda: not served.connections)
    assert listener.codes == [1006] * 20


async def test_an_application_that_keeps_the_connection_and_says_nothing_is_still_told_everything() -> None:
    """Attached, but not handed off: what the peer sends and that it leaves reaches the listener."""
    listener = Busy()
    leave = asyncio.Event()

    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        await receive()
        await send(ACCEPTED)
        scope["extensions"][EXTENSION]["connection"].listener = listener
        await leave.wait()

    early = handshake() + client_frame(TEXT, b"one") + client_frame(TEXT, b"two")
    async with serving(lane_config(app)) as served, raw_client(served.port, early) as client:
        await opened(client)
        assert [await client.frame(), await client.frame()] == [(0x81, b"one"), (0x81, b"two")]
        client.send(client_frame(CLOSE, close_payload(1001)))
        assert await client.frame() == (0x88, close_payload(1001))
        await eventually(lambda: listener.codes)
        leave.set()
    assert listener.heard == [b"one", b"two"] and listener.codes == [1001] and not listener.overlapped


async def test_wrapped_receive_or_send_is_not_its_own() -> None:
    answers: list[bool] = []

    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        connection: FastConnection = scope["extensions"][EXTENSION]["connection"]

        async def wrapped_send(event: dict[str, Any]) -> None:
            await send(event)

        async def wrapped_receive() -> dict[str, Any]:
            return await receive()

        answers.extend(connection.owns(r, s) for r in (receive, wrapped_receive) for s in (send, wrapped_send))
        await send({"type": "websocket.close"})

    async with serving(lane_config(app)) as served, raw_client(served.port, handshake()) as client:
        await client.head()
    assert answers == [True, False, False, False]


@pytest.mark.parametrize("state", ["not accepted", "accepted", "handed off"])
async def test_a_server_that_leaves_tells_everybody(state: str) -> None:
    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        connection: FastConnection = scope["extensions"][EXTENSION]["connection"]
        await receive()
        if state != "not accepted":
            await send(ACCEPTED)
        if state == "handed off":
            connection.listener = Busy()
            connection.hand_off()
        reached.set()
        if state != "handed off":
            await receive()

    reached = asyncio.Event()
    async with serving(lane_config(app)) as served, raw_client(served.port, handshake()) as client:
        async with asyncio.timeout(30):
            await reached.wait()
        for connection in served.connections:
            connection.shutdown()
        if state == "not accepted":
            assert (await client.head())[0] == 503
        else:
            await opened(client)
            first, payload = await client.frame()
            assert first == 0x88 and payload[:2] == (1012).to_bytes(2, "big")
            client.send(client_frame(CLOSE, payload[:2]))
        await client.rest()


async def test_a_peer_that_goes_while_the_application_thinks_about_it_leaves_nothing_behind() -> None:
    thinking, think = asyncio.Event(), asyncio.Event()
    errors: list[BaseException] = []

    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        await receive()
        thinking.set()
        await think.wait()
        try:
            await send(ACCEPTED)
            for _ in range(100):
                await send({"type": "websocket.send", "bytes": b"x" * 10_000})
                await asyncio.sleep(0.001)
        except OSError as error:
            errors.append(error)
            raise

    async with serving(lane_config(app)) as served:
        async with raw_client(served.port, handshake()):
            async with asyncio.timeout(30):
                await thinking.wait()
        think.set()
        await eventually(lambda: not served.server.server_state.tasks and not served.connections)
    assert [type(error) for error in errors] == [Disconnected]


# Heads of requests.


async def ok(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


@pytest.fixture
def short_head(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uvicorn_http, "HEAD_TIMEOUT_S", 0.05)


def test_the_limits_of_a_head_are_those_of_the_design() -> None:
    assert (uvicorn_http.HEAD_TIMEOUT_S, uvicorn_http.MAX_HEAD_BYTES, uvicorn_http.MAX_HEADERS) == (5.0, 32768, 100)


async def test_a_silent_connection_is_closed_without_a_word(short_head: None) -> None:
    async with serving(lane_config(ok)) as served, raw_client(served.port) as client:
        assert await client.rest() == b""


async def test_a_head_that_the_node_did_not_get_round_to_read_is_not_late(short_head: None) -> None:
    async with serving(lane_config(ok)) as served, raw_client(served.port) as client:
        await eventually(lambda: served.connections)
        client.send(GET)
        time.sleep(0.3)  # noqa: ASYNC251  # node and client are one process: the node is frozen
        assert (await client.head())[0] == 200


async def test_a_trickled_head_is_408(short_head: None) -> None:
    async with serving(lane_config(ok)) as served, raw_client(served.port) as client:
        trickle = asyncio.create_task(_trickle(client, handshake()[:-4]))
        assert (await client.head())[0] == 408
        await client.rest()
        await trickle


async def _trickle(client: RawClient, data: bytes) -> None:
    """A byte every 2 ms: more bytes than time."""
    for index in range(len(data)):
        if client.reader.at_eof() or client.writer.is_closing():
            return
        client.send(data[index : index + 1])
        await asyncio.sleep(0.002)


async def test_empty_lines_do_not_keep_an_idle_connection_alive(short_head: None) -> None:
    async with serving(lane_config(ok)) as served, raw_client(served.port, GET) as client:
        assert (await client.head())[0] == 200
        assert await client.reader.readexactly(2) == b"ok"
        trickle = asyncio.create_task(_trickle(client, b"\r\n" * 500))
        assert await client.rest() == b""
        await trickle


async def test_a_further_head_has_the_same_deadline(short_head: None) -> None:
    async with serving(lane_config(ok)) as served, raw_client(served.port, GET) as client:
        assert (await client.head())[0] == 200
        assert await client.reader.readexactly(2) == b"ok"
        client.send(GET + GET[:-2])
        assert (await client.head())[0] == 200
        assert await client.reader.readexactly(2) == b"ok"
        assert (await client.head())[0] == 408


async def test_a_head_in_time_has_no_deadline_after_it(short_head: None) -> None:
    listener = Busy()
    connections: list[FastConnection] = []
    async with serving(lane_config(handing_off(listener, connections))) as served:
        async with raw_client(served.port, handshake()) as client:
            await opened(client)
            await asyncio.sleep(0.15)  # nothing may happen now
            client.send(client_frame(TEXT, b"still here"))
            assert await client.frame() == (0x81, b"still here")


BOMBS = {
    "many headers": handshake(add=tuple(f"X-{index}: 1" for index in range(97))),
    "a large header": handshake(add=("X-A: " + "a" * 33_000,)),
    "many bytes in all": handshake(add=tuple(f"X-{index}: " + "a" * 4000 for index in range(9))),
    "a large path": handshake("/" + "a" * 33_000),
    "a header without end": handshake(add=("X-A: " + "a" * 1_000_000,))[:-4],
    "a path without end": b"GET /" + b"a" * 1_000_000,
    "headers without end": handshake(add=tuple(f"X-{index}: 1" for index in range(50_000)))[:-4],
    "a name without end": handshake()[:-2] + b"a" * 1_000_000,
}


@pytest.mark.parametrize("request_bytes", BOMBS.values(), ids=BOMBS)
async def test_a_head_too_large_is_431_and_not_kept(request_bytes: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uvicorn_http, "LINGER_S", 0.2)
    async with serving(lane_config(nobody)) as served, raw_client(served.port, request_bytes) as client:
        assert (await client.head())[0] == 431
        await client.rest()
        await eventually(lambda: not served.connections)


async def test_a_head_within_the_limits_is_served() -> None:
    request = handshake(add=("X-A: " + "a" * 30_000, *(f"X-{index}: 1" for index in range(90))))
    async with serving(lane_config(echo)) as served, raw_client(served.port, request) as client:
        await opened(client)


async def test_who_was_turned_away_and_stays_is_aborted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uvicorn_http, "LINGER_S", 0.05)
    async with serving(lane_config(nobody)) as served, raw_client(served.port, BAD["no Host"][0]) as client:
        assert (await client.head())[0] == 400
        client.send(GET * 100)
        await eventually(lambda: not served.connections)


async def read_it_all(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    """Says after the last piece how many headers there are."""
    while (await receive())["more_body"]:
        pass
    answer = f"{len(scope['headers']):02}".encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": answer})


CHUNKED = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"


async def test_trailers_are_no_headers() -> None:
    request = CHUNKED + b"2\r\nhi\r\n0\r\nX-User: admin\r\n\r\n"
    async with serving(lane_config(read_it_all)) as served, raw_client(served.port, request) as client:
        assert (await client.head())[0] == 200
        assert await client.reader.readexactly(2) == b"02"


ENDLESS = {
    "trailers": CHUNKED + b"2\r\nhi\r\n0\r\n" + b"X-A: b\r\n" * 400_000,
    "a trailer": CHUNKED + b"2\r\nhi\r\n0\r\nX-A: " + b"b" * 4_000_000,
    "an extension of a chunk": CHUNKED + b"2;a=" + b"b" * 4_000_000,
}


@pytest.mark.parametrize("request_bytes", ENDLESS.values(), ids=ENDLESS)
async def test_what_comes_around_a_body_is_bounded(request_bytes: bytes) -> None:
    async with serving(lane_config(read_it_all)) as served, raw_client(served.port, request_bytes) as client:
        assert await client.rest() == b"", "in the middle of a request that is being served it is aborted"
        await eventually(lambda: not served.connections)


async def test_many_small_chunks_are_a_body_like_any_other() -> None:
    request = CHUNKED + b"1\r\nx\r\n" * 60_000 + b"0\r\n\r\n"
    async with serving(lane_config(read_it_all)) as served, raw_client(served.port, request) as client:
        assert (await client.head())[0] == 200


async def test_bodies_of_requests_are_no_heads() -> None:
    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        size, more = 0, True
        while more:
            event = await receive()
            size += len(event["body"])
            more = event["more_body"]
        answer = str(size).encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"6")]})
        await send({"type": "http.response.body", "body": answer})

    post = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 300000\r\n\r\n" + b"x" * 300_000
    async with serving(lane_config(app)) as served, raw_client(served.port, post) as client:
        assert (await client.head())[0] == 200
        assert await client.reader.readexactly(6) == b"300000"


async def test_a_body_that_hardly_comes_ends_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uvicorn_http, "BODY_LOOK_S", 0.2)
    told: asyncio.Queue[str] = asyncio.Queue()

    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        while (event := await receive())["type"] == "http.request":
            pass
        told.put_nowait(event["type"])

    post = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 300000\r\n\r\n"
    async with serving(lane_config(app)) as served, raw_client(served.port, post) as client:
        trickle = asyncio.create_task(_trickle(client, b"x" * 1500))
        assert await client.rest() == b""
        await trickle
        assert await told.get() == "http.disconnect"


async def test_a_body_that_the_application_lets_wait_is_not_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither where the peer may not send on, nor where it waits to be asked (Expect: 100-continue)."""
    monkeypatch.setattr(uvicorn_http, "BODY_LOOK_S", 0.05)

    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        await asyncio.sleep(0.4)  # so many looks pass
        await read_it_all(scope, receive, send)

    head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3000000\r\n"
    async with serving(lane_config(app)) as served:
        async with raw_client(served.port, head + b"\r\n" + b"x" * 3_000_000) as client:
            assert (await client.head())[0] == 200
        async with raw_client(served.port, head + b"Expect: 100-continue\r\n\r\n") as client:
            assert (await client.head())[0] == 100
            client.send(b"x" * 3_000_000)
            assert (await client.head())[0] == 200


async def test_requests_that_are_sent_before_the_answers_are_few(caplog: pytest.LogCaptureFixture) -> None:
    """64 KiB of them were 4 MiB of objects: they are not taken in. Whoever waited for an answer is told of the end."""
    told: asyncio.Queue[str] = asyncio.Queue()

    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        await receive()
        told.put_nowait((await receive())["type"])
        await ok(scope, receive, send)

    logging.disable(logging.NOTSET)
    async with serving(lane_config(app)) as served:
        async with raw_client(served.port, GET * (uvicorn_http.MAX_PIPELINED + 2)) as client:
            assert await client.rest() == b""
            assert await told.get() == "http.disconnect"
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_a_few_requests_ahead_are_answered_in_order() -> None:
    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        body = scope["path"][1:].encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"1")]})
        await send({"type": "http.response.body", "body": body})

    ahead = b"".join(GET.replace(b"/ ", b"/%d " % n) for n in range(uvicorn_http.MAX_PIPELINED + 1))
    async with serving(lane_config(app)) as served, raw_client(served.port) as client:
        for _ in range(3):
            client.send(ahead)
            for n in range(uvicorn_http.MAX_PIPELINED + 1):
                assert (await client.head())[0] == 200
                assert await client.reader.readexactly(1) == b"%d" % n

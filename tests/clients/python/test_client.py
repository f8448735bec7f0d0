"""The client's socket side, against a small WebSocket server in the same loop that says what the test tells it to."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from http import HTTPStatus
from typing import Any

import pytest
from roomcast_client import (
    Closed,
    Connected,
    Direct,
    Disconnected,
    Lost,
    Message,
    Position,
    PutIn,
    PutOut,
    Refused,
    Removed,
    Roomcast,
    RoomcastError,
    Unavailable,
)
from roomcast_client.inbox import HIGH_EVENTS
from websockets.asyncio.server import ServerConnection, serve
from websockets.http11 import Request, Response

Handler = Callable[["Peer"], Awaitable[None]]


class Peer:
    """The server's end of one connection."""

    def __init__(self, socket: ServerConnection) -> None:
        assert socket.request is not None
        self.socket = socket
        self.path = socket.request.path
        self.authorization = socket.request.headers.get("Authorization")

    async def send(self, **frame: Any) -> None:
        await self.socket.send(json.dumps(frame))

    async def welcome(self) -> None:
        await self.send(op="welcome", session="s", node="n", user_id=1, ping=10, max_message=65536)

    async def receive(self) -> Any:
        return json.loads(await self.socket.recv())

    async def let_in(self, offset: int = 0) -> Any:
        """Answer a join; returns what was asked."""
        frame = await self.receive()
        where = {"room": frame["room"], "epoch": "e", "offset": offset, "tag": f"t{offset}"}
        recovered = True if "resume" in frame else None
        await self.send(op="reply", id=frame["id"], ok=True, recovered=recovered, messages=[], **where)
        return frame

    async def message(self, offset: int) -> None:
        await self.send(
            op="broadcast", type="message", room="r", offset=offset, tag=f"t{offset}", user_id=7, ts=1.5, data=offset
        )

    async def ack(self, offset: int) -> Any:
        frame = await self.receive()
        await self.send(op="reply", id=frame["id"], ok=True, room="r", epoch="e", offset=offset, tag=f"t{offset}")
        return frame


class Script:
    """Each connection is handled by the next handler; the last one handles all that follow."""

    def __init__(self, *handlers: Handler) -> None:
        self.handlers = list(handlers)
        self.peers: list[Peer] = []

    async def __call__(self, socket: ServerConnection) -> None:
        handler = self.handlers[min(len(self.peers), len(self.handlers) - 1)]
        self.peers.append(Peer(socket))
        await handler(self.peers[-1])


@contextlib.asynccontextmanager
async def server(
    script: Script, process_request: Callable[[ServerConnection, Request], Response | None] | None = None
) -> AsyncIterator[str]:
    async with serve(script, "127.0.0.1", 0, process_request=process_request, close_timeout=1) as running:
        port = running.sockets[0].getsockname()[1]
        yield f"ws://127.0.0.1:{port}/ws"


async def stay(peer: Peer) -> None:
    await peer.welcome()
    await peer.socket.wait_closed()


def close_with(code: int) -> Handler:
    async def handler(peer: Peer) -> None:
        await peer.socket.close(code, "said the server")

    return handler


async def test_the_token_travels_in_a_header_and_the_user_and_session_in_the_url() -> None:
    async def cut(peer: Peer) -> None:
        await peer.welcome()
        peer.socket.transport.abort()

    script = Script(cut, stay)
    async with server(script) as url, Roomcast(url, token="abc", user="a b") as rc:
        events = rc.events()
        seen = [await anext(events) for _ in range(3)]
    assert [type(event) for event in seen] == [Connected, Lost, Connected]
    assert [peer.authorization for peer in script.peers] == ["Bearer abc"] * 2
    assert [peer.path for peer in script.peers] == ["/ws?user=a+b", "/ws?user=a+b&session=s"]


async def test_an_expiring_token_is_replaced_on_the_open_connection() -> None:
    answered: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    async def expiring(peer: Peer) -> None:
        await peer.welcome()
        await peer.send(op="auth_expiring", in_s=30)
        answered.set_result(await peer.receive())
        await peer.socket.wait_closed()

    tokens = iter(["first", "second"])

    async def token() -> str:
        return next(tokens)

    async with server(Script(expiring)) as url, Roomcast(url, token=token):
        frame = await answered
    assert (frame["op"], frame["token"]) == ("auth", "second")


async def test_a_token_that_is_fixed_is_not_sent_again() -> None:
    first: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    async def expiring(peer: Peer) -> None:
        await peer.welcome()
        await peer.send(op="auth_expiring", in_s=30)
        first.set_result(await peer.let_in())
        await peer.socket.wait_closed()

    async with server(Script(expiring)) as url, Roomcast(url, token="fixed") as rc:
        await rc.join("r")
    assert first.result()["op"] == "join"


async def test_a_token_refused_after_a_welcome_is_fetched_anew() -> None:
    async def expired(peer: Peer) -> None:
        await peer.welcome()
        await peer.socket.close(4003)

    script = Script(expired, close_with(4001), stay)
    tokens = iter(["1", "2", "3"])
    async with server(script) as url, Roomcast(url, token=lambda: next(tokens)) as rc:
        events = rc.events()
        seen = [await anext(events) for _ in range(4)]
    assert [type(event) for event in seen] == [Connected, Lost, Lost, Connected]
    assert [peer.authorization for peer in script.peers] == ["Bearer 1", "Bearer 2", "Bearer 3"]


async def test_a_token_refused_at_first_is_fetched_anew_three_in_all() -> None:
    script = Script(close_with(4001), close_with(4001), stay)
    tokens = iter(["stale", "stale, too", "good"])
    async with server(script) as url, Roomcast(url, token=lambda: next(tokens)):
        assert [peer.authorization for peer in script.peers] == ["Bearer stale", "Bearer stale, too", "Bearer good"]
    refused = Script(close_with(4001))
    async with server(refused) as url:
        with pytest.raises(Disconnected, match="valid token") as caught:
            async with Roomcast(url, token=lambda: "bad"):
                pass
    assert caught.value.code == 4001
    assert len(refused.peers) == 3


async def test_a_token_function_that_fails_is_asked_again() -> None:
    calls = 0

    def token() -> str:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise OSError("the token server is away")
        return "good"

    async with server(Script(stay)) as url, Roomcast(url, token=token) as rc:
        assert "the token server is away" in str(await anext(rc.events()))


@pytest.mark.parametrize("code", [4001, 4004, 1008])
async def test_a_fatal_close_at_the_beginning_is_raised_on_entering(code: int) -> None:
    script = Script(close_with(code))
    async with server(script) as url:
        with pytest.raises(Disconnected, match="said the server") as caught:
            async with Roomcast(url, token="bad"):
                pass
    assert caught.value.code == code
    assert len(script.peers) == 1


async def test_a_refused_handshake_is_raised_with_its_status() -> None:
    def refuse(connection: ServerConnection, request: Request) -> Response:
        return connection.respond(HTTPStatus.FORBIDDEN, "no\n")

    async with server(Script(stay), refuse) as url:
        with pytest.raises(Disconnected, match="ROOMCAST_ORIGINS") as caught:
            async with Roomcast(url):
                pass
    assert caught.value.code == 403


async def test_a_fatal_close_later_ends_everything_with_its_reason() -> None:
    async def kick(peer: Peer) -> None:
        await peer.welcome()
        await peer.let_in()
        await peer.receive()
        await peer.socket.close(4004, "out")

    async with server(Script(kick)) as url, Roomcast(url) as rc:
        room = await rc.join("r")
        with pytest.raises(Disconnected, match="operator"):
            await room.send("x")
        for operation in (rc.join("q"), room.send("y"), anext(aiter(room))):
            with pytest.raises(Disconnected):
                await operation


async def test_nobody_there_is_said_within_the_time_with_the_cause() -> None:
    async with server(Script(stay)) as url:
        pass  # the port is closed again
    with pytest.raises(Unavailable, match="ConnectionRefused"):
        async with Roomcast(url, open_timeout_s=0.3):
            pass


async def test_a_cut_goes_on_at_the_next_url_and_a_send_underway_is_repeated_with_its_key() -> None:
    keys: list[str] = []

    async def swallow(peer: Peer) -> None:
        await peer.welcome()
        await peer.let_in(5)
        keys.append((await peer.receive())["key"])
        peer.socket.transport.abort()

    async def answer(peer: Peer) -> None:
        await peer.welcome()
        assert (await peer.let_in(5))["resume"] == {"epoch": "e", "offset": 5, "tag": "t5"}
        keys.append((await peer.ack(6))["key"])
        await peer.socket.wait_closed()

    async with server(Script(swallow)) as first, server(Script(answer)) as second, Roomcast([first, second]) as rc:
        room = await rc.join("r")
        ack = await room.send({"text": "hi"})
    assert ack.offset == 6
    assert keys[0] == keys[1]


async def test_an_application_that_does_not_read_can_send_and_then_gets_everything_in_order() -> None:
    """The ack comes after more messages than the room may keep: reading of the socket must go on."""
    many = 2 * HIGH_EVENTS

    async def flood(peer: Peer) -> None:
        await peer.welcome()
        await peer.let_in()
        for offset in range(1, many + 1):
            await peer.message(offset)
        await peer.ack(many + 1)
        while True:
            frame = await peer.receive()
            assert frame["op"] == "join"
            first = frame["resume"]["offset"] + 1
            last = min(first + 499, many)
            await peer.send(
                op="reply",
                id=frame["id"],
                ok=True,
                room="r",
                epoch="e",
                offset=last,
                tag=f"t{last}",
                recovered=True,
                messages=[
                    {"type": "message", "offset": n, "tag": f"t{n}", "user_id": 7, "ts": 1.5, "data": n}
                    for n in range(first, last + 1)
                ],
                **({"more": True} if last < many else {}),
            )

    async with server(Script(flood)) as url, Roomcast(url) as rc:
        room = await rc.join("r")
        assert (await room.send("x")).offset == many + 1
        assert len(room._mailbox.inbox._events) <= HIGH_EVENTS + 500
        offsets = []
        async for message in room:
            offsets.append(message.offset)
            if len(offsets) == many:
                break
    assert offsets == list(range(1, many + 1))


async def test_leaving_the_block_ends_what_waits_and_what_is_read() -> None:
    async def silent(peer: Peer) -> None:
        await peer.welcome()
        await peer.let_in()
        await peer.message(1)
        await peer.socket.wait_closed()

    async with server(Script(silent)) as url:
        async with Roomcast(url) as rc:
            room = await rc.join("r")
            sending = asyncio.ensure_future(room.send("x"))
            iterator = aiter(room)
            first = await anext(iterator)
        assert isinstance(first, Message)
        assert [message async for message in iterator] == []
        with pytest.raises(Closed):
            await sending
        with pytest.raises(Closed):
            await rc.join("q")


async def test_a_cancelled_join_leaves_the_room() -> None:
    frames: asyncio.Queue[Any] = asyncio.Queue()

    async def slow(peer: Peer) -> None:
        await peer.welcome()
        frames.put_nowait(await peer.receive())
        leave = await peer.receive()
        frames.put_nowait(leave)
        await peer.send(op="reply", id=leave["id"], ok=True)
        await peer.socket.wait_closed()

    async with server(Script(slow)) as url, Roomcast(url) as rc:
        joining = asyncio.ensure_future(rc.join("r"))
        assert (await frames.get())["op"] == "join"
        joining.cancel()
        with pytest.raises(asyncio.CancelledError):
            await joining
        assert (await frames.get())["op"] == "leave"


async def test_direct_messages_nobody_reads_make_room_for_newer_ones() -> None:
    async def flood(peer: Peer) -> None:
        await peer.welcome()
        for number in range(HIGH_EVENTS + 50):
            await peer.send(op="broadcast", type="direct", data=number)
        await peer.let_in()
        await peer.socket.wait_closed()

    async with server(Script(flood)) as url, Roomcast(url) as rc:
        await rc.join("r")
        assert rc.dropped_events == 51  # and the welcome
        assert await anext(rc.events()) == Direct(50)


async def test_mistakes_of_the_application_are_told_before_anything_is_sent() -> None:
    with pytest.raises(ValueError, match="ws://"):
        Roomcast("http://localhost/ws")
    with pytest.raises(RuntimeError, match="async with"):
        await Roomcast("ws://localhost/ws").join("r")

    async def one_room(peer: Peer) -> None:
        await peer.welcome()
        await peer.let_in()
        await peer.socket.wait_closed()

    async with server(Script(one_room)) as url, Roomcast(url) as rc:
        room = await rc.join("r")
        with pytest.raises(ValueError, match="already"):
            await rc.join("r")
        with pytest.raises(ValueError, match="timeout_s"):
            await room.send("x", timeout_s=200)
        with pytest.raises(Refused, match="too_large"):
            await room.send("x" * 70_000)
        with pytest.raises(ValueError):
            await room.send(float("nan"))


async def test_a_bug_in_the_client_does_not_leave_anybody_waiting() -> None:
    async with server(Script(stay)) as url, Roomcast(url) as rc:
        rc._engine._received = None  # type: ignore[method-assign,assignment]
        rc.reconnect()
        with pytest.raises(RoomcastError, match="report it"):
            await rc.join("r")


async def test_closing_ends_the_client_even_if_it_was_just_told_to_hurry() -> None:
    """Both wake the same wait: the cancellation must not be lost, nor the client go on connecting after its end."""

    async def once(peer: Peer) -> None:
        await peer.welcome()
        peer.socket.transport.abort()

    async with server(Script(once)) as url:
        rc = await Roomcast(url).__aenter__()
        events = rc.events()
        while not isinstance(await anext(events), Lost):
            pass
        await asyncio.sleep(0)  # the runner waits for the next attempt now
        rc.reconnect()
        async with asyncio.timeout(30):
            await rc.close()
    assert rc._engine._runner is not None and rc._engine._runner.done()


async def test_a_room_it_was_put_into_is_given_once_with_all_that_came_since_and_ends_when_taken_out() -> None:
    claimed = asyncio.Event()

    async def put_in_and_out(peer: Peer) -> None:
        await peer.welcome()
        await peer.send(op="broadcast", type="joined", room="r", epoch="e", offset=4, tag="t4")
        await peer.message(5)
        await claimed.wait()
        await peer.send(op="broadcast", type="left", room="r")
        await peer.let_in(5)
        await peer.socket.wait_closed()

    async with server(Script(put_in_and_out)) as url, Roomcast(url) as rc:
        events = rc.events()
        assert [await anext(events) for _ in range(2)][1] == PutIn("r", Position("e", 4, "t4"))
        room = await rc.join("r")
        assert room.position == Position("e", 4, "t4")
        with pytest.raises(ValueError, match="already in"):
            await rc.join("r")
        assert (await anext(aiter(room))).offset == 5
        claimed.set()
        with pytest.raises(Removed):
            await anext(aiter(room))
        assert await anext(events) == PutOut("r")
        await rc.join("r", resume=room.position)

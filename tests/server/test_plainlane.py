"""The plain lane against ASGI servers that take their time: what waits is bounded, and every end is told once."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Collection
from typing import Any

import pytest

from server import closing, plainlane
from server.connection import BUSY, CONGESTED, CONGESTED_BYTES, Connection, Listener
from server.frames import Batch, Prepared
from server.plainlane import PlainConnection


class Ears(Listener):
    def __init__(self, hold: int = 0) -> None:
        self.heard: list[tuple[bytes, bool]] = []
        self.codes: list[int] = []
        self.not_sent: Counter[str] = Counter()
        self.cuts: list[str] = []
        self.to_list: list[str | None] = []
        self.hold = hold

    def turned(self, connection: Connection) -> None:
        pass

    def received(self, connection: Connection, data: bytes, text: bool) -> None:
        self.heard.append((data, text))
        if self.hold:
            connection.hold(self.hold)

    def lost(self, connection: Connection, code: int) -> None:
        self.codes.append(code)

    def dropped(self, connection: Connection, kind: str, events: int) -> None:
        self.not_sent[kind] += events

    def cut(self, connection: Connection, why: str) -> None:
        self.cuts.append(why)

    def caught_up(self, connection: Connection, rooms: Collection[str | None]) -> None:
        self.to_list += rooms


class Server:
    """An ASGI server's ``receive`` and ``send``. While ``writable`` is clear, ``send`` waits."""

    def __init__(self, limit: int = 262144, hold: int = 0) -> None:
        self.events: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.sent: list[dict[str, Any]] = []
        self.writable = asyncio.Event()
        self.writable.set()
        self.error: Exception | None = None
        self.ears = Ears(hold)
        self.connection = PlainConnection(limit)
        self.connection.listener = self.ears
        self.running = asyncio.create_task(self.connection.run(self.events.get, self.send))

    async def send(self, event: dict[str, Any]) -> None:
        await self.writable.wait()
        if self.error is not None:
            raise self.error
        self.sent.append(event)

    def hears(self, *events: dict[str, Any]) -> None:
        for event in events:
            self.events.put_nowait({"type": "websocket.receive", **event})

    async def turns(self) -> None:
        """Let everything run that can."""
        for _ in range(10):
            await asyncio.sleep(0)

    async def over(self) -> None:
        async with asyncio.timeout(30):
            await self.running


@pytest.fixture
def short_close(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plainlane, "CLOSE_TIMEOUT_S", 0.05)


def batch(*payloads: bytes) -> Batch:
    return Batch([Prepared(payload) for payload in payloads])


async def test_messages_and_events_go_through_in_order() -> None:
    server = Server()
    server.hears({"text": "é"}, {"bytes": b"\xff"}, {"text": "", "bytes": None})
    server.connection.send(batch(b'{"a":1}', b'{"b":2}'))
    server.connection.send_event(b'{"c":3}')
    await server.turns()
    assert server.ears.heard == [("é".encode(), True), (b"\xff", False), (b"", True)]
    assert [event["text"] for event in server.sent] == ['{"a":1}', '{"b":2}', '{"c":3}']
    assert server.connection.outbound_bytes() == 0
    server.events.put_nowait({"type": "websocket.disconnect", "code": 1001})
    await server.over()
    assert server.ears.codes == [1001] and server.connection.closed


async def test_a_packed_connection_gets_binary() -> None:
    server = Server()
    server.connection.packed = True
    server.connection.send_event(b'{"a":1}')
    await server.turns()
    assert server.sent == [{"type": "websocket.send", "bytes": b"\x81\xa1a\x01"}]
    server.connection.close(1000)
    await server.over()


async def test_while_held_nothing_is_received() -> None:
    server = Server(hold=BUSY)
    server.hears({"text": "1"}, {"text": "2"})
    await server.turns()
    assert server.ears.heard == [(b"1", True)]
    server.connection.hold(CONGESTED)
    server.connection.release(BUSY)
    await server.turns()
    assert len(server.ears.heard) == 1
    server.connection.release(CONGESTED)
    await server.turns()
    assert len(server.ears.heard) == 2
    server.connection.close(1000)
    await server.over()


async def test_a_peer_that_owes_us_reading_is_not_read() -> None:
    server = Server()
    server.writable.clear()
    await server.turns()
    server.connection.send(batch(b"x" * (CONGESTED_BYTES + 1)))
    assert server.connection.held == CONGESTED
    server.writable.set()
    await server.turns()
    assert not server.connection.held and server.connection.outbound_bytes() == 0
    server.connection.close(1000)
    await server.over()


async def test_a_close_comes_after_what_was_sent_before_it() -> None:
    server = Server()
    server.connection.send_event(b"{}")
    server.connection.close(4002, "why")
    server.connection.close(4003)
    server.connection.send_event(b"late")
    await server.over()
    assert server.sent == [
        {"type": "websocket.send", "text": "{}"},
        {"type": "websocket.close", "code": 4002, "reason": "why"},
    ]
    assert server.ears.codes == [4002]


async def test_a_slow_reader_gets_4008_before_all_it_has_not_read() -> None:
    server = Server(limit=100_000)
    server.writable.clear()
    for _ in range(5):
        server.connection.send(batch(b"x" * 60_000))
        await server.turns()
    assert server.connection.closed and server.connection.outbound_bytes() <= 60_000
    assert server.ears.not_sent == {"message": 1} and server.ears.cuts == ["limit"]
    server.writable.set()
    await server.over()
    assert [event.get("code") for event in server.sent] == [None, closing.SLOW]
    assert server.ears.codes == [closing.SLOW]


@pytest.mark.parametrize("closed", [False, True])
async def test_a_send_that_never_ends_ends_the_connection(closed: bool, short_close: None) -> None:
    server = Server()
    server.writable.clear()
    server.connection.send_event(b"{}")
    if closed:
        server.connection.close(4004)
    await server.over()
    assert server.ears.codes == [4004 if closed else 1006] and not server.sent


async def test_a_reader_that_takes_a_little_at_a_time_cannot_put_off_the_close(short_close: None) -> None:
    sent: list[dict[str, Any]] = []

    async def trickle(event: dict[str, Any]) -> None:
        await asyncio.sleep(0.005)
        sent.append(event)

    connection = PlainConnection(262144)
    connection.listener = ears = Ears()
    connection.send(batch(*[b"{}"] * 10_000))
    connection.close(4002)
    async with asyncio.timeout(30):
        await connection.run(asyncio.Queue[dict[str, Any]]().get, trickle)
    assert ears.codes == [4002] and len(sent) < 1000


async def test_a_reader_that_owes_too_much_for_too_long_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plainlane, "STALL_S", 0.05)

    async def trickle(event: dict[str, Any]) -> None:
        await asyncio.sleep(0.005)

    connection = PlainConnection(262144)
    connection.listener = ears = Ears()
    connection.send(batch(*[b"x" * 1000] * 200))
    async with asyncio.timeout(30):
        await connection.run(asyncio.Queue[dict[str, Any]]().get, trickle)
    assert ears.codes == [closing.SLOW] and ears.cuts == ["stall"]


async def test_a_reader_that_has_caught_up_has_its_time_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server()
    server.writable.clear()
    for _ in range(2):
        server.connection.send(batch(b"x" * (CONGESTED_BYTES + 1)))
        assert server.connection.held == CONGESTED and server.connection._stall_by
        server.writable.set()
        await server.turns()
        assert not server.connection.held and not server.connection._stall_by
        server.writable.clear()
    server.writable.set()
    server.connection.close(1000)
    await server.over()
    assert not server.ears.cuts


@pytest.mark.parametrize("error", [ConnectionResetError(), RuntimeError("already closed")])
async def test_a_send_that_fails_means_that_the_peer_is_gone(error: Exception) -> None:
    server = Server()
    server.error = error
    server.connection.send_event(b"{}")
    await server.over()
    assert server.ears.codes == [1006]


async def test_an_error_of_our_own_is_not_swallowed() -> None:
    server = Server()
    server.error = ZeroDivisionError()
    server.connection.send_event(b"{}")
    with pytest.raises(ZeroDivisionError):
        await server.over()
    assert server.ears.codes == [1006]


async def test_a_cancelled_server_tells_the_hub() -> None:
    server = Server()
    await server.turns()
    server.running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await server.running
    assert server.ears.codes == [1006]

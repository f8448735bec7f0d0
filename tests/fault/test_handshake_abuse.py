"""Those who never finish their handshake, say too much in it, or say it so that two servers read it differently: rows
C25 and C26 of the fault catalogue, and request smuggling. On a real node, direct and through nginx."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import uvloop

from tests.support.busy import busy_s
from tests.support.figures import note
from tests.support.nginx import NginxServer
from tests.support.node import NodeServer
from tests.support.served import handshake, raw_client

pytestmark = [pytest.mark.system]

MIB = 2**20
HEAD_S = 5.0
"""The deadline of a head (server/uvicorn_http.py)."""


@pytest.fixture(autouse=True)
def loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    return uvloop.new_event_loop


def memory_bytes(node: NodeServer, field: str) -> int:
    """``VmRSS``, or ``VmHWM``: the most there ever was."""
    status = Path(f"/proc/{node.pid}/status").read_text()
    found = re.search(rf"^{field}:\s+(\d+) kB", status, re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024


# C25.


class Loris(asyncio.Protocol):
    """Connects and says nothing, or a byte of a handshake every ``every_s``. ``lasted_s``: until the node closed it."""

    def __init__(self, every_s: float | None) -> None:
        self.lasted_s: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self._every_s = every_s
        self._rest = handshake()
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as TCP has it
        self._transport, self._since_s = transport, time.monotonic()
        self._say()

    def _say(self) -> None:
        if self._every_s is not None and not self._transport.is_closing():
            self._transport.write(self._rest[:1])
            self._rest = self._rest[1:]
            self._timer = asyncio.get_running_loop().call_later(self._every_s, self._say)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self.lasted_s.set_result(time.monotonic() - self._since_s)


@contextlib.asynccontextmanager
async def lorises(port: int, count: int) -> AsyncIterator[list[Loris]]:
    loop = asyncio.get_running_loop()
    all_of_them = [Loris((None, 0.9, 4.0)[number % 3]) for number in range(count)]
    try:
        for each in all_of_them:
            await loop.create_connection(lambda each=each: each, "127.0.0.1", port)  # type: ignore[misc]
        yield all_of_them
    finally:
        for each in all_of_them:
            each._transport.abort()


async def handshake_s(port: int) -> float:
    start_s = time.monotonic()
    async with raw_client(port, handshake("/ws?user=honest")) as client:
        assert (await client.head())[0] == 101
    return time.monotonic() - start_s


async def slow_ones_at_once(count: int, p99_s: float) -> None:
    with NodeServer() as node:
        async with lorises(node.port, count) as attackers:
            others_s = []
            while not all(each.lasted_s.done() for each in attackers):
                others_s.append(await handshake_s(node.port))
                await asyncio.sleep(0.01)
                assert len(others_s) < 5000, "they are still there"
            lasted_s = sorted(each.lasted_s.result() for each in attackers)
        others_s.sort()
        row = f"C25 {count} silent and trickling sockets"
        note(f"{row}: the last is closed after", lasted_s[-1], "s")
        note(f"{row}: handshakes of others meanwhile, p50", 1e3 * others_s[len(others_s) // 2], "ms")
        note(f"{row}: handshakes of others meanwhile, p99", 1e3 * others_s[int(len(others_s) * 0.99)], "ms")
        assert lasted_s[0] >= HEAD_S - 0.1
        assert lasted_s[-1] < HEAD_S + 3 + busy_s(), "a second's second look, and the time to say why"
        assert others_s[int(len(others_s) * 0.99)] < p99_s + busy_s()
        assert node.metric("process_open_fds") < 60


async def test_sockets_that_never_finish_a_head_are_closed_and_others_not_delayed() -> None:
    await slow_ones_at_once(500, 0.5)


@pytest.mark.slow
async def test_five_thousand_of_them() -> None:
    await slow_ones_at_once(5000, 0.5)


# C26.


BOMBS = {
    "a header of 1 MiB": handshake(add=("X-A: " + "a" * MIB,)),
    "a header without end": handshake(add=("X-A: " + "a" * MIB,))[:-4],
    "a path of 1 MiB": handshake("/" + "a" * MIB),
    "50,000 headers": handshake(add=tuple(f"X-{index}: 1" for index in range(50_000))),
    "1,000 headers": handshake(add=tuple(f"X-{index}: 1" for index in range(1000))),
    "trailers without end": b"POST /ws HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n"
    + b"X: y\r\n" * 200_000,
}


@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS)
async def test_a_hundred_who_say_too_much_are_turned_away_in_bounded_memory(one_node: NodeServer, bomb: bytes) -> None:
    async def throw() -> None:
        async with raw_client(one_node.port, bomb) as client:
            answer = await client.rest()
            assert not answer or answer[9:10] == b"4", answer[:100]

    await throw()
    before = memory_bytes(one_node, "VmRSS")
    highest = memory_bytes(one_node, "VmHWM")
    await asyncio.gather(*(throw() for _ in range(100)))
    grown = memory_bytes(one_node, "VmHWM") - max(highest, before)
    note("C26 100 attackers with 1 MiB each: memory of the node", grown / MIB, "MiB")
    assert grown < 40 * MIB
    assert await handshake_s(one_node.port) < 5 + busy_s()


@pytest.fixture(scope="module")
def one_node() -> object:
    with NodeServer() as node:
        yield node


# Heads that two servers may read differently.


SHAPES = {
    "HTTP/1.0": (handshake(line="GET /ws HTTP/1.0"), (400,)),
    "h2c": (handshake(drop="Upgrade", add=("Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__")), (400,)),
    "h2c beside websocket": (handshake(add=("Upgrade: h2c",)), (400,)),
    "two Hosts": (handshake(add=("Host: other.example",)), (400,)),
    "no Host": (handshake(drop="Host"), (400,)),
    "POST": (handshake(line="POST /ws HTTP/1.1"), (400,)),
    "POST with a body": (handshake(line="POST /ws HTTP/1.1", add=("Content-Length: 5",)) + b"hello", (400,)),
    "a body": (handshake(add=("Content-Length: 5",)) + b"hello", (400,)),
    "a chunked body": (handshake(add=("Transfer-Encoding: chunked",)) + b"0\r\n\r\n", (400,)),
    "two lengths": (handshake(add=("Content-Length: 5", "Content-Length: 6")) + b"hello!", (400,)),
    "the same length twice": (handshake(add=("Content-Length: 5", "Content-Length: 5")) + b"hello", (400,)),
    "length and chunks": (handshake(add=("Content-Length: 5", "Transfer-Encoding: chunked")) + b"0\r\n\r\n", (400,)),
    "chunks twice": (
        handshake(add=("Transfer-Encoding: chunked", "Transfer-Encoding: chunked")) + b"0\r\n\r\n",
        (400,),
    ),
    "CONNECT": (b"CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n", (400, 405)),
    "HTTP/2 by prior knowledge": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", (400,)),
}
BY_NGINX = {
    **{name: shape for name, shape in SHAPES.items() if name != "h2c beside websocket"},  # nginx passes on the first
    "chunks twice": (SHAPES["chunks twice"][0], (400, 501)),
}


async def first_line(port: int, request: bytes) -> bytes:
    async with raw_client(port, request) as client:
        return (await client.head())[1].partition(b"\r\n")[0]


@pytest.mark.parametrize(("request_bytes", "statuses"), SHAPES.values(), ids=SHAPES)
async def test_a_head_that_may_be_read_in_two_ways_is_refused(
    one_node: NodeServer, request_bytes: bytes, statuses: tuple[int, ...]
) -> None:
    opened = one_node.metric("roomcast_connections_opened_total")
    line = await first_line(one_node.port, request_bytes)
    assert int(line.split()[1]) in statuses, line
    assert one_node.metric("roomcast_connections_opened_total") == opened


@pytest.fixture(scope="module")
def proxy(one_node: NodeServer) -> object:
    with NginxServer([one_node.port]) as server:
        yield server


@pytest.mark.nginx
@pytest.mark.parametrize(("request_bytes", "statuses"), BY_NGINX.values(), ids=BY_NGINX)
async def test_through_nginx_too(
    one_node: NodeServer, proxy: NginxServer, request_bytes: bytes, statuses: tuple[int, ...]
) -> None:
    opened = one_node.metric("roomcast_connections_opened_total")
    line = await first_line(proxy.port, request_bytes)
    assert int(line.split()[1]) in statuses, line
    assert one_node.metric("roomcast_connections_opened_total") == opened

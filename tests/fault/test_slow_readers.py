"""Readers that stall, on a real node with real sockets: rows C3 and C4. What they cost, when they are gone, and that
whoever comes back has missed nothing."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import time
from collections.abc import AsyncIterator, Iterator, Sequence

import pytest

from loadtests.accounting import rss_bytes
from tests.support.busy import busy_s
from tests.support.figures import note
from tests.support.node import NodeServer
from tests.support.peer import Peer, peer
from tests.support.redis_server import RedisServer
from tests.support.served import Flooder
from tests.support.waiting import eventually
from tests.support.wires import TEXT, client_frame

pytestmark = [pytest.mark.redis, pytest.mark.system]

STALLED = 30
"""Each in a room of its own, so that no two wait for the same bytes. Half of the rooms go on, half do not."""
ON = [f"on{index}" for index in range(STALLED // 2)]
OFF = [f"off{index}" for index in range(STALLED // 2)]
BULK = "x" * 30_000
GONE_S = 11.0
"""The bound: 10 s of stalling, and a second look."""


@pytest.fixture
def node(redis_server: RedisServer, prefix: str) -> Iterator[NodeServer]:
    with NodeServer(broker=redis_server.url, prefix=prefix, presence_broadcast="none") as server:
        yield server


def batched(values: Sequence[str], size: int) -> list[Sequence[str]]:
    return [values[begin : begin + size] for begin in range(0, len(values), size)]


async def metric(node: NodeServer, name: str) -> float:
    return await asyncio.to_thread(node.metric, name, 10.0)


async def until_metric(node: NodeServer, name: str, value: float, timeout_s: float) -> None:
    """Asked ten times a second, for the asking itself is work for the node."""

    async def there() -> bool:
        await asyncio.sleep(0.1)
        return await metric(node, name) == value

    await eventually(there, timeout_s)


@contextlib.asynccontextmanager
async def stalled(node: NodeServer, rooms: Sequence[str]) -> AsyncIterator[list[Flooder]]:
    """In each of the rooms a socket with a small window of which nobody reads anything any more."""
    sockets = [Flooder(node.port) for _ in rooms]
    try:
        for room, each in zip(rooms, sockets, strict=True):
            await each.open(f"/ws?user={room}")
            each.sock.sendall(client_frame(TEXT, b'{"op":"join","room":"%b"}' % room.encode()))
        yield sockets
    finally:
        for each in sockets:
            each.close()


@contextlib.asynccontextmanager
async def highest_rss(node: NodeServer) -> AsyncIterator[list[int]]:
    """``[bytes]``, sampled until the end of the block."""
    highest = [0]

    async def sample() -> None:
        while True:
            highest[0] = max(highest[0], await asyncio.to_thread(rss_bytes, node.pid))
            await asyncio.sleep(0.05)

    sampling = asyncio.create_task(sample())
    try:
        yield highest
    finally:
        sampling.cancel()
        await asyncio.wait((sampling,))


async def test_stalled_readers_cost_little_and_are_gone_in_time(node: NodeServer) -> None:
    async with peer(node.ws_url, "writer", *ON, *OFF) as writer:

        async def say(rooms: Sequence[str], data: str = BULK) -> None:
            for some in batched(rooms, 3):  # few at a time: what is in flight is memory, too
                await asyncio.gather(*(writer.ask("message", room=room, data=data, echo=False) for room in some))

        async with highest_rss(node) as busy:
            for _ in range(5):
                await say(ON + OFF)
        async with stalled(node, ON + OFF) as sockets:
            await until_metric(node, "roomcast_joins_total", 2 * STALLED, 10)
            before_bytes = max(busy[0], rss_bytes(node.pid))
            async with highest_rss(node) as highest:
                began_s = time.monotonic()
                while (slow := await metric(node, "roomcast_slow_connections")) < STALLED:
                    began_s = began_s if slow else time.monotonic()
                    await say(ON + OFF)
                filled_s = time.monotonic() - began_s
                while await metric(node, 'roomcast_slow_closes_total{why="limit"}') < len(ON):
                    for _ in range(10):
                        await say(ON, BULK[:4000])
                await until_metric(node, 'roomcast_connections{lane="fast"}', 1, GONE_S + 15)
                gone_s = time.monotonic() - began_s
            errors = [each.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) for each in sockets]
            assert errors == [errno.ECONNRESET] * STALLED, "the kernel keeps nothing of them either, and they are told"
        each_kib = (highest[0] - before_bytes) / STALLED / 1024
        note("C4 memory of the node per stalled reader", each_kib, "KiB")
        note("C4 from the first stall to the last abort", gone_s, "s")
        assert each_kib <= 300
        assert gone_s <= GONE_S + filled_s + 1 + busy_s(), "filling the buffers took some time, too"
        by_why = {why: await metric(node, f'roomcast_slow_closes_total{{why="{why}"}}') for why in ("limit", "stall")}
        assert by_why["limit"] >= len(ON) and sum(by_why.values()) == STALLED
        assert await metric(node, 'roomcast_closes_total{code="4008"}') == STALLED
        reply = await writer.ask("message", room="off1", data="still here")
        await writer.until(lambda: writer.views["off1"].position.offset == reply["offset"])


async def test_a_reader_too_slow_for_its_room_comes_back_and_has_missed_nothing(node: NodeServer) -> None:
    slow = Peer("slow")
    slow.pause_s = 0.05
    async with peer(node.ws_url, "writer", "r") as writer:
        await slow.connect(node.ws_url)
        await slow.join("r")
        last = 0
        while slow.close_code is None and await metric(node, 'roomcast_slow_closes_total{why="limit"}') == 0:
            last = (await writer.ask("message", room="r", data=BULK))["offset"]
        await slow.until(lambda: not slow.views["r"].live, 30)
        assert slow.close_code in (4008, 1006), "the abort may come before it has read the close"
        assert slow.views["r"].position.offset < last
        slow.pause_s = 0.0
        [reply] = await slow.resume(node.ws_url)
        assert reply["recovered"] is True
        assert slow.views["r"].position.offset == last and slow.views["r"].data == [BULK] * last
        slow.check()
        await slow.close()

"""Hostile bytes on a real node: the documented end, for that connection alone, and no memory kept."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager, closing
from typing import NamedTuple

import pytest
from websockets.asyncio.client import connect

from loadtests.accounting import rss_bytes
from tests.server.test_packed import BOMBS
from tests.support.chat import Chatter
from tests.support.figures import note
from tests.support.node import NodeServer
from tests.support.served import Flooder, RawClient, handshake, raw_client
from tests.support.waiting import eventually
from tests.support.wires import BINARY, CLOSE, CONT, PING, TEXT, client_frame

pytestmark = [pytest.mark.system, pytest.mark.timeout(120)]

KIB, MIB = 2**10, 2**20
AT_ONCE = 20
"""Attackers of one kind that are connected together."""
RESET = 0
TALKS_ON_BYTES = 64 * KIB
"""Whoever sends more may still be sending when the node has said its last word."""
NOISE_BYTES = 4 * MIB
"""How much memory may move though nothing is kept: the allocator, caches, the witnesses' own messages."""


class Attack(NamedTuple):
    name: str
    data: Callable[[], bytes]
    codes: tuple[int, ...]
    """One of these ends the connection."""
    packed: bool = False


def _json(text: str) -> bytes:
    return client_frame(TEXT, text.encode())


def _flood(room: str) -> bytes:
    """Into a room of its own: attackers who hear each other would be too slow for that."""
    return _json(f'{{"op":"join","room":"{room}"}}') + _json(f'{{"op":"message","room":"{room}","data":1}}') * 5000


_numbers = itertools.count(1)

ATTACKS = [
    Attack("C6 a frame of 2^63 - 1 bytes", lambda: b"\x81\xff\x7f" + b"\xff" * 7 + b"mask", (1009,)),
    Attack("C6 a frame of 16 MiB", lambda: client_frame(BINARY, bytes(16 * MIB)), (1009,)),
    Attack("C7 five thousand messages", lambda: _flood(f"flood{next(_numbers)}"), (4009,)),
    Attack("C8 256 KiB of the shortest texts", lambda: client_frame(TEXT) * (256 * KIB // 6), (4002, 4009)),
    Attack(
        "C9 empty fragments", lambda: client_frame(TEXT, fin=False) + client_frame(CONT, fin=False) * 50_000, (1008,)
    ),
    Attack("C11 no mask", lambda: b"\x81\x05Hello", (1002,)),
    Attack("C12 no UTF-8", lambda: client_frame(TEXT, b"\xc3\x28"), (1007,)),
    Attack("C13 a ping of 126 bytes", lambda: client_frame(PING, b"p" * 126), (1002,)),
    Attack("C14 a close with 1005", lambda: client_frame(CLOSE, b"\x03\xed"), (1002,)),
    Attack("C16 60 KiB of [", lambda: _json("[" * 60 * KIB) * 10, (4002,)),
    Attack(
        "C17 five thousand digits", lambda: _json('{"op":"message","room":"r","data":' + "9" * 5000 + "}") * 10, (4002,)
    ),
    *(
        Attack(f"C18 {name}", lambda bomb=bomb: client_frame(BINARY, bomb) * 10, (4002,), True)  # type: ignore[misc]
        for name, bomb in BOMBS.items()
    ),
    Attack("C19 bytes to who speaks JSON", lambda: client_frame(BINARY, b"{}"), (1003,)),
    Attack("C35 hostile names of rooms", lambda: _json('{"op":"join","room":"*{}\\u0000\\n"}') * 10, (4002,)),
]


async def attack(node: NodeServer, kind: Attack) -> int:
    """The code in the close frame that the node sends, or ``RESET``. Each time by somebody whom no limit knows."""
    subprotocol = ("Sec-WebSocket-Protocol: roomcast.msgpack.v1",) if kind.packed else ()
    async with raw_client(node.port, handshake(f"/ws?user=mallory{next(_numbers)}", add=subprotocol)) as client:
        assert (await client.head())[0] == 101
        client.send(kind.data())
        return await _close_code(client)


async def _close_code(client: RawClient) -> int:
    """``RESET`` where the close was overtaken by one: that is what who talks on after it may get."""
    while True:
        try:
            first, payload = await client.frame()
        except (ConnectionResetError, asyncio.IncompleteReadError):
            return RESET
        if first == 0x80 | CLOSE:
            return int.from_bytes(payload[:2], "big")


@asynccontextmanager
async def witnesses(node: NodeServer) -> AsyncIterator[None]:
    """Two who talk all the time, and must not notice a thing."""
    talking = True

    async def talk(alice: Chatter, bob: Chatter) -> int:
        said = 0
        while talking:
            said += 1
            await alice.ok("message", room="lobby", data=said)
            while (event := await bob.event()).get("type") != "message":
                pass
            assert (event["offset"], event["data"]) == (said, said)
        return said

    async with (
        connect(f"{node.ws_url}?user=alice", compression=None) as first,
        connect(f"{node.ws_url}?user=bob", compression=None) as second,
    ):
        alice, bob = Chatter(first), Chatter(second)
        await alice.ok("join", room="lobby")
        await bob.ok("join", room="lobby")
        conversation = asyncio.create_task(talk(alice, bob))
        try:
            yield
        finally:
            talking = False
            assert await conversation > 0


async def test_every_attack_ends_its_own_connection_and_costs_no_memory() -> None:
    with NodeServer(presence_broadcast="none", history="flood*=none") as node:  # what is kept is not what leaks
        async with witnesses(node):
            rss = []
            for _ in range(3):
                for kind in ATTACKS:
                    ended = await asyncio.gather(*(attack(node, kind) for _ in range(AT_ONCE)))
                    allowed = {*kind.codes, RESET} if len(kind.data()) > TALKS_ON_BYTES else {*kind.codes}
                    assert set(ended) <= allowed, kind.name
                await eventually(lambda: node.metric('roomcast_connections{lane="fast"}') == 2)
                rss.append(rss_bytes(node.pid))
        first, *_, third = rss
        note("C6-C35: RSS growth over two more rounds of attacks", (third - first) / KIB, "KiB")
        assert third - first < NOISE_BYTES
        assert not node.crashes()


@pytest.mark.slow
async def test_a_ping_flood_that_reads_nothing_is_cut_and_costs_no_memory() -> None:
    """C5, with the times of production: pings that are not read are held, and after 10 s nothing of them is left."""
    with NodeServer(presence_broadcast="none") as node, ExitStack() as stack:
        async with witnesses(node):
            flooders = [stack.enter_context(closing(Flooder(node.port))) for _ in range(AT_ONCE)]
            for flooder in flooders:
                await flooder.open("/ws?user=mallory")
            before = rss_bytes(node.pid)
            sent = await asyncio.gather(
                *(flooder.flood(client_frame(PING, b"p" * 125), 24 * MIB, give_up_s=3) for flooder in flooders)
            )
            grown = (rss_bytes(node.pid) - before) / AT_ONCE
            assert max(sent) < 24 * MIB, "what is not answered is not read"
            note("C5: RSS per flooder", grown / KIB, "KiB")
            assert grown < 512 * KIB
            await eventually(lambda: node.metric('roomcast_connections{lane="fast"}') == 2, 15)

"""What others see of clients that have many tabs, flap, end in the middle of a handshake or fall silent: rows C1, C22,
C23 and C33 of the fault catalogue, their presence half. Times a fifth of production's.
"""

from __future__ import annotations

import asyncio
import random
import socket
import struct
import time
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.support.busy import busy_s
from tests.support.figures import note
from tests.support.namespaces import private_network
from tests.support.node import NodeServer
from tests.support.presence import ROOM, SLACK_S, Servers, Stage, each, names, servers
from tests.support.waiting import eventually

pytestmark = [pytest.mark.redis, pytest.mark.system]


@pytest.fixture(scope="module")
def three() -> Iterator[Servers]:
    with servers(3) as started:
        yield started


async def test_a_client_that_falls_silent_goes_offline() -> None:
    """C1: every packet to and from it is lost. The ping finds out, the connection is aborted, one offline."""
    with private_network() as network, servers(2) as two:
        async with Stage(two) as stage:
            deaf, watched = stage.nodes
            silent, both = names("silent", 4), names("both", 2)
            await stage.open_all(silent + both, deaf)
            await stage.open_all(both, watched)
            observer = await stage.watch(watched)
            try:
                network.drop(deaf.port)
                dropped_s = time.monotonic()
                for user in silent:
                    await observer.saw(user, "offline", timeout_s=20)
                took_s = time.monotonic() - dropped_s
            finally:
                network.heal()
            note("C1: offline after the network of a client ended (a fifth of the times)", took_s, "s")
            assert took_s <= 2 + 2 + two.close_s + SLACK_S + busy_s()  # ping, its answer, then as after a close
            stage.lost(deaf)
            assert await stage.settled() == (each(silent, "offline"), each(silent, "offline"))


async def test_fifty_tabs_of_one_user_are_one_user(three: Servers) -> None:
    """C22: opened and closed in random order over all nodes, one of which dies midway."""
    seed = random.SystemRandom().randrange(10**9)
    print(f"\nseed {seed}")
    chance = random.Random(seed)
    async with Stage(three) as stage:
        dying, other, watched = stage.nodes
        observer = await stage.watch(watched)
        tabs = list(await asyncio.gather(*(stage.open("tabs", chance.choice(stage.nodes)) for _ in range(25))))
        left = 25
        while left:
            if chance.random() < 0.5:
                tabs.append(await stage.open("tabs", chance.choice([other, watched])))
                left -= 1
            elif len(tabs) > 1:
                await stage.close(tabs.pop(chance.randrange(len(tabs))))
            if left == 12 and dying.process is not None:
                dying.kill()
                gone = stage.lost(dying)
                tabs = [one for one in tabs if one not in gone]
        assert tabs and await stage.settled() == (each(["tabs"], "online"), each(["tabs"], "online"))
        assert stage.stored(None)["tabs"] == len(tabs)
        chance.shuffle(tabs)
        while tabs:
            await stage.close(tabs.pop())
        await observer.saw("tabs", "offline")
        expected = each(["tabs"], "online") + each(["tabs"], "offline")
        assert await stage.settled() == (expected, expected)


async def flap(three: Servers, duration_s: float, every_s: float) -> None:
    async with Stage(three) as stage:
        observer = await stage.watch(stage.nodes[2])
        chance = random.Random(23)
        end_s = time.monotonic() + duration_s
        times = 0
        while time.monotonic() < end_s:
            one = await stage.open("flapping", stage.nodes[times % 3])
            await asyncio.sleep(every_s / 2)
            await (stage.vanish(one) if chance.random() < 0.5 else stage.close(one))
            await asyncio.sleep(every_s / 2)
            times += 1
        closed_s = time.monotonic()
        assert observer.events(None) == observer.events(ROOM) == each(["flapping"], "online")
        await observer.saw("flapping", "offline")
        assert time.monotonic() - closed_s >= three.grace_s - every_s
        expected = each(["flapping"], "online") + each(["flapping"], "offline")
        assert await stage.settled() == (expected, expected)
        note("C23: reconnects of one user that made one online and one offline", times, "")


async def test_a_flapping_user_is_online_all_the_time(three: Servers) -> None:
    """C23: with half of the closes being resets."""
    await flap(three, 4, 0.1)


@pytest.mark.slow
@pytest.mark.timeout(120)
async def test_a_user_that_flaps_for_a_minute_is_online_all_the_time(three: Servers) -> None:
    """C23 as the catalogue has it."""
    await flap(three, 60, 0.1)


async def test_a_handshake_that_ends_in_the_middle_leaves_nothing(three: Servers) -> None:
    """C33: resets before the request is whole, before the 101 is read, and right after it."""
    async with Stage(three) as stage:
        tried, _, watched = stage.nodes
        observer = await stage.watch(watched)
        request = (
            f"GET /ws?user=half HTTP/1.1\r\nHost: 127.0.0.1:{tried.port}\r\n"
            "Connection: Upgrade\r\nUpgrade: websocket\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        ).encode()
        before = three.redis.client.client_list()
        for number in range(400):
            end = number % 3
            await asyncio.to_thread(reset_after, tried, request[: -end * 7 or None] if end else request)
        await asyncio.to_thread(reset_after, tried, request, True)
        await eventually(lambda: connections(tried) == 0)
        # Who got through for a moment was one user, online once at most.
        await stage.exact()
        everywhere, room = await stage.settled()
        assert room == Counter() and everywhere in (
            Counter(),
            each(["half"], "online") + each(["half"], "offline"),
        )
        assert len(three.redis.client.client_list()) == len(before)
        assert observer.close_code is None


def connections(node: NodeServer) -> float:
    """As the node counts them, on all its lanes."""
    lines = node.get("/metrics")[1].decode().splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith("roomcast_connections{"))


def reset_after(node: NodeServer, data: bytes, read: bool = False) -> None:
    """Connect, send, perhaps read the answer, reset."""
    with socket.create_connection(("127.0.0.1", node.port), 5) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.sendall(data)
        if read:
            assert sock.recv(1000).startswith(b"HTTP/1.1 101")


async def test_the_welcome_comes_first_whoever_else_comes_and_goes(three: Servers) -> None:
    """Each of these is told of the others, but not before its welcome (checked in Peer.connect)."""
    async with Stage(three) as stage:
        await stage.watch(stage.nodes[2])
        crowd = names("crowd", 90)
        await stage.open_all(crowd, *stage.nodes)
        assert await stage.settled() == (each(crowd, "online"), each(crowd, "online"))

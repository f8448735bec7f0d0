"""Peers that mean harm, on real sockets: what grows in uvicorn 0.54's own class does not grow in ours.

The tests of uvicorn's class are the reason why ours exists: when one of them fails, uvicorn has been mended.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import uvloop

from server import closing, inbound, wire
from server.connection import CONGESTED_BYTES, Connection, Listener
from server.fastlane import EXTENSION, FastConnection
from server.frames import Batch, Prepared
from tests.support.served import Flooder, Served, handshake, lane_config, raw_client, serving
from tests.support.waiting import eventually
from tests.support.wires import CONT, PING, TEXT, client_frame

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

MIB = 2**20


@pytest.fixture
def loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    return uvloop.new_event_loop


class Deaf(Listener):
    """Takes everything and answers nothing."""

    def __init__(self) -> None:
        self.codes: list[int] = []
        self.cuts: list[str] = []
        self.not_sent = 0

    def turned(self, connection: Connection) -> None:
        pass

    def received(self, connection: Connection, data: bytes, text: bool) -> None:
        pass

    def lost(self, connection: Connection, code: int) -> None:
        self.codes.append(code)

    def dropped(self, connection: Connection, kind: str, events: int) -> None:
        self.not_sent += events

    def cut(self, connection: Connection, why: str) -> None:
        self.cuts.append(why)


class App:
    """Hands off where it can; else receives for ever."""

    def __init__(self) -> None:
        self.listener = Deaf()

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        fast: FastConnection | None = scope["extensions"].get(EXTENSION, {}).get("connection")
        if fast is not None:
            fast.listener = self.listener
            fast.hand_off()
        else:
            while (await receive())["type"] != "websocket.disconnect":
                pass


async def only(served: Served) -> Any:
    """The server's object for its only connection."""
    await eventually(lambda: len(served.connections) == 1)
    return served.connections[0]


async def test_in_uvicorns_own_class_a_ping_flood_without_reading_grows_without_bound() -> None:
    async with serving(lane_config(App(), fast=False)) as served:
        flooder = Flooder(served.port)
        await flooder.open()
        protocol = await only(served)
        sent = await flooder.flood(client_frame(PING, b"p" * 125), 24 * MIB, give_up_s=10)
        assert sent == 24 * MIB, "it reads on"
        await eventually(lambda: protocol.transport.get_write_buffer_size() > 8 * MIB, 20)
        protocol.transport.abort()
        flooder.close()


async def test_a_ping_flood_without_reading_is_held_and_then_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "STALL_S", 0.5)
    monkeypatch.setattr(wire, "SECOND_LOOK_S", 0.1)
    app = App()
    async with serving(lane_config(app)) as served:
        flooder = Flooder(served.port)
        await flooder.open()
        connection = await only(served)
        most = 0

        async def watch() -> None:
            nonlocal most
            while True:
                most = max(most, connection.outbound_bytes() + len(connection._rest))
                await asyncio.sleep(0.001)

        watching = asyncio.create_task(watch())
        sent = await flooder.flood(client_frame(PING, b"p" * 125), 24 * MIB)
        assert sent < 24 * MIB, "what it sends is not read while it does not read"
        await eventually(lambda: app.listener.codes)
        watching.cancel()
        assert most < 2 * CONGESTED_BYTES + 256 * 1024, "pongs, and one chunk that was read before"
        assert app.listener.codes == [closing.SLOW]
        flooder.close()


async def test_in_uvicorns_own_class_empty_fragments_grow_without_bound() -> None:
    async with serving(lane_config(App(), fast=False)) as served:
        flooder = Flooder(served.port)
        await flooder.open()
        protocol = await only(served)
        await flooder.flood(client_frame(TEXT, fin=False), 6)
        await flooder.flood(client_frame(CONT, fin=False), 2 * MIB, give_up_s=10)
        await eventually(lambda: len(protocol.frames) > 100_000, 20)
        protocol.transport.abort()
        flooder.close()


async def test_empty_fragments_end_with_1008() -> None:
    app = App()
    flood = client_frame(TEXT, fin=False) + client_frame(CONT, fin=False) * 300_000
    async with serving(lane_config(app)) as served:
        async with raw_client(served.port, handshake()) as client:
            assert (await client.head())[0] == 101
            connection = await only(served)
            client.send(flood)
            first, payload = await client.frame()
            assert first == 0x88 and payload[:2] == closing.POLICY.to_bytes(2, "big")
            assert await client.rest() == b"", "half-closed, so that the close frame is not overtaken by a reset"
            assert connection._fragments is None or len(connection._fragments) <= inbound.MAX_FRAGMENTS
            assert not connection._rest
        await eventually(lambda: app.listener.codes)
    assert app.listener.codes == [closing.POLICY]


async def test_a_trickled_message_is_cut_however_lively_the_peer_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inbound, "ASSEMBLY_S", 0.1)
    monkeypatch.setattr(inbound, "SECOND_LOOK_S", 0.05)
    app = App()
    async with serving(lane_config(app)) as served, raw_client(served.port, handshake()) as client:
        assert (await client.head())[0] == 101

        async def trickle() -> None:
            for byte in client_frame(TEXT, b"x" * 60_000):
                client.send(bytes([byte]))
                await asyncio.sleep(0.002)

        trickling = asyncio.create_task(trickle())
        first, payload = await client.frame()
        trickling.cancel()
        assert first == 0x88 and payload[:2] == closing.POLICY.to_bytes(2, "big")


async def test_a_stalled_reader_is_cut_and_its_neighbour_does_not_notice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "STALL_S", 1.0)
    monkeypatch.setattr(wire, "SECOND_LOOK_S", 0.1)
    app = App()
    batch = Batch([Prepared(b"x" * 50_000)])
    async with serving(lane_config(app)) as served:
        flooder = Flooder(served.port)
        await flooder.open()
        stalled = await only(served)
        async with raw_client(served.port, handshake()) as client:
            assert (await client.head())[0] == 101
            await eventually(lambda: len(served.connections) == 2)
            [healthy] = [each for each in served.connections if each is not stalled]
            count = 0
            most = 0
            while not app.listener.codes:
                stalled.send(batch)
                healthy.send(batch)
                most = max(most, stalled.outbound_bytes())
                assert await client.frame() == (0x81, b"x" * 50_000)
                count += 1
            assert app.listener.codes == [closing.SLOW]
            assert most <= stalled.outbound_limit + len(batch.frames) + 200
            assert not healthy.closed
        flooder.close()


async def test_a_half_closed_peer_that_reads_nothing_does_not_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """Closing a transport waits until the peer has read: without a deadline this connection stays for ever."""
    monkeypatch.setattr(wire, "CLOSE_TIMEOUT_S", 0.2)
    app = App()
    batch = Batch([Prepared(b"x" * 50_000)])
    async with serving(lane_config(app)) as served:
        flooder = Flooder(served.port)
        await flooder.open()
        connection = await only(served)
        connection.transport.set_write_buffer_limits(high=MIB)  # not congested: it is still read
        while not connection.outbound_bytes():
            connection.send(batch)
            await asyncio.sleep(0)
        flooder.sock.shutdown(1)
        await eventually(lambda: app.listener.codes)
        assert app.listener.codes == [1006] and not served.connections
        flooder.close()


async def test_a_peer_that_is_gone_with_bytes_pending_is_aborted_at_its_beat() -> None:
    app = App()
    async with serving(lane_config(app)) as served:
        flooder = Flooder(served.port)  # alive for the kernel, dead for the application: it answers no ping
        await flooder.open()
        connection = await only(served)
        connection.send(Batch([Prepared(b"x" * 50_000)]))
        connection.beat(False)
        connection.beat(False)
        await eventually(lambda: app.listener.codes)
        assert app.listener.codes == [1006] and not served.connections
        flooder.close()


async def test_a_flood_of_tiny_frames_does_not_hold_up_others() -> None:
    """256 KiB of the shortest frames in one write: somebody else's ping is answered long before the last of them."""
    app = App()
    done = 0

    class Counting(Deaf):
        def received(self, connection: Connection, data: bytes, text: bool) -> None:
            nonlocal done
            done += 1

    app.listener = Counting()
    count = 262_144 // 6
    async with serving(lane_config(app)) as served:
        async with raw_client(served.port, handshake()) as flooding, raw_client(served.port, handshake()) as other:
            assert (await flooding.head())[0] == (await other.head())[0] == 101
            flooding.send(client_frame(TEXT) * count * 4)
            other.send(client_frame(PING))
            assert await other.frame() == (0x8A, b"")
            assert done < count * 4
            await eventually(lambda: done == count * 4, 20)


@pytest.mark.parametrize("opcode", [0, 3, 8, 9, 10, 15])
async def test_noise_ends_only_the_connection_it_comes_on(opcode: int) -> None:
    app = App()
    async with serving(lane_config(app)) as served:
        async with raw_client(served.port, handshake()) as noisy, raw_client(served.port, handshake()) as other:
            assert (await noisy.head())[0] == (await other.head())[0] == 101
            noisy.send(bytes([opcode, 0x7F]) + b"\xff" * 5000)
            first, payload = await noisy.frame()
            assert first == 0x88 and payload[:2] == (1002).to_bytes(2, "big")
            other.send(client_frame(PING, b"?"))
            assert await other.frame() == (0x8A, b"?")

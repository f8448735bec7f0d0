"""What a node does for its connections: one write per tick, no task for the idle, slow readers cut, health told."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypercorn.asyncio import serve
from hypercorn.config import Config
from websockets.asyncio.client import connect

from broker.memory import MemoryBroker
from broker.memory_bus import MemoryBus
from server import plainlane, wire
from server.app import Node, create_app
from server.connection import Connection
from server.fastlane import FastConnection
from server.plainlane import PlainConnection
from server.settings import Settings
from tests.support.chat import Chatter, NodeHere, node_here
from tests.support.redis_server import free_port
from tests.support.served import Flooder, handshake, raw_client
from tests.support.waiting import eventually
from tests.support.wires import PING, TEXT, client_frame


def connection_of(node: NodeHere, user: str) -> Connection:
    [connection] = node.hub.users.members(json.dumps(user))
    return connection


class CountingTransport:
    """A transport that counts its writes."""

    def __init__(self, transport: Any) -> None:
        self.transport = transport
        self.writes = 0

    def write(self, data: bytes) -> None:
        self.writes += 1
        self.transport.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.transport, name)


async def test_the_lanes_are_what_they_are_called(lane: str) -> None:
    async with node_here(lane) as node, node.client("alice"):
        assert type(connection_of(node, "alice")) is (FastConnection if lane == "fast" else PlainConnection)


async def test_acknowledgements_that_come_together_are_one_write() -> None:
    async with node_here("fast") as node, node.client("alice", "r") as alice:
        connection: Any = connection_of(node, "alice")
        connection.transport = counting = CountingTransport(connection.transport)
        said = [json.dumps({"op": "message", "id": n, "room": "r", "data": n, "echo": False}) for n in range(20)]
        connection.data_received(b"".join(client_frame(TEXT, each.encode()) for each in said))
        frames = [await alice.frame() for _ in range(2 * len(said))]
        assert [frame["id"] for frame in frames if frame["op"] == "reply"] == list(range(20))
        assert counting.writes == 2, "one for what the room got, one for the acknowledgements"


async def test_what_a_tick_brings_in_several_rooms_is_one_write() -> None:
    rooms = ["a", "b", "c", "d"]
    async with node_here("fast") as node, node.client("alice", *rooms) as alice, node.client("bob", "b") as bob:
        connection: Any = connection_of(node, "alice")
        connection.transport = counting = CountingTransport(connection.transport)
        published: list[Any] = [node.hub.cluster.publish(room, index) for room in rooms for index in range(5)]
        published.append(node.hub.cluster.broadcast_json("/ws", "everywhere"))
        published.append(node.hub.cluster.send_to_user('"alice"', "direct"))
        await asyncio.gather(*published)
        frames = await alice.events(22)
        assert counting.writes == 1
        seen = Counter(frame.get("room", frame["type"]) for frame in frames)
        assert seen == {"a": 5, "b": 5, "c": 5, "d": 5, "broadcast": 1, "direct": 1}
        for room in rooms:
            assert [frame["data"] for frame in frames if frame.get("room") == room] == list(range(5))
        await bob.events(6)
        await bob.quiet()


async def test_an_idle_connection_owns_no_task_and_no_timer() -> None:
    async with node_here("fast") as node:
        async with node.client("first", "r"):
            await node.hub.cluster.publish("r", 0)
            before = len(asyncio.all_tasks())
            clients = [raw_client(node.served.port, handshake(f"/ws?user=u{index}")) for index in range(50)]
            for client in clients:
                raw = await client.__aenter__()
                assert (await raw.head())[0] == 101
                assert b'"welcome"' in (await raw.frame())[1]
                raw.send(client_frame(TEXT, b'{"op":"join","room":"r","id":1}'))
                assert b'"ok":true' in (await raw.frame())[1]
            await eventually(lambda: not node.served.server.server_state.tasks)
            await eventually(lambda: len(asyncio.all_tasks()) == before)  # the last batch of presence is on its way
            connections = [each for each in node.served.connections if isinstance(each, FastConnection)]
            assert len(connections) == 51
            for each in connections:
                left = (each._deadline, each._overdue, each._rules, each._asgi, each._fragments)
                assert all(part is None for part in left)
            for client in clients:
                await client.__aexit__(None, None, None)


async def test_a_slow_consumer_is_cut_with_4008_and_the_others_go_on(
    lane: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (wire, plainlane):
        monkeypatch.setattr(module, "CLOSE_TIMEOUT_S", 0.5)
        monkeypatch.setattr(module, "STALL_S", 3.0)
    async with node_here(lane, outbound_bytes=64 * 1024) as node, node.client("alice", "r") as alice:
        slow = Flooder(node.served.port)
        await slow.open("/ws?user=slow")
        await asyncio.to_thread(slow.sock.sendall, client_frame(TEXT, b'{"op":"join","room":"r"}'))
        await eventually(lambda: len(node.hub.rooms.members("r")) == 2)
        connection = connection_of(node, "slow")
        data = "x" * 30_000
        count = most = 0
        while not connection.closed:
            await node.hub.cluster.publish("r", data)
            assert (await alice.event())["offset"] == count + 1
            count += 1
            most = max(most, connection.outbound_bytes())
            assert count < 20_000
        await eventually(lambda: connection not in node.hub.rooms.members("r"), 10)
        assert node.hub.counts.slow_closes == {"limit": 1}
        assert node.hub.counts.closes == {4008: 1} and node.hub.counts.drops == {("slow_reader", "message"): 1}
        assert most <= 64 * 1024 + 2 * 31_000, "what it is owed stays bounded"
        for _ in range(10):
            await node.hub.cluster.publish("r", data)
            assert (await alice.event())["data"] == data
        slow.close()


async def test_a_client_that_does_not_read_its_replies_is_not_read_either(lane: str) -> None:
    """A flood of requests whose answers nobody takes: what is owed and what is kept stay bounded."""
    async with node_here(lane, outbound_bytes=1024 * 1024) as node:
        flooder = Flooder(node.served.port)
        await flooder.open("/ws?user=slow")
        await eventually(lambda: node.hub.counts.connections == 1)
        connection = connection_of(node, "slow")
        sent = await flooder.flood(client_frame(TEXT, b'{"op":"ping","id":"' + b"x" * 60 + b'"}'), 40 * 2**20)
        assert sent < 40 * 2**20
        assert not connection.closed
        assert connection.outbound_bytes() < 3 * 64 * 1024
        flooder.close()


async def test_middleware_that_wraps_send_gets_every_event_even_on_the_fast_server() -> None:
    seen: list[str] = []

    def watching(node: Node) -> Callable[[Any, Any, Any], Awaitable[None]]:
        async def middleware(scope: Any, receive: Any, send: Any) -> None:
            async def watched(event: Any) -> None:
                seen.append(event["type"])
                await send(event)

            await node(scope, receive, watched)

        return middleware

    async with node_here("fast", wrap=watching) as node, node.client("alice", "r") as alice:
        assert type(connection_of(node, "alice")) is PlainConnection
        await alice.ok("message", room="r", data=1)
        assert (await alice.event())["data"] == 1
        assert await alice.ask("ping") == {"op": "pong"}
        await alice.ws.close(1000)
        await eventually(lambda: node.hub.counts.closes == {1000: 1})
    assert [kind for kind in seen if kind.startswith("websocket.")] == ["websocket.accept"] + ["websocket.send"] * 5


async def test_early_requests_wait_for_each_other_on_the_fast_server_behind_middleware_too() -> None:
    def wrapping(node: Node) -> Callable[[Any, Any, Any], Awaitable[None]]:
        async def middleware(scope: Any, receive: Any, send: Any) -> None:
            async def wrapped() -> Any:
                return await receive()

            await node(scope, wrapped, send)

        return middleware

    requests = (b'{"op":"join","room":"r","id":1}', b'{"op":"message","room":"r","data":1,"id":2}')
    data = handshake("/ws?user=a") + b"".join(client_frame(TEXT, each) for each in requests)
    for wrap in (None, wrapping):
        async with node_here("fast", wrap=wrap) as node, raw_client(node.served.port, data) as client:
            assert (await client.head())[0] == 101
            assert b'"welcome"' in (await client.frame())[1]
            replies = [json.loads((await client.frame())[1]) for _ in range(3)]
            assert [reply["ok"] for reply in replies if reply["op"] == "reply"] == [True, True]


async def test_pings_of_clients_and_of_the_node_are_answered(lane: str) -> None:
    async with node_here(lane, ping_s=0.1) as node:
        async with node.client("alice"), raw_client(node.served.port, handshake("/ws?user=dumb")) as dumb:
            assert (await dumb.head())[0] == 101
            assert b'"welcome"' in (await dumb.frame())[1]
            dumb.send(client_frame(PING, b"payload"))
            pings = 0
            while (frame := await dumb.frame())[0] != 0x8A:
                pings += frame[0] == 0x89
            assert frame[1] == b"payload"
            while not pings:
                pings += (await dumb.frame())[0] == 0x89
            await dumb.rest()  # it answers no ping: cut
            await eventually(lambda: node.hub.counts.connections == 1)
            assert list(node.hub.users) == ['"alice"']


# Health.


async def test_a_node_is_healthy_and_ready(lane: str) -> None:
    async with node_here(lane) as node:
        assert await node.get("/healthz") == (200, b"ok\n")
        status, body = await node.get("/readyz")
        assert status == 200 and json.loads(body) == {"ready": True, "reason": "", "node": "here"}
        async with node.client("alice", "r"):
            text = (await node.get("/metrics"))[1].decode()
        assert "roomcast_rooms 1.0" in text and "alice" not in text
        assert (await node.get("/nowhere"))[0] == 404


async def test_a_crashed_background_task_makes_the_node_unready_with_its_reason(lane: str) -> None:
    async def crash() -> None:
        raise ZeroDivisionError("on purpose")

    async with node_here(lane) as node:
        node.hub.tasks.spawn(crash(), "some task")
        await eventually(lambda: node.hub.failure)
        status, body = await node.get("/readyz")
        assert status == 503
        reason = json.loads(body)["reason"]
        assert "some task" in reason and "on purpose" in reason and "Restart" in reason
        assert (await node.get("/healthz"))[0] == 200


async def test_an_outage_of_the_broker_is_told_and_over_again(lane: str) -> None:
    bus = MemoryBus()
    broker = MemoryBroker(node_id="here", bus=bus)
    async with node_here(lane, broker=broker) as node, node.client("alice", "r") as alice:
        bus.interrupt(broker, "cut on purpose")
        degraded = await alice.event()
        assert degraded.keys() == {"op", "since"} and degraded["op"] == "degraded"
        assert await alice.refused("message", room="r", data=1) == "unavailable"
        assert await alice.refused("typing", room="r", typing=True) == "unavailable"
        status, body = await node.get("/readyz")
        assert status == 503 and json.loads(body)["reason"] == "cut on purpose"
        async with node.connected("user=bob") as bob:
            assert [(await bob.frame())["op"] for _ in range(2)] == ["welcome", "degraded"]
            bus.restore(broker)
            assert await bob.event() == await alice.event() == {"op": "restored"}
            await bob.ok("join", room="r")
            await alice.ok("message", room="r", data=2)
            assert (await bob.event())["data"] == 2


# Another server.


async def test_the_same_node_serves_under_hypercorn() -> None:
    node = create_app(Settings(dev=True, presence_broadcast="none"), MemoryBroker(node_id="here", bus=MemoryBus()))
    config = Config()
    port = free_port()
    config.bind = [f"127.0.0.1:{port}"]
    config.errorlog = None
    leave = asyncio.Event()
    serving = asyncio.create_task(serve(node, config, shutdown_trigger=leave.wait))  # type: ignore[arg-type]
    url = f"ws://127.0.0.1:{port}/ws?user="

    async def listening() -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            return False
        writer.close()
        return True

    _: bool = await eventually(listening)
    async with connect(url + "42", proxy=None) as one, connect(url + "bob", proxy=None) as two:
        alice, bob = Chatter(one), Chatter(two)
        assert (await alice.frame())["user_id"] == 42
        assert (await bob.frame())["user_id"] == "bob"
        for each in (alice, bob):
            await each.ok("join", room="r")
        await alice.ok("message", room="r", data="x")
        assert (await bob.event())["data"] == (await alice.event())["data"] == "x"
        await alice.ws.send(b"binary")
        assert await alice.closed() == 1003
        await node.hub.cluster.disconnect('"bob"')
        assert await bob.closed() == 4004
    await eventually(lambda: node.hub.counts.connections == 0)
    leave.set()
    await serving

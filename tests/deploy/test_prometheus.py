"""deploy/prometheus and deploy/grafana in a real Prometheus: two real nodes are scraped while clients talk, one reads
slowly, one comes back and a node drains; then every rule has been evaluated and every query of the dashboards has data.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from server import closing
from tests.deploy.test_dashboards import DASHBOARDS, NODE, expressions
from tests.support.node import NodeServer
from tests.support.prometheus import CONFIGURATION, Prometheus
from tests.support.redis_server import RedisServer
from tests.support.waiting import eventually_sync

pytestmark = [pytest.mark.system, pytest.mark.redis, pytest.mark.timeout(150)]

BIG = "x" * 60_000
SLOW = f'roomcast_closes_total{{code="{closing.SLOW}"}}'.encode()


def test_promtool_accepts_the_configuration() -> None:
    result = subprocess.run(
        ["promtool", "check", "config", str(CONFIGURATION / "prometheus.yml")],
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert result.returncode == 0, result.stdout + result.stderr


async def member(node: NodeServer, user: str, room: str, **options: object) -> ClientConnection:
    client = await connect(f"{node.ws_url}?user={user}", **options)  # type: ignore[arg-type]
    await client.send(json.dumps({"op": "join", "room": room, "id": 1}))
    return client


async def reads_on(client: ClientConnection) -> None:
    with contextlib.suppress(ConnectionClosed):
        async for _ in client:
            pass


async def talk(nodes: list[NodeServer], until: threading.Event) -> None:
    """Chat between nodes, somebody who comes and goes, and somebody who does not read what they asked for."""
    chat = [await member(node, f"u{index}", "chat") for index, node in enumerate(nodes * 2)]
    narrow = socket.socket()
    narrow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    narrow.connect(("127.0.0.1", nodes[0].port))
    slow = await member(nodes[0], "slow", "flood", sock=narrow)
    slow.transport.pause_reading()
    mute = await member(nodes[1], "mute", "chat")
    mute.transport.pause_reading()  # does not answer its close: the drain waits, and can be seen
    flooder = await member(nodes[0], "flooder", "flood")
    reading = [asyncio.create_task(reads_on(client)) for client in (*chat, flooder)]
    while not until.is_set():
        for client in chat:
            with contextlib.suppress(ConnectionClosed):  # its node has left
                await client.send(json.dumps({"op": "message", "room": "chat", "data": "hi"}))
        if SLOW not in nodes[0].get("/metrics")[1]:
            for _ in range(10):
                await flooder.send(json.dumps({"op": "message", "room": "flood", "data": BIG, "echo": False}))
        async with await connect(f"{nodes[0].ws_url}?user=guest"):
            await asyncio.sleep(0.1)
    slow.transport.abort()
    mute.transport.abort()
    await asyncio.gather(*(client.close() for client in (*chat, flooder)))
    await asyncio.gather(*reading)


@contextlib.contextmanager
def traffic(nodes: list[NodeServer]) -> Iterator[None]:
    until = threading.Event()
    thread = threading.Thread(target=lambda: asyncio.run(talk(nodes, until)))
    thread.start()
    try:
        yield
    finally:
        until.set()
        thread.join(20)


def recorded(prometheus: Prometheus) -> list[str]:
    """What the rules record; nothing before they were evaluated."""
    return [rule["name"] for rule in prometheus.rules() if rule["type"] == "recording"]


@pytest.fixture(scope="module")
def observed() -> Iterator[tuple[Prometheus, NodeServer]]:
    """A Prometheus that has seen all of it, and the node that is still there."""
    with ExitStack() as stack:
        server = stack.enter_context(RedisServer(maxmemory="64mb"))
        nodes = [NodeServer(broker=server.url, outbound_bytes=65536, drain_s=10) for _ in range(2)]
        prometheus = stack.enter_context(Prometheus([f"127.0.0.1:{node.port}" for node in nodes]))
        for node in nodes:
            stack.enter_context(node)
        with traffic(nodes):
            eventually_sync(lambda: prometheus.query('count(up{job="roomcast"} == 1)') == [2], 60)
            eventually_sync(lambda: sum(prometheus.query("roomcast_slow_closes_total")) > 0, 60)
            eventually_sync(lambda: all(map(prometheus.query, recorded(prometheus))), 60)
            nodes[1].terminate()
            eventually_sync(lambda: prometheus.query("count(roomcast_draining == 1)") == [1], 30)
            nodes[1].stop()  # the second signal: it need not close the rest one by one
            eventually_sync(lambda: prometheus.query('count(up{job="roomcast"} == 0)') == [1], 30)
        yield prometheus, nodes[0]


def test_both_nodes_were_scraped_and_the_drain_was_seen(observed: tuple[Prometheus, NodeServer]) -> None:
    prometheus, _ = observed
    assert prometheus.query("count(count_over_time(roomcast_build_info[5m]))") == [2]
    assert sorted(prometheus.query("max_over_time(roomcast_draining[5m])")) == [0, 1]


def test_every_rule_was_evaluated_and_what_is_recorded_is_there(observed: tuple[Prometheus, NodeServer]) -> None:
    prometheus, _ = observed
    rules = prometheus.rules()
    assert len(rules) > 30
    assert {rule["name"]: rule.get("lastError") for rule in rules if rule["health"] != "ok"} == {}
    assert [name for name in recorded(prometheus) if not prometheus.query(name)] == []


@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda path: path.stem)
def test_no_panel_is_empty(observed: tuple[Prometheus, NodeServer], dashboard: Path) -> None:
    prometheus, node = observed
    empty = []
    for panel, expression in expressions(dashboard):
        asked = expression.replace("$__rate_interval", "30s").replace(f"${NODE}", f"127.0.0.1:{node.port}")
        assert "$" not in asked, f"{panel}: which variable is this? {expression}"
        if not prometheus.query(asked) or all(math.isnan(value) for value in prometheus.query(asked)):
            empty.append((panel, expression))
    assert empty == []

"""What the log costs: publishes a second and node CPU per publish with a history and without, and memory per entry."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from websockets.frames import Frame, Opcode

from tests.support.cluster import Cluster, cluster
from tests.support.figures import note
from tests.support.node import NodeServer
from tests.support.served import RawClient, handshake, raw_client

pytestmark = [pytest.mark.redis, pytest.mark.system, pytest.mark.slow]

BURST, BURSTS, IN_FLIGHT = 200, 100, 3
DATA = "x" * 100
REPLY = b'"op":"reply"'


def frame(**request: Any) -> bytes:
    return Frame(Opcode.TEXT, json.dumps(request).encode()).serialize(mask=True)


class Replies:
    """Counts the replies among whatever comes."""

    def __init__(self, client: RawClient) -> None:
        self._client = client
        self._count = 0
        self._rest = b""

    async def up_to(self, count: int) -> None:
        """Return when so many have come in all."""
        while self._count < count:
            data = await self._client.reader.read(2**18)
            assert data, f"the node ended the connection: {self._rest!r}"
            self._rest += data
            self._count += self._rest.count(REPLY)
            self._rest = self._rest[1 - len(REPLY) :]


async def publishes(node: NodeServer, room: str) -> tuple[float, float]:
    """Publishes per second, and node CPU per publish in microseconds; each is acknowledged and comes back once."""
    async with raw_client(node.port, handshake("/ws?user=u")) as client:
        assert (await client.head())[0] == 101
        client.send(frame(op="join", id=1, room=room))
        replies = Replies(client)
        await replies.up_to(1)
        burst = b"".join(frame(op="message", id=number, room=room, data=DATA) for number in range(BURST))
        cpu_s, start_s = node.metric("process_cpu_seconds_total"), time.monotonic()
        for number in range(BURSTS + IN_FLIGHT):
            if number < BURSTS:
                client.send(burst)
            if number >= IN_FLIGHT:
                await replies.up_to(1 + BURST * (number + 1 - IN_FLIGHT))
        took_s = time.monotonic() - start_s
        return BURST * BURSTS / took_s, 1e6 * (node.metric("process_cpu_seconds_total") - cpu_s) / (BURST * BURSTS)


def redis_cpu_s(world: Cluster) -> float:
    info = world.redis.info("cpu")
    return float(info["used_cpu_user"] + info["used_cpu_sys"])


@pytest.mark.timeout(120)
async def test_what_a_publish_costs_with_the_log_and_without() -> None:
    settings = {"history": "none:*=none,*=1000/300s/8MiB", "heartbeat_s": 2, "lease_s": 8}
    async with cluster(1, by_log=True, settings=settings) as world:
        [node] = world.nodes
        cpu_us: dict[str, list[float]] = {"log": [], "none": []}
        for _ in range(3):  # alternating: the machine has its moods
            for kind, name in (("log", "with the log"), ("none", "without history")):
                redis_s = redis_cpu_s(world)
                rate, cost_us = await publishes(node, f"{kind}:r")
                cpu_us[kind].append(cost_us)
                note(f"Redis CPU per publish {name}", 1e6 * (redis_cpu_s(world) - redis_s) / (BURST * BURSTS), "µs")
                note(f"publishes of 100 bytes {name}", rate, "/s")
                note(f"node CPU per publish {name}", cost_us, "µs")
        assert len(world.log("log:r")) >= 1000 and world.log("none:r") == []
        assert sorted(cpu_us["log"])[1] < 1.5 * sorted(cpu_us["none"])[1] < 150


async def test_what_an_entry_of_the_log_weighs() -> None:
    async with cluster(1, by_log=True) as world:
        author = await world.peer(world.nodes[0], "small", "large")
        for room, size in (("small", 100), ("large", 1000)):
            for _ in range(10):
                posts = [author.post("message", room=room, data="x" * size) for _ in range(100)]
                assert all([(await post)["ok"] for post in posts])
            entries = len(world.log(room))
            weight = world.redis.command("MEMORY", "USAGE", f"roomcast:{{0}}:log:{room}", "SAMPLES", 0) / entries
            note(f"memory per log entry, {size} bytes of data", weight, "bytes")
            assert weight < size + (200 if size == 100 else 400)

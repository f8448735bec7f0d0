"""What a node tells operators about its Redis and about its own presence: numbers beside the work."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from broker.redis import link
from broker.stats import BrokerStats, ServerHealth
from tests.support.brokers import Backend
from tests.support.redis_server import RedisServer
from tests.support.waiting import eventually

pytestmark = pytest.mark.redis


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with RedisServer(maxmemory="64mb") as server:
        yield server


def health(stats: BrokerStats) -> ServerHealth:
    [found] = stats.servers.values()
    return found


async def test_the_memory_of_redis_is_looked_at_again_and_forgotten_when_redis_is_gone(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link, "LOOK_EVERY_S", 0.1)
    async with Backend(server, "watched").nodes("a", heartbeat_s=0.5, lease_s=10) as [node]:
        stats = node.broker.stats
        before = health(stats)
        assert before.maxmemory_bytes == 64 * 2**20 and before.used_memory_bytes > 500_000 and before.clients >= 2
        server.command("SET", "watched:big", "x" * 8_000_000)
        await eventually(lambda: health(stats).used_memory_bytes > before.used_memory_bytes + 7_000_000)
        server.kill()
        await eventually(lambda: not stats.servers)  # what is not known is not told


async def test_presence_that_redis_has_not_taken_ages(server: RedisServer) -> None:
    async with Backend(server, "aging").nodes("a", heartbeat_s=0.5, lease_s=10) as [node]:
        [waiting_s] = node.broker.stats.presence_waits
        node.broker.presence.set_count("1", None, 1)
        await eventually(lambda: waiting_s() == 0)
        server.pause()
        node.broker.presence.set_count("2", None, 1)
        try:
            await eventually(lambda: waiting_s() > 0.6, 10)
        finally:
            server.resume()
        await eventually(lambda: waiting_s() == 0, 10)

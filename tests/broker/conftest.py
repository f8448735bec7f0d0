"""Redis beyond one server, for all tests of a process that do it no harm; tests keep apart by ``prefix``."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.redis_cluster import RedisCluster
from tests.support.redis_sentinel import RedisSentinels


@pytest.fixture(scope="session")
def redis_cluster() -> Iterator[RedisCluster]:
    with RedisCluster() as cluster:
        yield cluster


@pytest.fixture(scope="session")
def redis_sentinels() -> Iterator[RedisSentinels]:
    """Patient ones: nothing fails here, and the machine may be busy."""
    with RedisSentinels(down_after_ms=20_000) as sentinels:
        yield sentinels

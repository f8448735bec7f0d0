"""Which servers are refused, and what an operator is told."""

from __future__ import annotations

import pytest

from broker.redis.checks import examine, health, parse_info
from broker.stats import ServerHealth

GOOD = {
    "redis_version": "7.0.15",
    "role": "master",
    "maxmemory_policy": "noeviction",
    "maxmemory": "1000",
    "used_memory": "100",
    "aof_enabled": "1",
    "rdb_last_bgsave_status": "ok",
}


def test_info_is_read_line_by_line() -> None:
    text = b"# Server\r\nredis_version:7.0.15\r\nos:Linux 6: x\r\n\r\n# Memory\r\nmaxmemory:0\r\n"
    assert parse_info(text) == {"redis_version": "7.0.15", "os": "Linux 6: x", "maxmemory": "0"}


def test_a_good_server_gives_no_word() -> None:
    assert examine(GOOD) == ("", [])


@pytest.mark.parametrize("version", ["7.0.0", "7.2.4", "8.2.2", "10.0.1", "255.255.255"])
def test_supported_versions(version: str) -> None:
    assert examine(GOOD | {"redis_version": version}).refusal == ""


@pytest.mark.parametrize(
    ("change", "refusal"),
    [
        ({"redis_version": "6.2.14"}, "is Redis 6.2.14; 7.0 is the oldest that works, upgrade it"),
        ({"redis_version": "rc"}, "is Redis rc; 7.0 is the oldest"),
        ({"role": "slave"}, "is a replica; point the broker URL at the master"),
        ({"loading": "1"}, "is still loading"),
        ({"maxmemory_policy": "allkeys-lru"}, "CONFIG SET maxmemory-policy noeviction"),
        ({"maxmemory_policy": "volatile-ttl", "maxmemory": "0"}, "maxmemory-policy volatile-ttl"),
    ],
)
def test_refused_servers(change: dict[str, str], refusal: str) -> None:
    assert refusal in examine(GOOD | change).refusal


@pytest.mark.parametrize(
    ("change", "warning"),
    [
        ({"maxmemory": "0"}, "no maxmemory"),
        ({"used_memory": "810"}, "uses 81% of its maxmemory"),
        ({"aof_enabled": "0"}, "no append-only file"),
        ({"rdb_last_bgsave_status": "err"}, "failed to write to its disk"),
        ({"aof_last_write_status": "err"}, "failed to write to its disk"),
    ],
)
def test_warnings(change: dict[str, str], warning: str) -> None:
    refusal, warnings = examine(GOOD | change)
    assert refusal == "" and len(warnings) == 1 and warning in warnings[0]


def test_health_is_the_same_as_numbers() -> None:
    info = GOOD | {"connected_clients": "7", "instantaneous_ops_per_sec": "1200"}
    assert health(info) == ServerHealth(100, 1000, 7, 1200.0, True)
    assert not health(GOOD | {"aof_last_write_status": "err"}).persistence_ok
    assert health({}) == ServerHealth(0, 0, 0, 0.0, True)  # a section that the server does not know is no error

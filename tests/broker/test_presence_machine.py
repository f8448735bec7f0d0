"""The state machine over both stores, and over broken scripts to see that it finds what it is there to find."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from broker.redis.presence import presence_scripts
from tests.broker.presence_machine import PresenceMachine
from tests.broker.presence_worlds import MemoryWorld, RedisWorld, World
from tests.support.redis_cluster import RedisCluster
from tests.support.redis_sentinel import RedisSentinels
from tests.support.redis_server import RedisServer

EVERY_RUN = settings(
    deadline=None, database=None, stateful_step_count=40, suppress_health_check=list(HealthCheck), print_blob=True
)


def run_machine(make_world: Callable[[], World], run: settings, number: int | None = None) -> None:
    machine = type("Machine", (PresenceMachine,), {"make_world": staticmethod(make_world)})
    if number is None:
        number = int(os.environ.get("ROOMCAST_SEED") or random.randrange(2**32))
    print(f"seed {number}: repeat with ROOMCAST_SEED={number}")
    run_state_machine_as_test(seed(number)(machine), settings=run)


@contextmanager
def redis_worlds(
    server: RedisServer | RedisCluster, mutate: Callable[[str], str] = str
) -> Iterator[Callable[[], World]]:
    """One connection at a time, closed when the next one is made."""
    worlds: list[RedisWorld] = []

    def close() -> None:
        while worlds:
            worlds.pop().close()

    def make() -> RedisWorld:
        close()
        worlds.append(RedisWorld(server, mutate))
        return worlds[-1]

    try:
        yield make
    finally:
        close()


@pytest.mark.timeout(120)
def test_the_machine_on_redis(redis_server: RedisServer) -> None:
    with redis_worlds(redis_server) as make:
        run_machine(make, settings(EVERY_RUN, max_examples=300))


@pytest.mark.redis
@pytest.mark.timeout(120)
def test_the_machine_on_a_cluster(redis_cluster: RedisCluster) -> None:
    with redis_worlds(redis_cluster) as make:
        run_machine(make, settings(EVERY_RUN, max_examples=60))


@pytest.mark.redis
@pytest.mark.timeout(120)
def test_the_machine_on_the_master_of_sentinels(redis_sentinels: RedisSentinels) -> None:
    with redis_worlds(redis_sentinels.master) as make:
        run_machine(make, settings(EVERY_RUN, max_examples=30))


def test_the_machine_in_memory() -> None:
    run_machine(MemoryWorld, settings(EVERY_RUN, max_examples=200))


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_machine_on_redis_for_long(redis_server: RedisServer) -> None:
    with redis_worlds(redis_server) as make:
        run_machine(make, settings(EVERY_RUN, max_examples=10_000))


@pytest.mark.slow
@pytest.mark.redis
@pytest.mark.timeout(3600)
def test_the_machine_on_a_cluster_for_long(redis_cluster: RedisCluster) -> None:
    with redis_worlds(redis_cluster) as make:
        run_machine(make, settings(EVERY_RUN, max_examples=10_000))


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_machine_in_memory_for_long() -> None:
    run_machine(MemoryWorld, settings(EVERY_RUN, max_examples=10_000))


BROKEN = {
    "a late batch is applied": ("if last >= tonumber(ARGV[2]) then return { 'STALE', -1 } end", ""),
    "a busy node does not notice a rollback": ("if last < tonumber(ARGV[3]) then return { 'ROLLBACK', -1 } end", ""),
    "an idle node does not notice a rollback": ("rolled_back and 'ROLLBACK' or 'OK'", "'OK'"),
    "a fenced node is heard": ("ARGV[1]) then return { 'FENCED', -1 } end", "'') then end"),
    "counts are added instead of replaced": ("(redis.call('HGET', KEYS[3], entity) or 0)", "0"),
    "a return does not end the grace": ("redis.call('ZREM', grace, entity)", ""),
    "a share is reaped twice": ("redis.call('HDEL', KEYS[3], entity)\n", ""),
    "the dead are forgotten too early": ("if #rest == 0 and redis.call('HLEN', KEYS[3]) <= 1 then", "do"),
    "a lease is not waited for": ("KEYS[2], '-inf', now, 'LIMIT', 0, 64", "KEYS[2], '-inf', '+inf', 'LIMIT', 0, 64"),
    "a stall of Redis kills nodes": ("if now >= stalled + lease_ms then", "do"),
    "a stall of Redis ends the grace": (" or now < stalled + ARGV[2] then", " then"),
    "a grace that began anew is not waited for": ("if ends and tonumber(ends) <= now then", "if ends then"),
    "whoever is named is gone": ("if ends and tonumber(ends) <= now then", "do"),
    "a clock set back prolongs everything": ("redis.call('ZADD', key, latest, member)", ""),
    "versions have holes": ("'HINCRBY', scope.key, 'v', 1)", "'HINCRBY', scope.key, 'v', 2)"),
    "an epoch comes back": ("epoch = fresh\n", "epoch = 'always'\n"),
    "nobody has joined again yet": ("unheard and lease_ms or math.max(0, whole", "math.max(0, (whole or now)"),
    "not everybody has joined again yet": ("or math.max(0, whole - now)", "or 0"),
    "an empty room stays": ("if online == 0 and redis.call('HLEN', scope.key) == 2 then", "if false then"),
}


@pytest.mark.timeout(120)
@pytest.mark.parametrize("fault", BROKEN)
def test_the_machine_finds_a_broken_script(redis_server: RedisServer, fault: str) -> None:
    right, wrong = BROKEN[fault]
    assert any(right in script.source.decode() for script in presence_scripts().values())
    quick = settings(EVERY_RUN, max_examples=3000, phases=[Phase.generate], report_multiple_bugs=False)
    with redis_worlds(redis_server, lambda source: source.replace(right, wrong)) as make:
        with pytest.raises((AssertionError, KeyError)):
            run_machine(make, quick, number=1)

"""What presence promises (broker/base.py), over both stores, with times scaled down."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from dataclasses import replace

import pytest

from broker.base import Unavailable
from tests.broker.presence_nodes import OPTIONS, QUIET_S, Backend, Node
from tests.support.busy import busy_s
from tests.support.redis_server import RedisServer

ALICE, BOB = '"alice"', "7"


@pytest.fixture(params=["memory", pytest.param("redis", marks=pytest.mark.redis)])
def backend(request: pytest.FixtureRequest, prefix: str) -> Iterator[Backend]:
    server = request.getfixturevalue("redis_server") if request.param == "redis" else None
    yield Backend(server, prefix)


async def test_the_first_connection_anywhere_is_online_and_after_the_last_one_offline(backend: Backend) -> None:
    async with backend.nodes("a", "b") as (a, b):
        a.reporter.set_count(ALICE, None, 1)
        await backend.observer.wait_told((ALICE, True))
        a.reporter.set_count(ALICE, None, 2)
        b.reporter.set_count(ALICE, None, 1)
        a.reporter.set_count(ALICE, None, 0)
        b.reporter.set_count(BOB, None, 1)
        await backend.observer.wait_told((ALICE, True), (BOB, True))
        b.reporter.set_count(ALICE, None, 0)
        start_s = asyncio.get_running_loop().time()
        await backend.observer.wait_told((ALICE, True), (BOB, True), (ALICE, False))
        took_s = asyncio.get_running_loop().time() - start_s
        assert OPTIONS.grace_s - 0.01 <= took_s <= OPTIONS.grace_s + 2 * OPTIONS.heartbeat_s + busy_s()


async def test_forty_two_and_its_text_are_two_users(backend: Backend) -> None:
    async with backend.nodes("a") as (a,):
        a.reporter.set_count("42", None, 1)
        a.reporter.set_count('"42"', None, 1)
        await backend.observer.wait_told(("42", True), ('"42"', True))
        assert (await a.reporter.roster(None)).users == {"42", '"42"'}
        assert await a.reporter.online("42") and not await a.reporter.online("4")


async def test_rooms_and_everywhere_are_counted_apart(backend: Backend) -> None:
    async with backend.nodes("a", "b") as (a, b):
        a.reporter.set_count(ALICE, None, 1)
        a.reporter.set_count(ALICE, "r", 1)
        b.reporter.set_count(BOB, "r", 1)
        b.reporter.set_count(BOB, "a:b@c/d-e.f", 1)
        await backend.observer.wait_for(lambda: len(backend.observer.changes) == 4)
        assert (await b.reporter.roster("r")).users == {ALICE, BOB}
        assert (await a.reporter.roster("a:b@c/d-e.f")).users == {BOB}
        assert (await b.reporter.roster(None)).users == {ALICE}
        a.reporter.set_count(ALICE, "r", 0)
        await backend.observer.wait_for(lambda: (ALICE, False) in backend.observer.told("room:r"))
        assert backend.observer.told() == [(ALICE, True)]


async def test_a_reload_or_a_move_to_another_node_shows_nothing(backend: Backend) -> None:
    async with backend.nodes("a", "b") as (a, b):
        a.reporter.set_count(ALICE, None, 1)
        a.reporter.set_count(BOB, None, 1)
        await backend.observer.wait_told((ALICE, True), (BOB, True))
        a.reporter.set_count(ALICE, None, 0)
        a.reporter.set_count(BOB, None, 0)
        await a.wait_beats()
        a.reporter.set_count(ALICE, None, 1)
        b.reporter.set_count(BOB, None, 1)
        await a.wait_beats(1 + round(QUIET_S / OPTIONS.heartbeat_s))
        assert backend.observer.told() == [(ALICE, True), (BOB, True)]


async def test_versions_are_contiguous_and_a_roster_names_its_own(backend: Backend) -> None:
    async with backend.nodes("a", "b") as (a, b):
        for number in range(20):
            (a if number % 2 else b).reporter.set_count(str(number), "r", 1)
        await backend.observer.wait_for(lambda: len(backend.observer.changes) == 20)
        roster = await a.reporter.roster("r")
        changes = [change for _, change in backend.observer.changes]
        assert [change.version for change in changes] == list(range(1, 21))
        assert (
            roster.versions == {changes[0].epoch: 20} and {change.epoch for change in changes} == roster.versions.keys()
        )
        assert roster.users == {str(number) for number in range(20)}


async def test_a_scope_without_users_has_no_epoch_and_the_next_one_is_new(backend: Backend) -> None:
    async with backend.nodes("a") as (a,):
        assert (await a.reporter.roster("r"))[:2] == ({}, frozenset())
        for _ in range(2):
            told = backend.observer.told("room:r")
            a.reporter.set_count(ALICE, "r", 1)
            await backend.observer.wait_told(*told, (ALICE, True), channel="room:r")
            a.reporter.set_count(ALICE, "r", 0)
            await backend.observer.wait_told(*told, (ALICE, True), (ALICE, False), channel="room:r")
        assert (await a.reporter.roster("r")).versions == {}
        first, _, second, _ = (change for _, change in backend.observer.changes)
        assert first.version == second.version == 1 and first.epoch != second.epoch
        assert await backend.left_over() == set()


async def test_the_users_of_a_killed_node_go_offline_once_and_in_time(backend: Backend) -> None:
    async with backend.nodes("a", "b") as (a, b):
        for number in range(50):
            a.reporter.set_count(str(number), None, 1 + number % 3)
            a.reporter.set_count(str(number), "r", 1)
        b.reporter.set_count("0", None, 1)
        await backend.observer.wait_for(lambda: len(backend.observer.changes) == 100)
        await b.wait_beats()
        await a.kill()
        beats = b.beats
        await backend.observer.wait_for(lambda: len(backend.observer.changes) == 199)
        assert b.beats - beats <= 2 + round(QUIET_S / OPTIONS.heartbeat_s), "in the clock of who clears up"
        assert sorted(backend.observer.told()[50:]) == sorted((str(number), False) for number in range(1, 50))
        assert (await b.reporter.roster(None)).users == {"0"} and (await b.reporter.roster("r")).users == set()
        b.reporter.set_count("0", None, 0)
        await backend.observer.wait_for(lambda: len(backend.observer.changes) == 200)
        assert await backend.left_over() == set()


async def test_users_of_a_killed_node_who_come_back_in_time_were_never_away(backend: Backend) -> None:
    async with backend.nodes("a", "b") as (a, b):
        a.reporter.set_count(ALICE, None, 1)
        await backend.observer.wait_told((ALICE, True))
        await a.kill()
        b.reporter.set_count(ALICE, None, 1)
        await b.wait_beats(2 + round(QUIET_S / OPTIONS.heartbeat_s))
        assert backend.observer.told() == [(ALICE, True)]
        assert (await b.reporter.roster(None)).users == {ALICE}


async def test_a_node_that_leaves_says_nothing_and_who_does_not_return_is_offline(backend: Backend) -> None:
    backend.options = replace(OPTIONS, lease_s=60)  # so it is not the lease that tells
    async with backend.nodes("a", "b") as (a, b):
        a.reporter.set_count(ALICE, None, 1)
        a.reporter.set_count(BOB, None, 1)
        await backend.observer.wait_told((ALICE, True), (BOB, True))
        left_s = asyncio.get_running_loop().time()
        await a.close()
        await a.close()
        b.reporter.set_count(ALICE, None, 1)
        await backend.observer.wait_told((ALICE, True), (BOB, True), (BOB, False))
        took_s = asyncio.get_running_loop().time() - left_s
        assert took_s >= OPTIONS.grace_s - 0.01
        a.reporter.set_count(BOB, None, 1)
        assert (await b.reporter.roster(None)).users == {ALICE}


async def test_after_a_loss_of_all_data_every_node_says_everything_again(backend: Backend) -> None:
    async with backend.nodes("a", "b") as (a, b):
        a.reporter.set_count(ALICE, None, 1)
        b.reporter.set_count(BOB, None, 2)
        await backend.observer.wait_told((ALICE, True), (BOB, True))
        await a.wait_beats(round(OPTIONS.lease_s / OPTIONS.heartbeat_s) + 1)
        assert (await a.reporter.roster(None)).settling_s == 0
        before = await a.reporter.roster(None)
        await backend.lose_all_data()
        at_once = await a.reporter.roster(None)
        assert at_once.settling_s > 0, "nobody has joined again yet, and nobody is to be taken for gone"
        await backend.observer.wait_for(lambda: len(backend.observer.changes) == 4)
        after = await a.reporter.roster(None)
        assert (
            after.users == {ALICE, BOB}
            and after.versions.keys() != before.versions.keys()
            and 0 < after.settling_s <= OPTIONS.lease_s
        )
        assert a.rejoins == b.rejoins == 1


async def test_a_node_frozen_beyond_its_lease_joins_again(backend: Backend) -> None:
    async with backend.nodes("a", "b") as (a, b):
        a.reporter.set_count(ALICE, None, 1)
        await backend.observer.wait_told((ALICE, True))
        a.freeze()
        await backend.observer.wait_told((ALICE, True), (ALICE, False))
        a.reporter.set_count(BOB, None, 1)  # the zombie speaks before its first heartbeat
        await backend.observer.wait_told((ALICE, True), (ALICE, False), (ALICE, True), (BOB, True))
        assert a.rejoins == 1 and b.rejoins == 0
        a.thaw()
        a.reporter.set_count(ALICE, None, 0)
        await backend.observer.wait_for(lambda: len(backend.observer.changes) == 5)
        assert (await b.reporter.roster(None)).users == {BOB}


async def test_a_node_frozen_for_less_shows_nothing(backend: Backend) -> None:
    async with backend.nodes("a", "b") as (a, b):
        a.reporter.set_count(ALICE, None, 1)
        await a.wait_beats()
        a.freeze()
        await b.wait_beats(2)
        a.thaw()
        await b.wait_beats(2 + round(QUIET_S / OPTIONS.heartbeat_s))
        assert backend.observer.told() == [(ALICE, True)] and a.rejoins == 0


async def test_a_user_who_flaps_is_online_once(backend: Backend) -> None:
    async with backend.nodes("a", "b") as (a, b):
        for _ in range(10):
            for node in (a, b):
                node.reporter.set_count(ALICE, None, 1)
                await node.wait_beats()
                node.reporter.set_count(ALICE, None, 0)
        assert backend.observer.told() == [(ALICE, True)]
        await backend.observer.wait_told((ALICE, True), (ALICE, False))


async def test_fifty_tabs_over_five_nodes_one_of_which_is_killed(backend: Backend) -> None:
    async with backend.nodes("a", "b", "c", "d", "e") as nodes:
        tabs = [node for node in nodes for _ in range(10)]
        here = dict.fromkeys(nodes, 0)

        async def use(tab: Node, difference: int) -> None:
            here[tab] += difference
            tab.reporter.set_count(ALICE, None, here[tab])
            await asyncio.sleep(0)

        random.shuffle(tabs)
        for number, tab in enumerate(tabs):
            if number == 30:
                await nodes[0].kill()
            await use(tab, 1)
        survivors = [tab for tab in tabs if tab is not nodes[0]]
        random.shuffle(survivors)
        for tab in survivors[1:]:
            await use(tab, -1)
        await survivors[0].wait_beats(2 + round(QUIET_S / OPTIONS.heartbeat_s))
        assert backend.observer.told() == [(ALICE, True)]
        await use(survivors[0], -1)
        await backend.observer.wait_told((ALICE, True), (ALICE, False))
        assert await backend.left_over() == set()


async def test_while_the_store_is_away_reads_fail_and_counts_are_kept(prefix: str) -> None:
    backend = Backend(None, prefix)
    async with backend.nodes("a") as (a,):
        backend.away = True
        a.reporter.set_count(ALICE, None, 1)
        with pytest.raises(Unavailable):
            await a.reporter.roster(None)
        with pytest.raises(Unavailable):
            await a.reporter.online(ALICE)
        backend.away = False
        await backend.observer.wait_told((ALICE, True))


@pytest.mark.redis
async def test_a_join_storm_costs_one_call_per_node_and_tick(redis_server: RedisServer, prefix: str) -> None:
    backend = Backend(redis_server, prefix)
    async with backend.nodes("a") as (a,):
        ticks = 0
        before = backend.wires[0].stats.commands
        for user in range(3000):
            a.reporter.set_count(str(user), None, 1)
            a.reporter.set_count(str(user), f"r{user % 10}", 1)
            if user % 30 == 29:
                ticks += 1
                await asyncio.sleep(0)
        await backend.observer.wait_for(lambda: len(backend.observer.changes) == 6000)
        calls = backend.wires[0].stats.commands - before
        assert calls <= ticks + 6000 // 256 + 10

"""Receipt marks, on every broker: the maximum wins within the epoch of the log, and only an advance is told."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator

import pytest

from broker.base import Dedup, History, Mark, Signal, Status
from tests.support.brokers import Backend
from tests.support.redis_server import RedisServer

HISTORY = History()


@pytest.fixture(params=["memory", pytest.param("redis", marks=pytest.mark.redis)])
def backend(request: pytest.FixtureRequest, prefix: str) -> Iterator[Backend]:
    server: RedisServer | None = None if request.param == "memory" else request.getfixturevalue("redis_server")
    yield Backend(server, prefix)


async def test_an_advance_moves_the_mark_and_is_told_once(backend: Backend) -> None:
    async with backend.nodes("a", "b") as (a, b):
        await b.broker.subscribe("room:r")
        for _ in range(3):
            await a.broker.append("r", b"x", history=HISTORY)
        assert await a.broker.advance("r", "42", "delivered", 2, b"d2")
        assert not await b.broker.advance("r", "42", "delivered", 2, b"again")
        assert not await b.broker.advance("r", "42", "delivered", 1, b"back")
        assert await b.broker.advance("r", "42", "read", 1, b"r1")
        assert await a.broker.marks("r") == [Mark("42", 2, 1)]
        assert await a.broker.advance("r", "42", "read", 3, b"r3")
        assert await b.broker.marks("r") == [Mark("42", 3, 3)]
        await b.sink.wait_count("room:r", 6)
        signals = [item.payload for item in b.sink.of("room:r") if isinstance(item, Signal)]
        assert signals == [b"d2", b"r1", b"r3"]


async def test_an_empty_payload_moves_the_mark_and_tells_nobody(backend: Backend) -> None:
    async with backend.nodes("a") as (a,):
        await a.broker.subscribe("room:r")
        await a.broker.append("r", b"x", history=HISTORY)
        assert await a.broker.advance("r", '"alice"', "read", 1, b"")
        await a.broker.append("r", b"end", history=HISTORY)
        await a.sink.wait_count("room:r", 2)
        assert await a.broker.marks("r") == [Mark('"alice"', 1, 1)]


async def test_the_mark_of_an_author_moves_with_the_message(backend: Backend) -> None:
    async with backend.nodes("a") as (a,):
        await a.broker.append("r", b"1", history=HISTORY, author='"ann"', dedup=Dedup("s", "k"))
        assert await a.broker.marks("r") == [Mark('"ann"', 1, 1)], "already when the append is acknowledged"
        await a.broker.append("r", b"2", history=HISTORY)
        await a.broker.append("r", b"1", history=HISTORY, author='"ann"', dedup=Dedup("s", "k"))
        assert await a.broker.marks("r") == [Mark('"ann"', 1, 1)], "said again it is the first entry"
        await a.broker.append("r", b"3", history=HISTORY, author='"ann"')
        assert await a.broker.marks("r") == [Mark('"ann"', 3, 3)]


async def test_a_mark_above_the_top_is_not_kept(backend: Backend) -> None:
    async with backend.nodes("a") as (a,):
        assert not await a.broker.advance("r", "1", "read", 1, b"x")
        await a.broker.append("r", b"x", history=HISTORY)
        assert not await a.broker.advance("r", "1", "read", 2, b"x")
        assert await a.broker.marks("r") == []


async def test_whatever_the_order_and_however_often_the_maximum_stays(backend: Backend) -> None:
    async with backend.nodes("a", "b") as nodes:
        await nodes[0].broker.subscribe("room:r")
        for _ in range(50):
            await nodes[0].broker.append("r", b"x", history=HISTORY)
        said: list[tuple[Status, int]] = [
            (status, offset) for offset in range(1, 51) for status in ("delivered", "read") for _ in range(2)
        ]
        random.Random(7).shuffle(said)
        moved = await asyncio.gather(
            *(
                nodes[i % 2].broker.advance("r", "1", status, offset, b"%d" % offset)
                for i, (status, offset) in enumerate(said)
            )
        )
        assert await nodes[1].broker.marks("r") == [Mark("1", 50, 50)]
        await nodes[0].sink.wait_count("room:r", 50 + sum(moved))


async def test_a_mark_of_a_former_epoch_counts_as_none(prefix: str, redis_server: RedisServer) -> None:
    backend = Backend(redis_server, prefix)
    async with backend.nodes("a") as (a,):
        for _ in range(5):
            await a.broker.append("r", b"x", history=HISTORY)
        await a.broker.advance("r", "1", "read", 5, b"x")
        redis_server.command("DEL", f"{prefix}:{{0}}:meta:r")
        await a.broker.append("r", b"x", history=HISTORY)
        assert await a.broker.marks("r") == []
        assert await a.broker.advance("r", "2", "read", 1, b"x")
        assert await a.broker.marks("r") == [Mark("2", 1, 1)]


async def test_marks_of_a_room_are_bounded_and_those_that_stand_still_go_first(backend: Backend) -> None:
    async with backend.nodes("a", max_marks_per_room=20) as (a,):
        await a.broker.append("r", b"x", history=HISTORY)
        for number in range(21):
            await a.broker.advance("r", str(number), "read", 1, b"")
        kept = {mark.user for mark in await a.broker.marks("r")}
        assert len(kept) == 18
        if backend.server is None:
            assert kept == {str(number) for number in range(3, 21)}


async def test_users_and_rooms_are_kept_apart(backend: Backend) -> None:
    async with backend.nodes("a") as (a,):
        for room in ("r", "s"):
            await a.broker.append(room, b"x", history=HISTORY)
        await a.broker.advance("r", "42", "read", 1, b"")
        await a.broker.advance("r", '"42"', "delivered", 1, b"")
        assert set(await a.broker.marks("r")) == {Mark("42", 1, 1), Mark('"42"', 1, 0)}
        assert await a.broker.marks("s") == []

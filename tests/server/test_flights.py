"""Reads that many ask for at once."""

from __future__ import annotations

import asyncio

import pytest

from broker.base import Unavailable
from server.flights import Flights
from server.tasks import Tasks


class Source:
    def __init__(self) -> None:
        self.reads: list[str] = []
        self.gate = asyncio.Event()
        self.error: Exception | None = None
        self.crashed: list[str] = []
        self.tasks = Tasks(lambda name, error: self.crashed.append(name))
        self.flights = Flights(self.read, self.tasks, "read")

    async def read(self, key: str) -> int:
        self.reads.append(key)
        number = len(self.reads)
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        return number

    def ask(self, key: str, count: int) -> list[asyncio.Task[int]]:
        return [asyncio.ensure_future(self.flights.get(key)) for _ in range(count)]


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_all_who_ask_at_once_share_a_read_and_all_who_ask_meanwhile_the_next() -> None:
    source = Source()
    first = source.ask("a", 1000)
    await settle()
    later, other = source.ask("a", 500), source.ask("b", 2)
    await settle()
    assert source.reads == ["a", "b"]
    source.gate.set()
    assert set(await asyncio.gather(*first)) == {1}
    assert set(await asyncio.gather(*other)) == {2}
    assert set(await asyncio.gather(*later)) == {3}, "what it finds is not older than the question"
    assert source.reads == ["a", "b", "a"]
    assert await source.flights.get("a") == 4


async def test_who_gives_up_takes_nobody_along() -> None:
    source = Source()
    asked = source.ask("a", 4)
    await settle()
    for task in asked[:3]:
        task.cancel()
    source.gate.set()
    assert await asked[3] == 1


async def test_all_are_told_that_a_read_failed_and_the_next_one_may_succeed() -> None:
    source = Source()
    source.error = Unavailable("away")
    asked = source.ask("a", 3)
    await settle()
    source.gate.set()
    for result in await asyncio.gather(*asked, return_exceptions=True):
        assert isinstance(result, Unavailable) and str(result) == "away"
    source.error = None
    assert await source.flights.get("a") == 2
    assert source.crashed == []


async def test_an_error_of_our_own_is_not_hidden() -> None:
    source = Source()
    source.error = RuntimeError("a bug")
    asked = source.ask("a", 1)
    source.gate.set()
    with pytest.raises(Unavailable, match="a bug"):
        await asked[0]
    await settle()
    assert source.crashed == ["read"]

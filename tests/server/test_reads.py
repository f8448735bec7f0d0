"""One page of a room at a time, shared by all who wait for it, never older than the question."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from broker.base import History, Page, Unavailable
from broker.memory import MemoryBroker
from server import reads as reads_module
from server.reads import AT_ONCE, PAGE_ENTRIES, Reads
from server.tasks import Tasks
from tests.support.sinks import RecordingSink


class GatedBroker(MemoryBroker):
    """A real broker whose reads wait until the test lets them pass."""

    def __init__(self) -> None:
        super().__init__(node_id="n1")
        self.calls: list[tuple[str, int | None]] = []
        self.under_way: Counter[str] = Counter()
        self.most = 0
        self.gate = asyncio.Event()
        self.away = False

    async def read(self, room: str, since: int | None, limit: int) -> Page:
        self.calls.append((room, since))
        self.under_way[room] += 1
        self.most = max(self.most, self.under_way.total())
        assert self.under_way[room] == 1, "one at a time"
        await self.gate.wait()
        self.under_way[room] -= 1
        if self.away:
            raise Unavailable("away")
        return await super().read(room, since, limit)

    async def fill(self, room: str, count: int) -> None:
        for i in range(count):
            await self.append(room, b"%d" % i, history=History(max_entries=count))


@asynccontextmanager
async def gated() -> AsyncIterator[GatedBroker]:
    broker = GatedBroker()
    await broker.start(RecordingSink())
    yield broker
    await broker.close()


def crashed(name: str, error: BaseException | None) -> None:
    raise AssertionError(name) from error


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_a_thousand_who_ask_at_once_cost_two_reads() -> None:
    async with gated() as broker:
        await broker.fill("r", 10)
        reads = Reads(broker, Tasks(crashed))
        asked = [asyncio.ensure_future(reads.after("r", i % 10)) for i in range(1000)]
        await settle()
        broker.gate.set()
        for i, page in enumerate(await asyncio.gather(*asked)):
            assert [entry.offset for entry in page.entries] == list(range(i % 10 + 1, 11))
        assert broker.calls == [("r", 0), ("r", 0)]


async def test_every_place_gets_the_entries_after_it() -> None:
    async with gated() as broker:
        broker.gate.set()
        await broker.fill("r", 2 * PAGE_ENTRIES + 5)
        reads = Reads(broker, Tasks(crashed))
        for since in (0, 1, PAGE_ENTRIES - 1, PAGE_ENTRIES, PAGE_ENTRIES + 1, 2 * PAGE_ENTRIES, 2 * PAGE_ENTRIES + 4):
            page = await reads.after("r", since)
            assert page.top.offset == 2 * PAGE_ENTRIES + 5
            assert page.entries[0].offset == since + 1
        assert (await reads.after("r", 2 * PAGE_ENTRIES + 5)).entries == []


async def test_what_is_found_is_not_older_than_the_question() -> None:
    """A read that is under way may have looked already: whoever comes now waits for the next one."""
    async with gated() as broker:
        await broker.fill("r", 1)
        reads = Reads(broker, Tasks(crashed))
        first = asyncio.ensure_future(reads.after("r", 0))
        await settle()
        await broker.append("r", b"new", history=History())
        second = asyncio.ensure_future(reads.after("r", 1))
        await settle()
        assert len(broker.calls) == 1
        broker.gate.set()
        await first
        assert [entry.payload for entry in (await second).entries] == [b"new"]
        assert len(broker.calls) == 2


async def test_few_rooms_are_read_at_once_and_each_gets_its_turn() -> None:
    async with gated() as broker:
        reads = Reads(broker, Tasks(crashed))
        asked = [asyncio.ensure_future(reads.after(f"r{i}", 0)) for i in range(50)]
        await settle()
        assert len(broker.calls) == AT_ONCE
        broker.gate.set()
        await asyncio.gather(*asked)
        assert len(broker.calls) == 50 and broker.most == AT_ONCE


async def test_when_a_read_fails_nobody_waits_for_the_next_one_to_fail_too() -> None:
    async with gated() as broker:
        broker.away = True
        reads = Reads(broker, Tasks(crashed))
        asked = [asyncio.ensure_future(reads.after(f"r{i % 20}", i * 7)) for i in range(100)]
        await settle()
        broker.gate.set()
        for result in await asyncio.gather(*asked, return_exceptions=True):
            assert isinstance(result, Unavailable)
        assert len(broker.calls) == AT_ONCE
        broker.away = False
        assert (await reads.after("r0", 0)).entries == []


async def test_who_gives_up_takes_nobody_along() -> None:
    async with gated() as broker:
        await broker.fill("r", 3)
        reads = Reads(broker, Tasks(crashed))
        asked = [asyncio.ensure_future(reads.after("r", 0)) for _ in range(10)]
        await settle()
        for task in asked[::2]:
            task.cancel()
        broker.gate.set()
        for task in asked[1::2]:
            assert len((await task).entries) == 3
        with pytest.raises(asyncio.CancelledError):
            await asked[0]


async def test_who_comes_a_moment_later_shares_the_page_until_the_room_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    async with gated() as broker:
        await broker.fill("r", 150)
        broker.gate.set()
        reads = Reads(broker, Tasks(crashed))
        first = await reads.after("r", 10)
        for since in (10, 20, 99):
            page = await reads.after("r", since, first.top)
            assert page.top == first.top and page.entries[0].offset == since + 1
        assert len(broker.calls) == 1
        assert (await reads.after("r", 120, first.top)).entries[-1].offset == 150
        assert len(broker.calls) == 2, "another page"
        await reads.after("r", 10)
        assert len(broker.calls) == 3, "who does not know where the log ends reads it"
        await broker.append("r", b"new", history=History())
        top = (await reads.after("r", 140)).top
        before = len(broker.calls)
        assert (await reads.after("r", 140, top)).entries[-1].payload == b"new"
        assert len(broker.calls) == before
        await reads.after("r", 10, top)
        assert len(broker.calls) == before + 1, "kept of an older end"
        monkeypatch.setattr(reads_module, "FRESH_S", 0.0)
        await reads.after("r", 10, top)
        assert len(broker.calls) == before + 2, "and not for long"
        assert len(reads._fresh) <= 1


async def test_the_pages_that_are_kept_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reads_module, "MAX_FRESH_BYTES", 1000)
    async with gated() as broker:
        broker.gate.set()
        reads = Reads(broker, Tasks(crashed))
        for number in range(20):
            await broker.append(f"r{number}", b"x" * 300, history=History())
            await reads.after(f"r{number}", 0)
        assert len(reads._fresh) == 3 and reads._fresh_bytes == 900
        await broker.append("big", b"x" * 2000, history=History())
        assert (await reads.after("big", 0)).entries
        assert not reads._fresh and reads._fresh_bytes == 0

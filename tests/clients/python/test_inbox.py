from __future__ import annotations

import asyncio

import pytest
from roomcast_client.inbox import HIGH_BYTES, HIGH_EVENTS, Inbox


async def test_events_come_in_order_and_the_end_after_them() -> None:
    inbox: Inbox[int] = Inbox()
    inbox.put(1)
    inbox.put(2)
    inbox.end(KeyError("over"))
    inbox.end(ValueError("a second end is none"))
    assert [await inbox.get(), await inbox.get()] == [1, 2]
    with pytest.raises(KeyError):
        await inbox.get()


async def test_a_waiting_reader_gets_what_comes() -> None:
    inbox: Inbox[int] = Inbox()
    reader = asyncio.create_task(inbox.get())
    await asyncio.sleep(0)
    with pytest.raises(RuntimeError, match="two tasks"):
        await inbox.get()
    inbox.put(1)
    assert await reader == 1


async def test_it_is_full_by_events_or_by_bytes_and_low_at_half_of_both() -> None:
    inbox: Inbox[int] = Inbox()
    for number in range(HIGH_EVENTS):
        assert not inbox.full
        inbox.put(number)
    assert inbox.full
    for _ in range(HIGH_EVENTS // 2):
        assert not inbox.low
        await inbox.get()
    assert inbox.low
    inbox.put(0, HIGH_BYTES)
    assert inbox.full

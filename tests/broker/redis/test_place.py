"""Asking several at once."""

from __future__ import annotations

import asyncio

import pytest

from broker.base import Unavailable
from broker.redis.place import ask_around


async def answer(text: str, after_s: float = 0.0) -> str:
    await asyncio.sleep(after_s)
    return text


async def refuse(text: str) -> str:
    raise Unavailable(text)


async def test_all_who_answer_in_time_are_heard_and_nobody_waits_for_a_frozen_one() -> None:
    async with asyncio.timeout(30):
        found = await ask_around([answer("a"), answer("frozen", 60), refuse("x"), answer("b", 0.01)], 0.5)
    assert sorted(found) == ["a", "b"]


async def test_before_the_first_answer_there_is_no_hurry() -> None:
    assert await ask_around([answer("late", 0.05), refuse("x")], 0.001) == ["late"]


async def test_nobody_who_answers_is_an_error_with_a_reason() -> None:
    with pytest.raises(Unavailable, match="the last word"):
        await ask_around([refuse("the last word")], 0.1)
    with pytest.raises(Unavailable, match="nobody to ask"):
        await ask_around([], 0.1)


async def test_another_error_is_not_swallowed() -> None:
    async def fail() -> str:
        raise RuntimeError("a mistake of ours")

    with pytest.raises(RuntimeError):
        await ask_around([fail(), answer("frozen", 60)], 0.1)

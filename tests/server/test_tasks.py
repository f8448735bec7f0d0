"""A background task that ends is noticed, whoever started it."""

from __future__ import annotations

import asyncio
import logging

import pytest

from server.tasks import Tasks


async def _fail() -> None:
    raise LookupError("the reason")


async def _end() -> None:
    return None


async def _wait() -> None:
    await asyncio.Event().wait()


async def test_a_crash_is_logged_and_reported_with_its_reason(caplog: pytest.LogCaptureFixture) -> None:
    crashes: list[tuple[str, str]] = []
    tasks = Tasks(lambda name, error: crashes.append((name, str(error))))
    with caplog.at_level(logging.ERROR):
        await asyncio.wait((tasks.spawn(_fail(), "worker"),))
    assert crashes == [("worker", "the reason")] and len(tasks) == 0
    assert "'worker' crashed" in caplog.text and "LookupError" in caplog.text


async def test_a_task_that_is_done_is_forgotten() -> None:
    crashes: list[str] = []
    tasks = Tasks(lambda name, error: crashes.append(name))
    await asyncio.wait((tasks.spawn(_end(), "worker"),))
    assert not crashes and len(tasks) == 0


async def test_a_task_meant_for_ever_may_not_end() -> None:
    crashes: list[str] = []
    tasks = Tasks(lambda name, error: crashes.append(name))
    await asyncio.wait((tasks.spawn(_end(), "reader", forever=True),))
    assert crashes == ["reader"]


async def test_closing_cancels_what_runs_and_reports_nothing() -> None:
    crashes: list[str] = []
    tasks = Tasks(lambda name, error: crashes.append(name))
    task = tasks.spawn(_wait(), "reader", forever=True)
    await asyncio.sleep(0)
    await tasks.close()
    assert task.cancelled() and not crashes and len(tasks) == 0

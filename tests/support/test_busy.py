"""What bounds give for a busy machine."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from tests.support import busy
from tests.support.waiting import eventually_sync, patience


@contextmanager
def more_work_than_cores() -> Iterator[None]:
    work = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2 * (os.cpu_count() or 1))]
    try:
        yield
    finally:
        for each in work:
            each.kill()
            each.wait()


def test_more_work_than_cores_counts_as_busy_and_a_new_test_begins_at_nothing() -> None:
    if not busy.PRESSURE.exists():
        assert busy.busy_s() == 0.0
        return
    with more_work_than_cores():
        eventually_sync(lambda: busy.busy_s() > 0.2)
        before_s = busy.busy_s()
        busy.begin()
        assert busy.busy_s() < before_s


async def test_patience_ends_and_what_others_took_is_added() -> None:
    began_s, added_s = time.monotonic(), 0.1 if busy.PRESSURE.exists() else 0.0
    with ExitStack() as work:
        work.enter_context(more_work_than_cores())
        asyncio.get_running_loop().call_later(0.5, work.close)
        with pytest.raises(TimeoutError):
            async with patience(0.3):
                await asyncio.Event().wait()
        assert time.monotonic() - began_s >= 0.3 + added_s
    async with patience(0.01):
        pass
    await asyncio.sleep(0.02)  # nothing of it is left to go off

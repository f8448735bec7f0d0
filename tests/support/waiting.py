"""Waiting with a deadline that gives a busy machine its time."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar, cast, overload

from tests.support.busy import waited_s

T = TypeVar("T")

POLL_S = 0.005


@asynccontextmanager
async def patience(timeout_s: float) -> AsyncIterator[None]:
    """``asyncio.timeout``, but time in which somebody waited for a core does not count (tests/support/busy.py), up to
    five times as much again: what hangs is to be told by this and not by the end of the test."""
    loop, waited = asyncio.get_running_loop(), waited_s()
    began_s = loop.time()
    timer: asyncio.TimerHandle | None = None

    def look() -> None:
        nonlocal timer
        until_s = began_s + timeout_s + min(waited_s() - waited, 5 * timeout_s)
        if until_s <= loop.time():
            limit.reschedule(until_s)
        else:
            timer = loop.call_at(until_s, look)

    async with asyncio.timeout(None) as limit:
        look()
        try:
            yield
        finally:
            if timer is not None:
                timer.cancel()


@overload
async def eventually(predicate: Callable[[], Awaitable[T]], timeout_s: float = 5.0) -> T: ...
@overload
async def eventually(predicate: Callable[[], T], timeout_s: float = 5.0) -> T: ...
async def eventually(predicate: Callable[[], T | Awaitable[T]], timeout_s: float = 5.0) -> T:
    """Poll until ``predicate`` (sync or async) gives something true; return it. AssertionError after ``timeout_s``
    in which nobody waited for a core (tests/support/busy.py).

    Only for what happens in another process: inside this one wait for an event.
    """
    deadline, waited = time.monotonic() + timeout_s, waited_s()
    while True:
        value = predicate()
        if inspect.isawaitable(value):
            value = await value
        if value:
            return cast(T, value)
        if time.monotonic() > deadline + waited_s() - waited:
            raise AssertionError(f"not true within {timeout_s} s: {inspect.getsource(predicate).strip()}")
        await asyncio.sleep(POLL_S)


def eventually_sync(predicate: Callable[[], T], timeout_s: float = 10.0) -> T:
    """The same for code that runs outside an event loop (fixtures, servers being started)."""
    deadline, waited = time.monotonic() + timeout_s, waited_s()
    while not (value := predicate()):
        if time.monotonic() > deadline + waited_s() - waited:
            raise AssertionError(f"not true within {timeout_s} s: {inspect.getsource(predicate).strip()}")
        time.sleep(POLL_S)
    return value

"""Where a master is found: at a fixed address, or wherever somebody says it is now."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any, Protocol, TypeVar

from broker.base import Unavailable
from broker.redis.address import Address

T = TypeVar("T")


class Place(Protocol):
    async def find(self) -> Address:
        """The master's address now. Raises :class:`broker.base.Unavailable`."""

    async def left(self, address: Address) -> str:
        """Return, with the reason, when the master is not at this address any more."""


class Fixed:
    """One server, come what may."""

    def __init__(self, address: Address) -> None:
        self._address = address

    async def find(self) -> Address:
        return self._address

    async def left(self, address: Address) -> str:
        return await asyncio.get_running_loop().create_future()  # type: ignore[no-any-return]  # never


async def ask_around(questions: Sequence[Coroutine[Any, Any, T]], linger_s: float) -> list[T]:
    """The answers of several that are asked at once: all that came ``linger_s`` after the first one. So a frozen one
    delays nobody, and one that is behind is outvoted. Raises the last :class:`Unavailable` if nobody answers."""
    tasks = {asyncio.ensure_future(question) for question in questions}
    error = Unavailable("there is nobody to ask")
    answers: list[T] = []
    loop = asyncio.get_running_loop()
    until_s: float | None = None
    try:
        while tasks and (until_s is None or loop.time() < until_s):
            timeout_s = None if until_s is None else until_s - loop.time()
            done, tasks = await asyncio.wait(tasks, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                failure = task.exception()
                if failure is None:
                    answers.append(task.result())
                    until_s = until_s or loop.time() + linger_s
                elif isinstance(failure, Unavailable):
                    error = failure
                else:
                    raise failure
    finally:
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
    if not answers:
        raise error
    return answers

"""An owner for background tasks: it keeps them alive, notices their end, and says why."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

logger = logging.getLogger("server.tasks")


class Tasks:
    """``on_crash(name, error)`` is called for every task that ends with an exception; a task that is meant to run for
    ever (``forever=True``) may not end at all."""

    def __init__(self, on_crash: Callable[[str, BaseException | None], None]) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()
        self._on_crash = on_crash
        self._closing = False

    def spawn(self, work: Coroutine[Any, Any, Any], name: str, *, forever: bool = False) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._forever_ended if forever else self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            return
        error = task.exception()
        if error is not None:
            logger.error("task %r crashed", task.get_name(), exc_info=error)
            self._on_crash(task.get_name(), error)

    def _forever_ended(self, task: asyncio.Task[Any]) -> None:
        self._ended(task)
        if not self._closing and (task.cancelled() or task.exception() is None):
            logger.error("task %r ended, it should not", task.get_name())
            self._on_crash(task.get_name(), None)

    def named(self, name: str) -> list[asyncio.Task[Any]]:
        """Those of this name that run."""
        return [task for task in self._tasks if task.get_name() == name]

    async def close(self) -> None:
        """Cancel what still runs and wait for it."""
        self._closing = True
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def __len__(self) -> int:
        return len(self._tasks)

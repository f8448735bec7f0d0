"""A client in a process of its own, told what to do, and everything it says its application saw.

Both clients understand the same commands and use the same words (driver.py, driver.mjs), so one scenario drives both.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.support.waiting import patience

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
COMMANDS = {
    "python": (sys.executable, str(HERE / "driver.py")),
    "javascript": ("node", str(HERE / "driver.mjs")),
}
LINE_BYTES = 2**20
Event = dict[str, Any]


class Driver:
    """``events`` is what the application saw, in order."""

    def __init__(self, name: str, process: asyncio.subprocess.Process) -> None:
        self.name = name
        self.process = process
        self.events: list[Event] = []
        self._news = asyncio.Event()
        self._reader = asyncio.ensure_future(self._read())

    async def _read(self) -> None:
        assert self.process.stdout is not None
        while line := await self.process.stdout.readline():
            self.events.append(json.loads(line))
            self._news.set()

    def tell(self, do: str, **command: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"do": do, **command}).encode() + b"\n")

    async def until(self, predicate: Callable[[], Any], what: str, timeout_s: float = 20) -> Any:
        """Return what the predicate gives once that is true; it is asked after every event."""
        try:
            async with patience(timeout_s):
                while not (value := predicate()):
                    self._news.clear()
                    await self._news.wait()
                return value
        except TimeoutError:
            raise AssertionError(f"{self.name} did not see within {timeout_s} s: {what}\n{self.events[-12:]}") from None

    async def sees(self, at: str, *, since: int = 0, timeout_s: float = 20, **detail: Any) -> Event:
        """The first such event after the first ``since`` ones."""

        def found() -> Event | None:
            return next(
                (each for each in self.events[since:] if detail.items() <= each.items() and each["at"] == at), None
            )

        event: Event = await self.until(found, f"{at} {detail}", timeout_s)
        return event

    def seen(self, at: str, **detail: Any) -> list[Event]:
        return [each for each in self.events if each["at"] == at and detail.items() <= each.items()]

    def statuses(self) -> list[str]:
        return [each["status"] for each in self.seen("status")]

    async def stop(self) -> None:
        """The client closes at the end of its commands. AssertionError if it does not, or complains."""
        assert self.process.stdin is not None and self.process.stderr is not None
        try:
            self.process.stdin.close()
            async with asyncio.timeout(30):
                complaint = await self.process.stderr.read()
                code = await self.process.wait()
            await self._reader
            assert code == 0 and not complaint, f"{self.name} ended with {code}: {complaint.decode()[-3000:]}"
        finally:
            if self.process.returncode is None:
                self.process.kill()
                await self.process.wait()


@asynccontextmanager
async def driver(kind: str, url: str, tokens: str, heartbeat_s: float) -> AsyncIterator[Driver]:
    """A client, connecting."""
    process = await asyncio.create_subprocess_exec(
        *(*COMMANDS[kind], url, f"{tokens}/{kind}", kind, str(heartbeat_s)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        limit=LINE_BYTES,
        env=os.environ | {"PYTHONPATH": str(ROOT / "clients" / "python"), "PYTHONWARNINGS": "error"},
    )
    one = Driver(kind, process)
    try:
        yield one
        await one.stop()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def judge(one: Driver, room: str, log: dict[int, str], *, resets: int, from_offset: int = 0) -> None:
    """AssertionError unless the application saw, run by run between resets, every offset once and in order, and the
    last run is what the log holds now (offset → tag)."""
    runs: list[list[Event]] = [[]]
    starts = [from_offset]
    for event in one.events:
        if event.get("room") != room or event["at"] not in ("message", "reset"):
            continue
        if event["at"] == "reset":
            runs.append([])
            starts.append(event["offset"])
        else:
            runs[-1].append(event)
    assert len(runs) - 1 == resets, f"{one.name}: {len(runs) - 1} resets, expected {resets}"
    for start, run in zip(starts, runs, strict=True):
        offsets = [event["offset"] for event in run]
        assert offsets == [*range(start + 1, start + 1 + len(run))], f"{one.name}: {offsets} after {start}"
        twice = [data for data, times in Counter(event["data"] for event in run).items() if times > 1]
        assert not twice, f"{one.name} saw twice: {twice[:5]}"
    kept = {offset: tag for offset, tag in log.items() if offset > starts[-1]}
    assert {event["offset"]: event["tag"] for event in runs[-1]} == kept, f"{one.name}: not what the log holds"

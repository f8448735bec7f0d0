"""Many clients that come at the same moment: handshake and joins in one write, as little else as possible."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from tests.support.served import handshake
from tests.support.wires import TEXT, client_frame

KNOCKING = 200
"""Connections being opened at a time: with more this process would be busy for seconds before it sends a byte."""


class Comer(asyncio.Protocol):
    """One client. ``done`` gives the seconds from ``since_s`` to the last of ``replies`` replies."""

    def __init__(self, path: str, requests: Sequence[dict[str, Any]], since_s: float) -> None:
        self.done: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self.status = 0
        self.replies: list[dict[str, Any]] = []
        self._first = handshake(path) + b"".join(client_frame(TEXT, json.dumps(each).encode()) for each in requests)
        self._expected = len(requests)
        self._since_s = since_s
        self._buffer = bytearray()
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as TCP has it
        self.transport = transport
        transport.write(self._first)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if not self.status:
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            self.status = int(self._buffer[9:12])
            del self._buffer[: end + 4]
        while self.status == 101 and (frame := self._next()) is not None:
            if frame[:13] == b'{"op":"reply"':
                self.replies.append(json.loads(frame))
        if len(self.replies) == self._expected and not self.done.done():
            self.done.set_result(time.monotonic() - self._since_s)

    def __repr__(self) -> str:
        return f"<status {self.status}, replies {self.replies}, then {bytes(self._buffer[:200])!r}>"

    def _next(self) -> bytes | None:
        buffer = self._buffer
        if len(buffer) < 2:
            return None
        length, begin = buffer[1], 2
        if length == 126:
            length, begin = int.from_bytes(buffer[2:4], "big"), 4
        elif length == 127:
            length, begin = int.from_bytes(buffer[2:10], "big"), 10
        if len(buffer) < begin + length:
            return None
        payload = bytes(buffer[begin : begin + length])
        del buffer[: begin + length]
        return payload

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(ConnectionError(f"lost with status {self.status}: {bytes(self._buffer[:200])!r}"))
            self.done.exception()  # looked at: gathered later, or never


class Storm:
    """What came of it. ``took_s`` are the times of those that got all their replies, sorted."""

    def __init__(self, comers: list[Comer], took_s: list[float]) -> None:
        self.comers = comers
        self.took_s = sorted(took_s)
        self.statuses = Counter(comer.status for comer in comers)

    def quantile_s(self, share: float) -> float:
        return self.took_s[min(len(self.took_s) - 1, int(len(self.took_s) * share))]


@asynccontextmanager
async def storm(
    port: int, clients: Sequence[tuple[str, Sequence[dict[str, Any]]]], timeout_s: float
) -> AsyncIterator[Storm]:
    """Let them all come now, each with its path and its requests; they vanish at the end of the block. AssertionError
    if one is not done in time."""
    loop = asyncio.get_running_loop()
    since_s = time.monotonic()
    comers = [Comer(path, requests, since_s) for path, requests in clients]

    knocking = asyncio.Semaphore(KNOCKING)

    async def come(comer: Comer) -> float | None:
        async with knocking:
            await loop.create_connection(lambda: comer, "127.0.0.1", port)
        try:
            return await comer.done
        except ConnectionError:
            return None

    coming = [asyncio.ensure_future(come(comer)) for comer in comers]
    try:
        await asyncio.wait(coming, timeout=timeout_s)
        late = [comer for comer in comers if not comer.done.done()]
        assert not late, f"{len(late)} of {len(comers)} not done after {timeout_s} s, such as {late[0]}"
        took_s = [task.result() for task in coming]
        yield Storm(comers, [each for each in took_s if each is not None])
    finally:
        for task in coming:
            task.cancel()
        await asyncio.wait(coming)
        for comer in comers:
            if comer.transport is not None:
                comer.transport.abort()

"""The plain lane: a connection under any ASGI server, through ``receive`` and ``send``.

One coroutine reads, one task writes. What waits for the writer is bounded as on the fast lane, and gives way as there
(server/slow.py). A peer that takes nothing for ``CLOSE_TIMEOUT_S``, owes too much for ``STALL_S``, or does not take all
it is owed in time after a close, is let go by ending the ASGI callable: ASGI knows no abort. What the server does then
with bytes it has taken and cannot send is its own affair: uvicorn and hypercorn close the socket, which waits for the
peer until the kernel gives up.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

from server import closing
from server.connection import CONGESTED, CONGESTED_BYTES, Connection
from server.frames import Batch, Prepared
from server.slow import STALL_S, catch_up, set_aside, slow_close

CLOSE_TIMEOUT_S = 10.0

_Event = dict[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]


class PlainConnection(Connection):
    lane = "plain"
    __slots__ = (
        "_close_by",
        "_close_event",
        "_closing",
        "_queue",
        "_queued_bytes",
        "_readable",
        "_stall_by",
        "_wake",
        "outbound_limit",
    )

    def __init__(self, outbound_limit: int) -> None:
        super().__init__()
        self.outbound_limit = outbound_limit
        self._queue: deque[Prepared] = deque()  # shared by all who get them: an event is made when its turn comes
        self._queued_bytes = 0
        self._wake = asyncio.Event()
        self._readable = asyncio.Event()
        self._readable.set()
        self._closing = 0
        self._close_by = 0.0
        self._stall_by = 0.0
        self._close_event: _Event | None = None

    def send(self, batch: Batch) -> None:
        if self._closing:
            return
        messages: Batch | None = batch
        if self.held & CONGESTED:
            messages = set_aside(self, batch)
            if messages is not None and self._queued_bytes > self.outbound_limit:
                slow_close(self, len(messages.parts))
                return
        for part in messages.parts if messages is not None else ():
            self._put(part)

    def send_event(self, payload: bytes) -> None:
        self.send(Batch([Prepared(payload)]))

    def _put(self, part: Prepared) -> None:
        self._queue.append(part)
        self._queued_bytes += self._size(part)
        self._wake.set()
        if self._queued_bytes > CONGESTED_BYTES and not self.held & CONGESTED:
            self._stall_by = asyncio.get_running_loop().time() + STALL_S
            self.hold(CONGESTED)

    def _size(self, part: Prepared) -> int:
        return len(part.packed if self.packed else part.payload)

    def close(self, code: int, reason: str = "") -> None:
        if not self._closing:
            self._closing = code
            self._close_by = asyncio.get_running_loop().time() + CLOSE_TIMEOUT_S
            self._close_event = {"type": "websocket.close", "code": code, "reason": reason}
            if code == closing.SLOW:
                # The client resumes; what it does not read would only hold up the close.
                self._queued_bytes -= sum(map(self._size, self._queue))
                self._queue.clear()
            self._wake.set()
            self._readable.set()

    def hold(self, why: int) -> None:
        self.held |= why
        if not self._closing:
            self._readable.clear()

    def release(self, why: int) -> None:
        self.held &= ~why
        if not self.held:
            self._readable.set()

    def outbound_bytes(self) -> int:
        return self._queued_bytes

    @property
    def closed(self) -> bool:
        return self._closing != 0

    async def run(self, receive: Receive, send: Send) -> None:
        """Serve until it is over. Call after the accept, with ``listener`` set; tells it ``lost`` at the end."""
        writer = asyncio.create_task(self._write(send))
        reader = asyncio.create_task(self._read(receive))
        try:
            await asyncio.wait((writer, reader), return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._closing = self._closing or 1006
            for task in (writer, reader):
                task.cancel()
            ends = await asyncio.gather(writer, reader, return_exceptions=True)
            if self.listener is not None:
                self.listener.lost(self, self._closing)
        for end in ends:
            # A send that fails says that the peer is gone; servers use OSError, Starlette's wrappers RuntimeError.
            if isinstance(end, Exception) and not isinstance(end, (OSError, RuntimeError)):
                raise end

    async def _read(self, receive: Receive) -> None:
        listener = self.listener
        assert listener is not None, "attach first"
        while True:
            await self._readable.wait()
            event = await receive()
            if event["type"] == "websocket.disconnect":
                self._closing = self._closing or event.get("code") or 1005
                return
            if self._closing:
                continue
            text = event.get("text")
            if text is not None:
                listener.received(self, text.encode(), True)
            elif event.get("bytes") is not None:
                listener.received(self, event["bytes"], False)

    async def _write(self, send: Send) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._queue:
                part = self._queue.popleft()
                event: _Event = {"type": "websocket.send"}
                if self.packed:
                    event["bytes"] = part.packed
                else:
                    event["text"] = part.payload.decode()
                await self._take(send, event)
                self._queued_bytes -= self._size(part)
                if self.held & CONGESTED and self._queued_bytes <= CONGESTED_BYTES // 4:
                    self._stall_by = 0.0
                    self.release(CONGESTED)
                    catch_up(self)
            if self._close_event is not None:
                await self._take(send, self._close_event)
                return

    async def _take(self, send: Send, event: _Event) -> None:
        """Raises TimeoutError when the peer does not take it in time."""
        now_s = asyncio.get_running_loop().time()
        by_s = (self._close_by or now_s + CLOSE_TIMEOUT_S, self._stall_by or now_s + CLOSE_TIMEOUT_S)
        try:
            async with asyncio.timeout_at(min(by_s)):
                await send(event)
        except TimeoutError:
            if self.held & CONGESTED and not self._closing:
                self._closing = closing.SLOW
                if self.listener is not None:
                    self.listener.cut(self, "stall")
            raise

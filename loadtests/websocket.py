"""A WebSocket from the client's side, as callbacks: no task, no library, so that thousands fit into one process.

Frames of a Roomcast node are whole; the mask of ours is zero, which RFC 6455 allows and costs nothing.
"""

from __future__ import annotations

import asyncio
from typing import Protocol, cast

ABNORMAL = 1006
_KEY = "dGhlIHNhbXBsZSBub25jZQ=="


class Owner(Protocol):
    """Who hears what comes of it. Called from the event loop; ``closed`` is the last call, and comes once."""

    def opened(self) -> None: ...

    def received(self, text: bytes) -> None: ...

    def closed(self, code: int) -> None: ...


class WebSocket(asyncio.Protocol):
    def __init__(self, owner: Owner, host: str, path: str) -> None:
        self._owner = owner
        self._request = (
            f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {_KEY}\r\n\r\n"
        ).encode()
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._code = ABNORMAL
        self.status = 0
        """Of the handshake's answer."""

    @property
    def is_open(self) -> bool:
        return self.status == 101 and self._code == ABNORMAL

    def send(self, text: bytes) -> None:
        if self.is_open:
            self._write(0x81, text)

    def close(self) -> None:
        """Leave properly."""
        if self.is_open:
            self._code = 1000
            self._write(0x88, (1000).to_bytes(2, "big"))
        else:
            self.abort()

    def abort(self) -> None:
        """Gone without a word, as in a tunnel."""
        if self._transport is not None:
            self._transport.abort()

    def _write(self, first: int, payload: bytes) -> None:
        size = len(payload)
        head = bytes((first, 0x80 | size)) if size < 126 else bytes((first, 0xFE)) + size.to_bytes(2, "big")
        if self._transport is not None:
            self._transport.write(head + b"\0\0\0\0" + payload)

    # asyncio.Protocol.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by inheritance
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if self.status != 101 and not self._answered():
            return
        while (frame := self._next_frame()) is not None:
            opcode, payload = frame
            if opcode == 1:
                self._owner.received(payload)
            elif opcode == 9:
                self._write(0x8A, payload)
            elif opcode == 8:
                if self._code == ABNORMAL:
                    self._write(0x88, payload)
                    self._code = int.from_bytes(payload[:2], "big") or 1005
                break

    def _answered(self) -> bool:
        """Whether the handshake is through."""
        head, end, rest = bytes(self._buffer).partition(b"\r\n\r\n")
        if not end or self._transport is None:
            return False
        self.status = int(head.split(b" ", 2)[1])
        self._buffer = bytearray(rest)
        if self.status == 101:
            self._owner.opened()
            return True
        self._transport.abort()
        return False

    def _next_frame(self) -> tuple[int, bytes] | None:
        data = self._buffer
        if len(data) < 2:
            return None
        size, begin = data[1], 2
        if size >= 126:
            begin = 4 if size == 126 else 10
            if len(data) < begin:
                return None
            size = int.from_bytes(data[2:begin], "big")
        if len(data) < begin + size:
            return None
        frame = data[0] & 15, bytes(data[begin : begin + size])
        del data[: begin + size]
        return frame

    def connection_lost(self, error: Exception | None) -> None:
        self._owner.closed(self._code)

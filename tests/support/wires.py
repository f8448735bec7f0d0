"""The client's bytes, and a transport that keeps what a protocol does with it: tests of protocols without sockets."""

from __future__ import annotations

import asyncio
import struct
from typing import Any

from websockets.speedups import apply_mask

from server.heartbeat import Heartbeat
from server.wire import Wire

CONT, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10


def client_frame(
    opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0, mask: bytes = b"\x0a\x0b\xf0\x81"
) -> bytes:
    """A masked frame with the shortest form of its length. ``rsv``: bits 4 (RSV1), 2, 1."""
    first = bytes([fin << 7 | rsv << 4 | opcode])
    length = len(payload)
    if length < 126:
        head = bytes([0x80 | length])
    elif length < 65536:
        head = b"\xfe" + struct.pack("!H", length)
    else:
        head = b"\xff" + struct.pack("!Q", length)
    return first + head + mask + apply_mask(payload, mask)


def close_payload(code: int, reason: bytes = b"") -> bytes:
    return code.to_bytes(2, "big") + reason


class RecordingTransport(asyncio.Transport):
    """What was written and asked of it. ``owed`` is what the peer has not read, and set by the test."""

    def __init__(self) -> None:
        super().__init__()
        self.written = bytearray()
        self.writes = 0
        self.owed = 0
        self.reading = True
        self.closing = False
        self.eof = False
        self.aborted = asyncio.Event()
        self.protocol: Any = None

    def write(self, data: Any) -> None:
        assert not self.eof, "write() after write_eof()"
        self.written += data
        self.writes += 1

    def get_write_buffer_size(self) -> int:
        return self.owed

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def is_closing(self) -> bool:
        return self.closing

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.eof = True

    def close(self) -> None:
        self.closing = True
        self.reading = False

    def abort(self) -> None:
        self.close()
        self.aborted.set()

    def set_protocol(self, protocol: Any) -> None:
        self.protocol = protocol

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default


class Ear(Wire):
    """Keeps the messages. At every ``hold_every``-th one reading is held for the reason ``holding`` (0: never)."""

    __slots__ = ("end", "hold_every", "holding", "messages")

    def __init__(
        self, *, max_message: int = 65536, outbound_limit: int = 262144, wheel: Heartbeat | None = None
    ) -> None:
        super().__init__(RecordingTransport(), wheel or Heartbeat(10.0), max_message, outbound_limit)
        self.messages: list[tuple[bool, bytes]] = []
        self.end: tuple[int, str] | None = None
        self.holding = 0
        self.hold_every = 1

    @property
    def sent(self) -> RecordingTransport:
        assert isinstance(self.transport, RecordingTransport)
        return self.transport

    def message(self, data: bytes, text: bool) -> None:
        self.messages.append((text, bytes(data)))
        if self.holding and len(self.messages) % self.hold_every == 0:
            self.hold(self.holding)

    def ended(self, code: int, reason: str) -> None:
        assert self.end is None, "told twice"
        self.end = (code, reason)

    def hears(self, data: bytes, *cuts: int) -> None:
        """The bytes arrive, cut into pieces at these places; nothing more once the transport is closing."""
        for begin, end in zip((0, *cuts), (*cuts, len(data)), strict=True):
            if begin < end and not self.sent.closing:
                self.data_received(data[begin:end])

    @property
    def code(self) -> int:
        """With which it ends; 0 while it is open."""
        return self._closing

"""WebSocket frames, server side (RFC 6455 §5.2). Pure.

Written once however many connections get them, and found in what clients send without a copy.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final, Literal, NamedTuple

import msgpack
import orjson

_TEXT: Final = 0x81
_BINARY: Final = 0x82
_CLOSE: Final = 0x88
_PING: Final = 0x89
_PONG: Final = 0x8A
MAX_CONTROL_BYTES: Final = 125
MAX_REASON_BYTES: Final = MAX_CONTROL_BYTES - 2

_SHORT_TEXT: Final = tuple(bytes((_TEXT, length)) for length in range(126))
_pack_short = struct.Struct("!BB").pack
_pack_medium = struct.Struct("!BBH").pack
_pack_long = struct.Struct("!BBQ").pack


def text_frame(payload: bytes) -> bytes:
    """A whole text frame. ``payload`` is UTF-8."""
    length = len(payload)
    if length < 126:
        return _SHORT_TEXT[length] + payload
    return _header(_TEXT, length) + payload


def binary_frame(payload: bytes) -> bytes:
    return _header(_BINARY, len(payload)) + payload


def close_frame(code: int, reason: str = "") -> bytes:
    """``reason`` is cut to the 123 bytes there is room for (RFC 6455 §5.5), never within a character."""
    payload = code.to_bytes(2, "big") + reason.encode()[:MAX_REASON_BYTES].decode(errors="ignore").encode()
    return _pack_short(_CLOSE, len(payload)) + payload


def ping_frame(payload: bytes = b"") -> bytes:
    return _control(_PING, payload)


def pong_frame(payload: bytes = b"") -> bytes:
    return _control(_PONG, payload)


def _control(first: int, payload: bytes) -> bytes:
    if len(payload) > MAX_CONTROL_BYTES:
        raise ValueError(f"a control frame carries at most {MAX_CONTROL_BYTES} bytes")
    return _pack_short(first, len(payload)) + payload


def _header(first: int, length: int) -> bytes:
    if length < 126:
        return _pack_short(first, length)
    if length < 65536:
        return _pack_medium(first, 126, length)
    return _pack_long(first, 127, length)


PING: Final = ping_frame()


class Prepared:
    """One event for any number of connections: each encoding is made when the first of them needs it, and once."""

    __slots__ = ("_frame", "_packed", "_packed_frame", "payload")

    def __init__(self, payload: bytes) -> None:
        self.payload = payload
        """JSON text."""
        self._frame: bytes | None = None
        self._packed: bytes | None = None
        self._packed_frame: bytes | None = None

    @property
    def frame(self) -> bytes:
        """The text frame."""
        frame = self._frame
        if frame is None:
            frame = self._frame = text_frame(self.payload)
        return frame

    @property
    def packed(self) -> bytes:
        """The same object as msgpack."""
        packed = self._packed
        if packed is None:
            packed = self._packed = to_packed(self.payload)
        return packed

    @property
    def packed_frame(self) -> bytes:
        """The binary frame."""
        frame = self._packed_frame
        if frame is None:
            frame = self._packed_frame = binary_frame(self.packed)
        return frame


class Topic(NamedTuple):
    """What an event is about, where the latest event says it all."""

    kind: Literal["presence", "receipt", "typing"]
    room: str | None
    """None is everywhere."""
    about: str
    """Who, and with which status; empty for a list of all."""


class Ephemeral(Prepared):
    """An event of which only the latest on its topic counts: it gives way when a reader is slow."""

    __slots__ = ("topic",)

    def __init__(self, payload: bytes, topic: Topic) -> None:
        super().__init__(payload)
        self.topic = topic


class Batch:
    """What one tick brings for one group of connections, in order: joined once, written to each with one call."""

    __slots__ = ("_apart", "_packed_frames", "frames", "parts")

    def __init__(self, parts: Sequence[Prepared]) -> None:
        self.parts = parts
        self.frames = parts[0].frame if len(parts) == 1 else b"".join([part.frame for part in parts])
        """All text frames, one after the other. A plain attribute: it is read once per connection and tick."""
        self._packed_frames: bytes | None = None
        self._apart: tuple[Batch | None, list[Ephemeral]] | None = None

    @classmethod
    def joined(cls, batches: Sequence[Batch]) -> Batch:
        """One batch of several, in their order."""
        return cls([part for batch in batches for part in batch.parts])

    @property
    def packed_frames(self) -> bytes:
        """All binary frames, one after the other."""
        frames = self._packed_frames
        if frames is None:
            frames = self._packed_frames = b"".join([part.packed_frame for part in self.parts])
        return frames

    def apart(self) -> tuple[Batch | None, list[Ephemeral]]:
        """What must be sent, and what may give way. Made once for all slow readers."""
        if self._apart is None:
            giving = [part for part in self.parts if isinstance(part, Ephemeral)]
            if giving:
                staying = [part for part in self.parts if not isinstance(part, Ephemeral)]
                self._apart = (Batch(staying) if staying else None), giving
            else:
                self._apart = self, giving
        return self._apart


def to_packed(payload: bytes) -> bytes:
    """An event's JSON text as msgpack. Integers stay integers, floats are 64 bits wide."""
    return bytes(msgpack.packb(orjson.loads(payload)))


class Bounds(NamedTuple):
    """Where a client's frame lies in the buffer. The payload is ``begin … stop``, its mask the four bytes before."""

    opcode: int
    begin: int
    stop: int
    """Where the next frame begins."""
    plain: bool
    """FIN is set and no reserved bit is: a data frame is a whole message then."""
    broken: bool
    """The header alone is reason to fail the connection, and the ``websockets`` library will if it is given the bytes
    from the frame's first one: an unknown opcode, no mask, or more than ``max_payload`` announced. ``begin`` and
    ``stop`` mean nothing then."""


_KNOWN_OPCODES: Final = frozenset((0, 1, 2, 8, 9, 10))
_BROKEN: Final = (0, 0, False, True)


def next_frame(buffer: bytes | bytearray, start: int, max_payload: int) -> Bounds | int:
    """Find the frame that begins at ``start``, without copying.

    Returns its bounds if it is there as a whole or already known to be broken; otherwise how many bytes from ``start``
    on are needed before it is worth looking again (always more than there are).
    """
    available = len(buffer) - start
    if available < 2:
        return 2
    first = buffer[start]
    second = buffer[start + 1]
    opcode = first & 0x0F
    if second < 0x80 or opcode not in _KNOWN_OPCODES:
        return Bounds(opcode, *_BROKEN)
    length = second & 0x7F
    begin = start + 6
    if length >= 126:
        begin = start + (8 if length == 126 else 14)
        if available < begin - start - 4:
            return begin - start - 4
        length = int.from_bytes(buffer[start + 2 : begin - 4], "big")
    if length > max_payload:
        return Bounds(opcode, *_BROKEN)
    stop = begin + length
    if stop - start > available:
        return stop - start
    return Bounds(opcode, begin, stop, first & 0xF0 == 0x80, False)

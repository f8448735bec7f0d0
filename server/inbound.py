"""What comes in on one WebSocket after its handshake, server side (RFC 6455 §5), as asyncio callbacks.

Nearly all frames are whole, masked texts, pings, pongs or plain goodbyes: they are read inline. Every other frame is
cut out whole and given to the ``websockets`` library, which knows the rules and says with which code to close; its
object is created when such a frame comes and dropped at the next message boundary, so an idle connection carries none.

What a peer can make us keep is bounded: at most one partial frame no longer than ``max_message``, ``MAX_FRAGMENTS``
fragments of one message, one chunk of unread frames while reading is held, no pong while the peer owes us 64 KiB of
reading. So is what it can make us do at a time: after ``FRAMES_PER_TURN`` frames all others have their turn first.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from websockets.frames import Opcode
from websockets.protocol import OPEN, SERVER
from websockets.protocol import Protocol as WebSocketProtocol
from websockets.speedups import apply_mask

from server import closing, frames
from server.connection import CONGESTED_BYTES, Connection

ASSEMBLY_S = 15.0
"""How long a message may take from its first byte to its last."""
SECOND_LOOK_S = 1.0
"""Nobody is cut at the end of a deadline but this much later: timers of a node that was frozen fire before it reads
what its peers sent meanwhile."""
MAX_FRAGMENTS = 64
"""Of one message. Empty fragments cost no payload bytes, so a byte limit alone does not bound them."""
FRAMES_PER_TURN: Final = 128
"""Read in one go, at most. A chunk of 256 KiB holds 43,690 frames of the shortest kind: at 20 µs each nobody else would
be served for most of a second."""
_ONE_TURN: Final = range(FRAMES_PER_TURN)
TURN: Final = 8
"""One more reason to hold, beside those in server/connection.py: others are being served first."""
_GOODBYES: Final = {
    code.to_bytes(2, "big"): (code, frames.close_frame(code)) for code in (closing.NORMAL, closing.GOING_AWAY)
}
"""How nearly all clients close, and the answers."""

_quiet = logging.getLogger("server.wire.rules")
_quiet.setLevel(logging.ERROR)


class Inbound(Connection, asyncio.Protocol):
    """Reads frames. server/wire.py adds what goes out, and the end."""

    __slots__ = (
        "_closing",
        "_deaf",
        "_fragments",
        "_need",
        "_opcode",
        "_overdue",
        "_rest",
        "_rules",
        "_unanswered",
        "max_message",
        "transport",
    )

    def __init__(self, transport: asyncio.Transport, max_message: int) -> None:
        super().__init__()
        self.transport = transport
        self.max_message = max_message
        self._closing = 0  # the code with which the connection ended or ends; 0 while it is open
        self._deaf = False  # what still comes means nothing: the connection has failed
        self._rest: bytes | bytearray = b""  # read and not yet consumed: a partial frame, or whole ones while held
        self._need = 0  # no use looking at the rest before it has this many bytes
        self._rules: WebSocketProtocol | None = None
        self._fragments: list[bytes] | None = None
        self._opcode = Opcode.TEXT
        self._unanswered = False
        self._overdue: asyncio.TimerHandle | None = None  # to fail: a message has begun and does not end

    # For subclasses.

    def message(self, data: bytes, text: bool) -> None:
        """One whole message. ``text`` is not yet known to be UTF-8."""
        raise NotImplementedError

    def fail(self, code: int, reason: str) -> None:
        """Close because of what the peer sent (§7.1.7): nothing more of it counts, not even its close."""
        raise NotImplementedError

    def _fail(self, code: int, last_words: bytes) -> None:
        """The same with a close frame that is ready."""
        raise NotImplementedError

    def _peer_closed(self, code: int, answer: bytes) -> None:
        """The peer has closed first: it gets its answer, and that is all."""
        raise NotImplementedError

    def data_received(self, data: bytes) -> None:
        self._unanswered = False
        if self._deaf:
            return
        if self._rest:
            self._rest += data
            if self.held or len(self._rest) < self._need:
                return
            rest, self._rest = self._rest, b""
            self._consume(rest)
        elif self.held:
            self._rest = bytearray(data)
        else:
            self._consume(data)

    def _consume(self, data: bytes | bytearray) -> None:
        start, end = 0, len(data)
        self._need = 0
        for _ in _ONE_TURN:
            if start == end or self.held:
                break
            if data[start] == 0x81 and end - start >= 6 and self._rules is None and not self._closing:
                length = data[start + 1] - 0x80
                begin = start + 6
                if length == 126:
                    begin += 2
                    length = int.from_bytes(data[start + 2 : start + 4], "big") if begin <= end else -1
                elif length == 127:
                    length = -1
                if 0 <= length <= self.max_message:  # a whole, masked text below 64 KiB: the common frame
                    stop = begin + length
                    if stop > end:
                        self._need = stop - start
                        break
                    payload = apply_mask(data[begin:stop], data[begin - 4 : begin])
                    start = stop
                    self.message(payload, True)
                    continue
            rules = self._rules
            limit = self.max_message if rules is None else self.max_message - (rules.current_size or 0)
            bounds = frames.next_frame(data, start, limit)
            if isinstance(bounds, int):
                self._need = bounds
                break
            start = self._uncommon(data, start, bounds)
        else:
            if start < end and not self.held:
                self.held = TURN
                self.transport.pause_reading()
                asyncio.get_running_loop().call_soon(self.release, TURN)
        if start < end or self._fragments is not None:
            self._unfinished(data, start)
        elif self._overdue is not None:
            self._overdue.cancel()
            self._overdue = None

    def _unfinished(self, data: bytes | bytearray, start: int) -> None:
        """Keep what is not consumed; if it is the beginning of a message, its time runs."""
        if start < len(data) and not self._deaf:
            if isinstance(data, bytearray):
                del data[:start]  # moves no bytes: a chunk is copied once, however often it is held
                self._rest = data
            else:
                self._rest = bytearray(data[start:])
        if self.held or self._closing:
            return
        if start and self._fragments is None and self._overdue is not None:
            self._overdue.cancel()  # it was for a message that is complete: what waits began in this read
            self._overdue = None
        if self._overdue is None:
            self._overdue = asyncio.get_running_loop().call_later(ASSEMBLY_S, self._message_overdue, False)

    def _message_overdue(self, sure: bool) -> None:
        if self.held or not sure:
            loop = asyncio.get_running_loop()
            self._overdue = loop.call_later(SECOND_LOOK_S, self._message_overdue, not self.held)
        else:
            self.fail(closing.POLICY, f"a message must arrive within {ASSEMBLY_S:g} s")

    def _uncommon(self, data: bytes | bytearray, start: int, bounds: frames.Bounds) -> int:
        """Handle the frame at ``start``; returns where the next one begins."""
        if self._closing:
            if bounds.opcode == 8 and not bounds.broken and not self._deaf:
                self.transport.close()  # §7.1.1: both sent a close, and the server closes first
            if bounds.opcode == 8 or bounds.broken:
                self._deaf = True
            return len(data) if self._deaf else bounds.stop
        if bounds.broken:
            self._judge(bytes(data[start : start + 14]))  # the longest header says it all
            return len(data)
        if bounds.plain and self._rules is None and bounds.opcode:
            payload = apply_mask(data[bounds.begin : bounds.stop], data[bounds.begin - 4 : bounds.begin])
            if bounds.opcode in (1, 2):
                self.message(payload, bounds.opcode == 1)
                return bounds.stop
            if bounds.opcode >= 9 and len(payload) <= frames.MAX_CONTROL_BYTES:
                if bounds.opcode == 9:
                    self._answer(frames.pong_frame(payload))
                return bounds.stop  # of a pong nothing counts but that something came
            if payload in _GOODBYES:
                self._peer_closed(*_GOODBYES[payload])
                return len(data)
        self._judge(bytes(data[start : bounds.stop]))
        return len(data) if self._deaf else bounds.stop

    def _answer(self, pong: bytes) -> None:
        if self.transport.get_write_buffer_size() <= CONGESTED_BYTES:
            self.transport.write(pong)  # a peer that does not read its pongs gets no more of them

    def _judge(self, frame: bytes) -> None:
        """Give one frame to the library and do as it says."""
        rules = self._rules
        if rules is None:
            rules = self._rules = WebSocketProtocol(SERVER, state=OPEN, max_size=self.max_message, logger=_quiet)
        rules.receive_data(frame)
        out = b"".join(rules.data_to_send())
        if rules.parser_exc is not None:
            assert rules.close_sent is not None  # it was open
            self._fail(rules.close_sent.code, out)
            return
        for event in rules.events_received():
            opcode = event.opcode  # type: ignore[union-attr]  # after the handshake all events are frames
            if opcode is Opcode.CLOSE:
                assert rules.close_rcvd is not None
                self._peer_closed(rules.close_rcvd.code, out)
                return
            if opcode is Opcode.PING:
                self._answer(out)
            elif opcode is not Opcode.PONG:
                self._fragment(opcode, bytes(event.data), event.fin)  # type: ignore[union-attr]
        if rules.current_size is None and not self._closing:
            self._rules = None

    def _fragment(self, opcode: Opcode, payload: bytes, fin: bool) -> None:
        fragments = self._fragments
        if fragments is None:
            fragments = self._fragments = []
            self._opcode = opcode
        fragments.append(payload)
        if fin:
            self._fragments = self._rules = None
            if self._overdue is not None:
                self._overdue.cancel()
                self._overdue = None
            self.message(b"".join(fragments), self._opcode is Opcode.TEXT)
        elif len(fragments) == MAX_FRAGMENTS:
            self.fail(closing.POLICY, f"a message is at most {MAX_FRAGMENTS} fragments")

    def hold(self, why: int) -> None:
        if self._closing:
            return  # the peer's answer to the close must be read
        if not self.held and not self.transport.is_closing():
            self.transport.pause_reading()
        self.held |= why

    def release(self, why: int) -> None:
        if not self.held & why:
            return
        self.held &= ~why
        if not self.held:
            self._resume()

    def _resume(self) -> None:
        self._unanswered = False  # what it answered meanwhile lies unread
        if self.transport.is_closing():
            return
        self.transport.resume_reading()
        if self._rest and len(self._rest) >= self._need:
            data, self._rest = self._rest, b""
            self._consume(data)

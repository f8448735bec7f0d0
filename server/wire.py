"""The bytes of one WebSocket after its handshake, server side (RFC 6455 §5 to §7), as asyncio callbacks.

Nearly all frames are whole, masked, short texts, or pongs: they are read inline. Every other frame is cut out whole and
given to the ``websockets`` library, which knows the rules and says with which code to close; its object is created when
such a frame comes and dropped at the next message boundary, so an idle connection carries none.

What a peer can make us keep is bounded: at most one partial frame no longer than ``max_message``, ``MAX_FRAGMENTS``
fragments, one chunk of unread frames while reading is held, and no pong while the peer owes us 64 KiB of reading.
"""

from __future__ import annotations

import asyncio
import logging

from websockets.frames import Opcode
from websockets.protocol import OPEN, SERVER
from websockets.protocol import Protocol as WebSocketProtocol
from websockets.speedups import apply_mask

from server import closing, frames
from server.connection import CONGESTED, CONGESTED_BYTES, Connection, slow_close
from server.heartbeat import Heartbeat

CLOSE_TIMEOUT_S = 10.0
"""How long a peer may take to read what it is owed and to answer a close. Then the socket is aborted, never just
closed: a close waits for the peer to read, a dead peer never does."""
MAX_FRAGMENTS = 64
"""Of one message. Empty fragments cost no payload bytes, so a byte limit alone does not bound them."""

_quiet = logging.getLogger("server.wire.rules")
_quiet.setLevel(logging.ERROR)


class Wire(Connection, asyncio.Protocol):
    """A connection that writes to its transport and is called by it. Subclasses say what a message is for."""

    __slots__ = (
        "_closing",
        "_fragments",
        "_need",
        "_opcode",
        "_rest",
        "_rules",
        "_slot",
        "_stalled",
        "_unanswered",
        "_wheel",
        "max_message",
        "outbound_limit",
        "transport",
    )

    def __init__(self, transport: asyncio.Transport, wheel: Heartbeat, max_message: int, outbound_limit: int) -> None:
        super().__init__()
        self.transport = transport
        self.max_message = max_message
        self.outbound_limit = outbound_limit
        self._wheel = wheel
        self._slot = -1
        self._closing = 0  # the code with which the connection ended or ends; 0 while it is open
        self._rest: bytes | bytearray = b""  # read and not yet consumed: a partial frame, or whole ones while held
        self._need = 0  # no use looking at the rest before it has this many bytes
        self._rules: WebSocketProtocol | None = None
        self._fragments: list[bytes] | None = None
        self._opcode = Opcode.TEXT
        self._unanswered = False
        self._stalled = False

    # For subclasses.

    def message(self, data: bytes, text: bool) -> None:
        """One whole message. ``text`` is not yet known to be UTF-8."""
        raise NotImplementedError

    def ended(self, code: int) -> None:
        """Called exactly once, when the transport is gone."""
        raise NotImplementedError

    def open(self) -> None:
        """The 101 is written: frames may flow."""
        self.transport.set_write_buffer_limits(high=CONGESTED_BYTES)
        self._slot = self._wheel.add(self)

    # Outbound.

    def send(self, batch: frames.Batch) -> None:
        if self._closing:
            return
        if self.transport.get_write_buffer_size() > self.outbound_limit:
            slow_close(self)
        else:
            self.transport.write(batch.packed_frames if self.packed else batch.frames)

    def send_event(self, payload: bytes) -> None:
        self.send(frames.Batch([frames.Prepared(payload)]))

    def outbound_bytes(self) -> int:
        return self.transport.get_write_buffer_size()

    @property
    def closed(self) -> bool:
        return self._closing != 0

    def close(self, code: int, reason: str = "") -> None:
        if self._closing:
            return
        self._closing = code
        self.transport.write(frames.close_frame(code, reason))
        # Reading goes on whatever held it: the peer's answer ends the handshake.
        self.held = 0
        self._resume()
        asyncio.get_running_loop().call_later(CLOSE_TIMEOUT_S, self.transport.abort)

    def _fail(self, code: int, last_words: bytes) -> None:
        """§7.1.7, but lingering: closing a socket with unread input makes the kernel send a reset, which may overtake
        the close frame. So half-close, discard what still comes, and abort after the timeout."""
        self._closing = code
        self._rest = b""
        self.transport.write(last_words)
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.held = 0
        self._resume()
        asyncio.get_running_loop().call_later(CLOSE_TIMEOUT_S, self.transport.abort)

    # Inbound.

    def data_received(self, data: bytes) -> None:
        self._unanswered = False
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
        while start < end and not self.held:
            if data[start] == 0x81 and end - start >= 6 and self._rules is None and not self._closing:
                length = data[start + 1] - 0x80
                if 0 <= length < 126:  # a whole, masked, short text: the common frame
                    begin = start + 6
                    stop = begin + length
                    if stop > end:
                        self._need = stop - start
                        break
                    payload = apply_mask(data[begin:stop], data[start + 2 : begin])
                    start = stop
                    self.message(payload, True)
                    continue
            bounds = frames.next_frame(data, start, self.max_message)
            if isinstance(bounds, int):
                self._need = bounds
                break
            start = self._uncommon(data, start, bounds)
        if start < end:
            self._rest = bytearray(data[start:end])

    def _uncommon(self, data: bytes | bytearray, start: int, bounds: frames.Bounds) -> int:
        """Handle the frame at ``start``; returns where the next one begins."""
        if self._closing:
            if bounds.opcode == 8 and not bounds.broken:
                self.transport.close()  # §7.1.1: both sent a close, and the server closes first
            return len(data) if bounds.broken else bounds.stop
        if bounds.broken:
            self._judge(bytes(data[start:]))
            if not self._closing:  # the library judges reserved bits only when it has the whole payload
                self._fail(1002, frames.close_frame(1002, "not a frame a client may send"))
            return len(data)
        if bounds.plain and self._rules is None and bounds.opcode in (1, 2):
            payload = apply_mask(data[bounds.begin : bounds.stop], data[bounds.begin - 4 : bounds.begin])
            self.message(payload, bounds.opcode == 1)
        elif bounds.opcode == 10 and bounds.plain and bounds.stop - bounds.begin <= 125:
            pass  # a pong: that something came at all has been noted
        else:
            self._judge(bytes(data[start : bounds.stop]))
        return bounds.stop

    def _judge(self, frame: bytes) -> None:
        """Give one frame to the library and do as it says."""
        rules = self._rules
        if rules is None:
            rules = self._rules = WebSocketProtocol(SERVER, state=OPEN, max_size=self.max_message, logger=_quiet)
        rules.receive_data(frame)
        for event in rules.events_received():
            opcode = event.opcode  # type: ignore[union-attr]  # after the handshake all events are frames
            payload = bytes(event.data)  # type: ignore[union-attr]
            if opcode is Opcode.CLOSE:
                received = rules.close_rcvd
                self._closing = received.code if received is not None else 1005
            elif opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
                self._fragment(opcode, payload, event.fin)  # type: ignore[union-attr]
        out = b"".join(rules.data_to_send())
        if rules.parser_exc is not None:
            self._fail(rules.close_sent.code if rules.close_sent is not None else 1002, out)
        elif self._closing:
            if rules.close_rcvd is not None:
                self.transport.write(out)
                self.transport.close()
                asyncio.get_running_loop().call_later(CLOSE_TIMEOUT_S, self.transport.abort)
        elif out and self.transport.get_write_buffer_size() <= CONGESTED_BYTES:
            self.transport.write(out)  # a pong; a peer that does not read its pongs gets no more of them
        if rules.current_size is None and not self._closing:
            self._rules = None

    def _fragment(self, opcode: Opcode, payload: bytes, fin: bool) -> None:
        if self._closing:
            return
        if self._fragments is None:
            self._fragments = []
            self._opcode = opcode
        self._fragments.append(payload)
        if fin:
            whole, self._fragments = b"".join(self._fragments), None
            self.message(whole, self._opcode is Opcode.TEXT)
        elif len(self._fragments) > MAX_FRAGMENTS:
            self._fail(
                closing.POLICY, frames.close_frame(closing.POLICY, f"more than {MAX_FRAGMENTS} fragments in a message")
            )

    # Flow.

    def hold(self, why: int) -> None:
        if not self.held and not self._closing and not self.transport.is_closing():
            self.transport.pause_reading()
        self.held |= why

    def release(self, why: int) -> None:
        if not self.held & why:
            return
        self.held &= ~why
        if not self.held:
            self._resume()

    def _resume(self) -> None:
        if self.transport.is_closing():
            return
        self.transport.resume_reading()
        if self._rest and len(self._rest) >= self._need:
            data, self._rest = self._rest, b""
            self._consume(data)

    def pause_writing(self) -> None:
        self.hold(CONGESTED)

    def resume_writing(self) -> None:
        self._stalled = False
        self.release(CONGESTED)

    def beat(self, forgive: bool) -> None:
        if self._closing or self.transport.is_closing():
            return
        if not forgive:
            if self._stalled:  # over CONGESTED_BYTES for a whole round
                self._closing = closing.SLOW
                self.transport.abort()
                return
            if self._unanswered and not self.held:
                self._closing = 1006
                self.transport.abort()
                return
        self._stalled = bool(self.held & CONGESTED)
        if not self.held:
            self._unanswered = True
        if not self._stalled:
            self.transport.write(frames.PING)

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        if self._slot >= 0:
            self._wheel.discard(self, self._slot)
        code = self._closing or 1006
        self._closing = code
        self._rest = b""
        self._rules = self._fragments = None
        self.ended(code)

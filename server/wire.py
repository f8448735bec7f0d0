"""One WebSocket after its handshake, server side: what goes out, who takes too long, and the end (RFC 6455 §7).

What comes in is read by server/inbound.py.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable

from server import closing, frames
from server.connection import CONGESTED
from server.heartbeat import Heartbeat
from server.inbound import SECOND_LOOK_S, Inbound
from server.slow import STALL_S, catch_up, set_aside, slow_close

CLOSE_TIMEOUT_S = 10.0
"""How long a peer may take to read what it is owed and to answer a close. Then the socket is aborted, never just
closed: a close waits for the peer to read, a dead peer never does."""

_RESET = struct.pack("ii", 1, 0)


class Wire(Inbound):
    """A connection that writes to its transport and is called by it. Subclasses say what a message is for."""

    __slots__ = ("_deadline", "_slot", "_wheel", "outbound_limit")

    def __init__(self, transport: asyncio.Transport, wheel: Heartbeat, max_message: int, outbound_limit: int) -> None:
        super().__init__(transport, max_message)
        self.outbound_limit = outbound_limit
        self._wheel = wheel
        self._slot = -1
        self._deadline: asyncio.TimerHandle | None = None  # to abort: the close or the reading of our bytes takes long

    # For subclasses.

    def ended(self, code: int, reason: str) -> None:
        """Called exactly once, when the transport is gone. ``reason`` is the peer's, if it closed with one."""
        raise NotImplementedError

    @property
    def direct(self) -> bool:
        return not (self._closing or self.packed or self.held & CONGESTED)

    def _turned(self) -> None:
        if self.listener is not None:
            self.listener.turned(self)

    def _ends(self, code: int) -> None:
        """From here on nothing more is written to it but what ends it."""
        self._closing = code
        self._turned()

    def open(self) -> None:
        """The 101 is written: frames may flow."""
        # So uvloop writes at once, not at the end of the tick, which costs less (docs/design.md). And it says when the
        # kernel takes no more; server/uvicorn_http.py tells it how much to take.
        self.transport.set_write_buffer_limits(high=0)
        self._slot = self._wheel.add(self)

    # Outbound.

    def send(self, batch: frames.Batch) -> None:
        if self._closing:
            return
        # Asking a transport for its buffer costs half as much as writing to it, and it says by itself when it fills.
        if self.held & CONGESTED:
            self._send_congested(batch)
        else:
            self.transport.write(batch.packed_frames if self.packed else batch.frames)

    def _send_congested(self, batch: frames.Batch) -> None:
        messages = set_aside(self, batch)
        if messages is None:
            return
        if self.transport.get_write_buffer_size() > self.outbound_limit:
            slow_close(self, len(messages.parts))
        else:
            self.transport.write(messages.packed_frames if self.packed else messages.frames)

    def send_event(self, payload: bytes) -> None:
        if self._closing:
            return
        if self.transport.get_write_buffer_size() > self.outbound_limit:
            slow_close(self, 1)
        elif self.packed:
            self.transport.write(frames.binary_frame(frames.to_packed(payload)))
        else:
            self.transport.write(frames.text_frame(payload))

    def outbound_bytes(self) -> int:
        return self.transport.get_write_buffer_size()

    @property
    def closed(self) -> bool:
        return self._closing != 0

    def close(self, code: int, reason: str = "") -> None:
        if self._closing:
            return
        self._ends(code)
        self.transport.write(frames.close_frame(code, reason))
        self._end()

    def fail(self, code: int, reason: str) -> None:
        if not self._closing:
            self._fail(code, frames.close_frame(code, reason))

    def _fail(self, code: int, last_words: bytes) -> None:
        """Lingering: closing a socket with unread input makes the kernel send a reset, which may overtake the close
        frame. So half-close, discard what still comes, and abort after the timeout."""
        self._ends(code)
        self._deaf = True
        self._rest = b""
        self.transport.write(last_words)
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._end()

    def _end(self) -> None:
        """It is over once the peer has answered, or at the latest after the timeout. Reading goes on whatever held it:
        the peer's answer ends the handshake."""
        if self._closing != closing.SLOW or self._deadline is None:  # a stalled peer gets no second time to read in
            self._abort_after(CLOSE_TIMEOUT_S, self._abort)
        self.held = 0
        self._resume()

    def _peer_closed(self, code: int, answer: bytes) -> None:
        self._ends(code)
        self._deaf = True
        self.transport.write(answer)
        self.transport.close()
        self._abort_after(CLOSE_TIMEOUT_S, self._abort)

    def _abort_after(self, delay_s: float, abort: Callable[[], None]) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = asyncio.get_running_loop().call_later(delay_s, abort)

    def _abort(self) -> None:
        """Gone at once. A socket that is just closed stays in the kernel with all that the peer has not read, and the
        peer is not told: so it is reset."""
        sock = self.transport.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.transport.abort()

    # Flow.

    def pause_writing(self) -> None:
        if not self._closing:
            self.hold(CONGESTED)
            self._turned()
            self._abort_after(STALL_S, self._look_again)

    def resume_writing(self) -> None:
        if not self._closing and self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        self.release(CONGESTED)
        self._turned()
        if self.backlog is not None:
            catch_up(self)

    def _look_again(self) -> None:
        self._abort_after(SECOND_LOOK_S, self._cut)

    def _cut(self) -> None:
        """No close frame: it would wait behind all that the peer does not read."""
        if not self._closing and self.listener is not None:
            self.listener.cut(self, "stall")
        self._ends(closing.SLOW)
        self._abort()

    def beat(self, forgive: bool) -> None:
        if self._closing:
            return
        if self._unanswered and not self.held and not forgive:
            self._ends(1006)
            self._abort()
            return
        if not self.held:
            self._unanswered = True
        if not self.held & CONGESTED:
            self.transport.write(frames.PING)

    def eof_received(self) -> bool:
        """A half-closed peer gets what it is owed, for as long as a closing one."""
        if not self._closing:
            self._ends(1006)
            self._abort_after(CLOSE_TIMEOUT_S, self._abort)
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        if self._slot >= 0:
            self._wheel.discard(self, self._slot)
        for timer in (self._deadline, self._overdue):
            if timer is not None:
                timer.cancel()
        code = self._closing or 1006
        self._closing = code
        received = self._rules.close_rcvd if self._rules is not None else None
        reason = received.reason if received is not None and received.code == code else ""
        self._rest = b""
        self._rules = self._fragments = self._deadline = self._overdue = self.backlog = None
        self.ended(code, reason)

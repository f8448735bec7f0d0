"""Clients that join and then read nothing any more."""

from __future__ import annotations

import json
import select
import socket
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from loadtests.errors import SetupError

_HEAD = (
    "GET /ws?user={user} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
ANSWER_S = 10.0
FEED = "x" * 30_000
FEEDS = 14
"""420 kB: over what the kernel takes (256 KiB) and what makes a reader congested (64 KiB), below what closes it."""


class Socket:
    """A WebSocket of the plainest kind, which blocks."""

    def __init__(self, port: int, user: str, receive_bytes: int | None = None) -> None:
        self.sock = socket.socket()
        self.sock.settimeout(ANSWER_S)
        if receive_bytes is not None:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        self.sock.connect(("127.0.0.1", port))
        self.sock.sendall(_HEAD.format(user=user).encode())

    def ask(self, **request: object) -> None:
        """Send a request with an id and read on until its answer. :class:`SetupError` if that is no."""
        payload = json.dumps({"id": "asked", **request}).encode()
        size = len(payload)
        head = bytes((0x81, 0x80 | size)) if size < 126 else bytes((0x81, 0xFE)) + size.to_bytes(2, "big")
        answer = b""
        try:
            self.sock.sendall(head + b"\0\0\0\0" + payload)
            while b'"id":"asked"' not in answer:
                piece = self.sock.recv(65536)
                answer = answer[-200:] + piece
                if not piece:
                    raise SetupError(f"the node closed a connection instead of answering: {answer!r}")
        except OSError as error:
            raise SetupError(f"the node did not answer {request.get('op')}: {error}") from None
        if b'"ok":true' not in answer:
            raise SetupError(f"the node refused {request.get('op')}: {answer[-200:]!r}")


class Stalled:
    """``count`` members of the rooms that stop reading. A context: at its end the sockets are closed.

    Entering returns once a member of the last room has said so much there that bytes wait for each of them.
    """

    def __init__(self, port: int, count: int, rooms: Sequence[str]) -> None:
        self._port = port
        self._count = count
        self._rooms = rooms
        self._sockets: list[Socket] = []
        self._ended_s: dict[int, float] = {}
        self._poll = select.poll()
        self.since_s = 0.0

    def __enter__(self) -> Self:
        feeder = Socket(self._port, "feeder")
        try:
            for number in range(self._count):
                one = Socket(self._port, f"stalled{number}", receive_bytes=4096)
                self._sockets.append(one)
                for room in self._rooms:
                    one.ask(op="join", room=room)
                self._poll.register(one.sock, 0)  # only its end is of interest
            feeder.ask(op="join", room=self._rooms[-1])
            self.since_s = time.monotonic()
            for _ in range(FEEDS):
                feeder.ask(op="message", room=self._rooms[-1], data=FEED, echo=False)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        finally:
            feeder.sock.close()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for one in self._sockets:
            one.sock.close()

    def ended_s(self, within_s: float) -> list[float]:
        """How long after the feeding began each was cut by the node; those that are not, ``within_s`` after that, are
        left out."""
        until_s = self.since_s + within_s
        while len(self._ended_s) < self._count and (left_s := until_s - time.monotonic()) > 0:
            for descriptor, _ in self._poll.poll(left_s * 1000):
                self._ended_s[descriptor] = time.monotonic() - self.since_s
                self._poll.unregister(descriptor)
        return list(self._ended_s.values())

"""Clients that take one step at a time: the next request leaves when all of the one before has arrived.

So a node does the same work in the same portions each time, and what it does can be counted. Blocking sockets; masks
are zero, which RFC 6455 allows.
"""

from __future__ import annotations

import itertools
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from loadtests.errors import SetupError

SILENT_S = 30.0
"""Nothing came for so long: the node does not answer."""
PAD = "x" * 60
_numbers = itertools.count(1)


class Client:
    """One connection, welcomed; without a user anonymous, with a room a member of it."""

    def __init__(self, port: int, user: str | None = None, room: str | None = None) -> None:
        self.port, self.room = port, room
        self._buffer = bytearray()
        path = "/ws" if user is None else f"/ws?user={user}"
        try:
            self._socket = socket.create_connection(("127.0.0.1", port), timeout=SILENT_S)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._socket.sendall(
                f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
            )
        except OSError as error:
            raise SetupError(f"the node does not take connections: {error}") from None
        while b"\r\n\r\n" not in self._buffer:
            self._read()
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 101 "):
            raise SetupError(f"the node refuses the handshake: {head.splitlines()[0].decode()}")
        self.expect("welcome")
        if room is not None:
            self.send(op="join", id=1, room=room)
            self.expect("reply")

    def send(self, **request: Any) -> None:
        self._socket.sendall(frame(request))

    def send_all(self, requests: Sequence[dict[str, Any]]) -> None:
        """In one write."""
        self._socket.sendall(b"".join(map(frame, requests)))

    def expect(self, *ops: str) -> None:
        """The next frames are of these ops, in any order. SetupError if they are not, or failed."""
        left = list(ops)
        while left:
            event = orjson.loads(self._frame())
            if event["op"] not in left or event.get("ok") is False:
                raise SetupError(f"expected {left}, the node says {event}")
            left.remove(event["op"])

    def leave(self) -> None:
        """Close, and wait for the node's answer."""
        self._socket.sendall(b"\x88\x82\0\0\0\0" + (1000).to_bytes(2, "big"))
        try:
            while self._socket.recv(65536):
                pass
        except OSError as error:
            raise SetupError(f"the node does not end a connection: {error}") from None
        self._socket.close()

    def _frame(self) -> bytes:
        """The next text."""
        while True:
            size, begin = self._size()
            while len(self._buffer) < begin + size:
                self._read()
            opcode, payload = self._buffer[0] & 15, bytes(self._buffer[begin : begin + size])
            del self._buffer[: begin + size]
            if opcode == 1:
                return payload

    def _size(self) -> tuple[int, int]:
        while len(self._buffer) < 4:
            self._read()
        size = self._buffer[1]
        return (int.from_bytes(self._buffer[2:4], "big"), 4) if size == 126 else (size, 2)

    def _read(self) -> None:
        try:
            data = self._socket.recv(1 << 20)
        except TimeoutError:
            raise SetupError(f"the node has been silent for {SILENT_S:g} s") from None
        if not data:
            raise SetupError("the node has ended the connection")
        self._buffer += data


def frame(request: dict[str, Any]) -> bytes:
    payload = orjson.dumps(request)
    size = len(payload)
    head = bytes((0x81, 0x80 | size)) if size < 126 else b"\x81\xfe" + size.to_bytes(2, "big")
    return head + b"\0\0\0\0" + payload


@dataclass(frozen=True)
class Path:
    """One way through a node. ``steps(clients, n)`` takes it ``n`` times; ``rooms`` of ``size`` are there for it."""

    name: str
    unit: str
    rooms: int
    size: int
    n: int
    steps: Callable[[Sequence[Client], int], None]

    def arrive(self, port: int) -> list[Client]:
        """Its clients, room by room."""
        return [
            Client(port, f"{self.name}{number}", f"{self.name}{number // self.size}")
            for number in range(self.rooms * self.size)
        ]


def _ping(clients: Sequence[Client], n: int) -> None:
    for _ in range(n):
        clients[0].send(op="ping", id=next(_numbers))
        clients[0].expect("pong")


def _message(room: str | None) -> dict[str, Any]:
    number = next(_numbers)
    data = {"seq": f"{number:012d}", "pad": PAD}
    return {"op": "message", "id": number, "room": room, "key": f"k{number:09d}", "data": data}


def _say(clients: Sequence[Client], n: int, at_once: int) -> None:
    """In turns, in every room, ``at_once`` messages in one write."""
    for turn in range(n // at_once):
        speaker = clients[turn * 7 % len(clients)]
        speaker.send_all([_message(speaker.room) for _ in range(at_once)])
        for client in clients:
            if client.room == speaker.room:
                mine = ("reply",) * at_once if client is speaker else ()
                client.expect(*("broadcast",) * at_once, *mine)


def _come_and_go(clients: Sequence[Client], n: int) -> None:
    for _ in range(n):
        Client(clients[0].port).leave()


PATHS = (
    Path("ping", "request without Redis", 1, 1, 200, _ping),
    Path("chat", "message through Redis to a room of 5", 10, 5, 100, lambda clients, n: _say(clients, n, 1)),
    Path("burst", "the same, 50 in one read", 2, 5, 200, lambda clients, n: _say(clients, n, 50)),
    Path("fan-out", "message to a room of 100", 1, 100, 20, lambda clients, n: _say(clients, n, 1)),
    Path("connect", "anonymous connection, and its end", 1, 1, 100, _come_and_go),
)
"""Who connects has no user and joins nothing: presence and subscriptions of several who come are gathered for some ms,
so that their count depends on time (it differed by a quarter from run to run). ``handshake`` measures all of it."""

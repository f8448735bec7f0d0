"""A WebSocket server that sends exactly the bytes a test gives it, to one client."""

from __future__ import annotations

import base64
import hashlib
import socket
import threading
from collections.abc import Sequence
from types import TracebackType
from typing import Self


def text_frame(payload: bytes, *, opcode: int = 1, wide: bool = False) -> bytes:
    """An unmasked frame; ``wide`` writes its length in 64 bits although fewer would do."""
    length = len(payload)
    if wide or length > 65535:
        return bytes((0x80 | opcode, 127)) + length.to_bytes(8, "big") + payload
    if length > 125:
        return bytes((0x80 | opcode, 126)) + length.to_bytes(2, "big") + payload
    return bytes((0x80 | opcode, length)) + payload


def message(number: int, pad: int = 40, sent_ns: int = 1) -> bytes:
    """A message as the publisher writes it, with ``pad`` bytes of padding (40 make the usual 100 bytes)."""
    data = b'{"seq":"%012d","sent_ns":"%020d","pad":"%b"}' % (number, sent_ns, b"x" * pad)
    return b'{"op":"broadcast","type":"message","room":"bench","offset":%d,"tag":"t","data":%b}' % (number, data)


WELCOME = text_frame(b'{"op":"welcome","version":1}')
JOINED = text_frame(b'{"op":"reply","id":1,"ok":true,"room":"bench","messages":[]}')


class ScriptedServer:
    """Upgrades one client, greets it, answers each of its first frames in turn, sends ``chunks`` one by one, reads on.

    ``heard`` is the unmasked payload of every frame of the client; complete once the context is left.
    """

    def __init__(
        self,
        chunks: Sequence[bytes],
        *answers: bytes,
        greeting: bytes = b"",
    ) -> None:
        self._chunks, self._answers, self._greeting = chunks, answers, greeting
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve)
        self.port: int = self._listener.getsockname()[1]
        self.request = b""
        self.heard: list[bytes] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._thread.join(10)
        self._listener.close()
        assert not self._thread.is_alive(), "the client never closed its connection"

    def _serve(self) -> None:
        peer, _ = self._listener.accept()
        with peer, peer.makefile("rb") as stream:
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while not self.request.endswith(b"\r\n\r\n"):
                self.request += stream.readline()
            key = self.request.lower().partition(b"sec-websocket-key: ")[0]
            key = self.request[len(key) + 19 :].partition(b"\r\n")[0]
            accept = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
            peer.sendall(
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"sec-websocket-accept: " + accept + b"\r\n\r\n" + self._greeting
            )
            self._say_on(peer)
            while header := stream.read(2):
                mask = stream.read(4)
                payload = bytes(b ^ mask[i % 4] for i, b in enumerate(stream.read(header[1] & 0x7F)))
                self.heard.append(payload)
                self._say_on(peer)

    def _say_on(self, peer: socket.socket) -> None:
        heard, wanted = len(self.heard), len(self._answers)
        if 0 < heard <= wanted:
            peer.sendall(self._answers[heard - 1])
        if heard == wanted:
            for chunk in self._chunks:
                peer.sendall(chunk)

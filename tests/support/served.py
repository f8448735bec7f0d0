"""Any ASGI application under a real uvicorn in this process, and a client that says exactly what it is told to."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import uvicorn

from server.heartbeat import Heartbeat
from server.uvicorn_http import FastLane, limit_connections

KEY = "dGhlIHNhbXBsZSBub25jZQ=="  # RFC 6455 §1.3
ACCEPT = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
IN_TIME_S = 20.0


class Served:
    """``connections`` are the server's protocol objects."""

    def __init__(self, server: uvicorn.Server, port: int) -> None:
        self.server = server
        self.port = port

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    @property
    def connections(self) -> list[Any]:
        return list(self.server.server_state.connections)


@asynccontextmanager
async def serving(config: uvicorn.Config) -> AsyncIterator[Served]:
    """Listen on a free loopback port from here to the end of the block, lifespan included."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        if not config.loaded:
            config.load()
        limit_connections([listener])
        server = uvicorn.Server(config)
        server.lifespan = config.lifespan_class(config)
        await server.startup([listener])
        assert not server.should_exit, "the application's start failed"
        try:
            yield Served(server, listener.getsockname()[1])
        finally:
            await server.shutdown([listener])


def lane_config(app: Any, *, fast: bool = True, max_message: int = 65536, outbound: int = 262144) -> uvicorn.Config:
    """``app`` on our protocol classes, or (``fast=False``) on uvicorn's own."""
    return uvicorn.Config(
        app,
        http=FastLane(Heartbeat(10.0), max_message, outbound) if fast else "httptools",  # type: ignore[arg-type]
        ws="websockets-sansio",
        ws_max_size=max_message,
        ws_per_message_deflate=False,
        lifespan="off",
        log_config=None,
        timeout_graceful_shutdown=1,
    )


def handshake(path: str = "/ws", *, drop: str = "", add: tuple[str, ...] = (), line: str = "") -> bytes:
    """A good handshake, but for one header left out and others added, or another request line."""
    headers = {
        "Host": "127.0.0.1",
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Key": KEY,
        "Sec-WebSocket-Version": "13",
    }
    lines = [line or f"GET {path} HTTP/1.1", *(f"{n}: {v}" for n, v in headers.items() if n != drop), *add]
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


class RawClient:
    """One TCP connection. Everything it waits for has a deadline of ``IN_TIME_S``."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def head(self) -> tuple[int, bytes]:
        """The status and the whole head of a response."""
        async with asyncio.timeout(IN_TIME_S):
            head = await self.reader.readuntil(b"\r\n\r\n")
        return int(head.split(b" ", 2)[1]), head

    async def frame(self) -> tuple[int, bytes]:
        """The first byte and the payload of the next frame."""
        async with asyncio.timeout(IN_TIME_S):
            first, length = await self.reader.readexactly(2)
            if length == 126:
                length = int.from_bytes(await self.reader.readexactly(2), "big")
            elif length == 127:
                length = int.from_bytes(await self.reader.readexactly(8), "big")
            return first, await self.reader.readexactly(length)

    async def rest(self) -> bytes:
        """All until the server ends the connection (also by a reset)."""
        received = bytearray()
        async with asyncio.timeout(IN_TIME_S):
            while True:
                try:
                    piece = await self.reader.read(65536)
                except ConnectionResetError:
                    break
                if not piece:
                    break
                received += piece
        return bytes(received)


@asynccontextmanager
async def raw_client(port: int, first: bytes = b"") -> AsyncIterator[RawClient]:
    """Connected, ``first`` sent; aborted at the end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    client = RawClient(reader, writer)
    client.send(first)
    try:
        yield client
    finally:
        writer.transport.abort()
        try:
            await writer.wait_closed()
        except OSError:
            pass


class Flooder:
    """A socket that writes as fast as it may and reads nothing: small receive buffer, blocking, in a thread."""

    def __init__(self, port: int) -> None:
        self.sock = socket.socket()
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.sock.connect(("127.0.0.1", port))

    async def open(self, path: str = "/ws") -> None:
        """The handshake, whose answer is read."""
        await asyncio.to_thread(self._open, path)

    def _open(self, path: str) -> None:
        self.sock.settimeout(IN_TIME_S)
        self.sock.sendall(handshake(path))
        answer = b""
        while not answer.endswith(b"\r\n\r\n"):
            answer += self.sock.recv(1)
        assert answer.startswith(b"HTTP/1.1 101"), answer

    async def flood(self, data: bytes, total: int, give_up_s: float = 0.3) -> int:
        """Send ``data`` over and over up to ``total`` bytes; ends when nothing is taken for ``give_up_s`` or the server
        has gone. Returns how many bytes went out."""
        return await asyncio.to_thread(self._flood, data * max(1, 65536 // len(data)), total, give_up_s)

    def _flood(self, data: bytes, total: int, give_up_s: float) -> int:
        self.sock.settimeout(give_up_s)
        sent = 0
        try:
            while sent < total:
                sent += self.sock.send(data[sent % len(data) :][: total - sent])
        except OSError:
            pass
        return sent

    def close(self) -> None:
        self.sock.close()

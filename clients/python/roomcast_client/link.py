"""One WebSocket connection, from handshake to end."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, ConnectionClosedError, InvalidHandshake, InvalidStatus

from roomcast_client.policy import ABNORMAL, Verdict, after_close, after_http

CLOSE_TIMEOUT_S: Final = 2.0
MAX_FRAME_BYTES: Final = 32 * 1024 * 1024
"""A reply holds at least one message, and a server may allow messages of 16 MiB."""


class End(NamedTuple):
    """How a connection, or the attempt at one, ended. ``code`` is a close code or an HTTP status."""

    verdict: Verdict
    code: int
    reason: str


class Link:
    """``run`` it once. Frames given to ``send`` are written in order; what waits while the server does not read is
    bounded by the callers (the machine's window, ``waiting`` for what may be left out)."""

    def __init__(self, url: str, headers: dict[str, str], *, open_timeout_s: float, ping_s: float) -> None:
        self._url = url
        self._headers = headers
        self._open_timeout_s = open_timeout_s
        self._ping_s = ping_s
        self._out: deque[str] = deque()
        self._something = asyncio.Event()
        self._connection: ClientConnection | None = None

    @property
    def waiting(self) -> int:
        """Frames not yet given to the socket."""
        return len(self._out)

    def send(self, frame: str) -> None:
        self._out.append(frame)
        self._something.set()

    def abort(self) -> None:
        """Cut the connection without a close handshake; ``run`` returns."""
        if self._connection is not None:
            self._connection.transport.abort()

    async def run(self, opened: Callable[[], None], received: Callable[[bytes], None]) -> End:
        """Connect, call ``received`` with every frame, return when it is over. Cancelling closes it."""
        try:
            connection = await connect(
                self._url,
                additional_headers=self._headers,
                compression=None,
                max_size=MAX_FRAME_BYTES,
                open_timeout=self._open_timeout_s,
                ping_interval=self._ping_s,
                ping_timeout=self._ping_s,
                close_timeout=CLOSE_TIMEOUT_S,
                proxy=None if _is_loopback(self._url) else True,
            )
        except InvalidStatus as error:
            status = error.response.status_code
            return End(after_http(status), status, f"HTTP {status} instead of a WebSocket")
        except (OSError, InvalidHandshake, ConnectionClosed, EOFError) as error:
            return End(Verdict(""), ABNORMAL, f"{type(error).__name__}: {error}")
        self._connection = connection
        writer = asyncio.create_task(self._write(connection), name="roomcast writer")
        try:
            opened()
            while True:
                received(await connection.recv(decode=False))
        except ConnectionClosed as error:
            return _end(error)
        finally:
            writer.cancel()
            await connection.close()
            await asyncio.wait([writer])

    async def _write(self, connection: ClientConnection) -> None:
        with contextlib.suppress(ConnectionClosed):  # the reader tells it
            while True:
                while self._out:
                    await connection.send(self._out.popleft())
                self._something.clear()
                await self._something.wait()


def _end(error: ConnectionClosed) -> End:
    frame = error.rcvd if error.rcvd is not None else error.sent
    if frame is None:
        return End(Verdict(""), ABNORMAL, "the connection was cut")
    if error.rcvd is None and isinstance(error, ConnectionClosedError):
        # Our side gave up (no pong, a frame the library refused): what it said of it is no verdict on our program.
        return End(Verdict(""), ABNORMAL, f"gave up: {frame.reason or frame.code}")
    return End(after_close(frame.code), frame.code, frame.reason)


def _is_loopback(url: str) -> bool:
    """Proxies of the environment are for other machines."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"

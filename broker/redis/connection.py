"""One connection to Redis: RESP2 read in bulk by hiredis, replies in order, no task and no queue of its own.

``data_received`` straight into the parser costs 1.8 us per message where redis-py's ``PubSub.listen()`` takes 25.
A reply can never reach the wrong caller (CVE-2023-28858): every command owns a slot until its reply came or the
connection ended, whoever still waits for it.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections import deque
from collections.abc import Callable
from typing import Any, cast

import hiredis

from broker.base import OutcomeUnknown, Unavailable
from broker.redis.address import Address
from broker.redis.errors import ConnectionLost, broker_error
from broker.stats import BrokerStats

logger = logging.getLogger("broker.redis")

TICK_BYTES = 128 * 1024
"""At most so much is taken from the socket in one tick of the loop."""
MAX_PENDING_CALLS = 4096
"""Commands sent and not answered; one more is refused."""
TCP_USER_TIMEOUT_MS = 10_000
"""Unacknowledged data for so long ends the connection (the kernel's own limit is a quarter of an hour)."""

Argument = bytes | str | int | float
Reply = Any
_NOTHING = object()


class Connection(asyncio.BufferedProtocol):
    """``on_lost(connection, reason)`` is called once, when the connection has ended. As long as ``on_push`` is None,
    whatever arrives answers a command; afterwards (a subscriber) everything is given to it, once per tick."""

    def __init__(self, stats: BrokerStats, on_lost: Callable[[Connection, str], None]) -> None:
        self.on_push: Callable[[list[Reply]], None] | None = None
        self.closed = False
        self._stats = stats
        self._on_lost = on_lost
        self._reader = hiredis.Reader(notEnoughData=_NOTHING)
        self._buffer = bytearray(TICK_BYTES)
        self._view = memoryview(self._buffer)
        self._waiting: deque[Callable[[Reply], None]] = deque()
        self._transport: asyncio.Transport
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._why = ""

    # Commands

    def send(self, arguments: tuple[Argument, ...], on_reply: Callable[[Reply], None]) -> None:
        """Send one command. ``on_reply`` is called exactly once, with the reply, a ``hiredis.ReplyError`` or
        :class:`ConnectionLost`; it may not raise."""
        self._waiting.append(on_reply)
        self.write(arguments)

    def send_packed(self, command: bytes, on_reply: Callable[[Reply], None]) -> None:
        """The same for a command that is written already (broker/redis/resp.py)."""
        self._waiting.append(on_reply)
        self._write(command)

    def write(self, arguments: tuple[Argument, ...]) -> None:
        """Send one command whose answer is a push."""
        self._write(hiredis.pack_command(arguments))  # type: ignore[arg-type]  # the stub means "tuple of one"

    def _write(self, data: bytes) -> None:
        self._stats.commands += 1
        self._stats.bytes_out += len(data)
        self._transport.write(data)

    async def call(self, *arguments: Argument, timeout_s: float) -> Reply:
        """Send one command and return its reply. Raises :class:`Unavailable` if nothing was done, else
        :class:`OutcomeUnknown`. May be cancelled: the reply is then dropped."""
        if self.closed:
            raise Unavailable(f"the connection to Redis is lost ({self._why}): retry later")
        if len(self._waiting) >= MAX_PENDING_CALLS:
            raise Unavailable(f"{MAX_PENDING_CALLS} commands wait for Redis: slow down, retry later")
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()

        def on_reply(reply: Reply) -> None:
            if not future.done():
                future.set_result(reply)

        self.send(arguments, on_reply)
        try:
            async with asyncio.timeout(timeout_s):
                reply = await future
        except TimeoutError:
            raise OutcomeUnknown(f"Redis did not answer within {timeout_s:g} s: retry later") from None
        if isinstance(reply, Exception):
            raise broker_error(reply) from reply
        return reply

    @property
    def pending(self) -> int:
        return len(self._waiting)

    def abort(self, why: str) -> None:
        """End it now. Idempotent; ``on_lost`` follows in a later tick."""
        if not self.closed:
            self.closed = True
            self._why = self._why or why
            self._transport.abort()

    # Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are no instances of it

    def get_buffer(self, sizehint: int) -> memoryview:
        """A view: with TLS asyncio fills it piece by piece, and a slice of the bytes themselves would be a copy."""
        return self._view

    def buffer_updated(self, nbytes: int) -> None:
        self._stats.bytes_in += nbytes
        if nbytes == TICK_BYTES:
            # uvloop would go on reading in the same tick; let the others have their turn
            self._transport.pause_reading()
            asyncio.get_running_loop().call_soon(self._resume)
        try:
            self._reader.feed(self._buffer, 0, nbytes)  # type: ignore[arg-type]  # takes any buffer
            gets = self._reader.gets
            if self.on_push is None:
                while (reply := gets()) is not _NOTHING:
                    if isinstance(reply, Exception):
                        self._stats.errors += 1
                        if not self._waiting:  # said before it hangs up
                            self.abort(str(reply))
                            return
                    self._waiting.popleft()(reply)
            else:
                pushes = []
                while (reply := gets()) is not _NOTHING:
                    pushes.append(reply)
                self.on_push(pushes)
        except Exception as error:
            self._stats.reader_restarts += 1
            logger.exception("the reader of a Redis connection died, it will be built again")
            self.abort(f"reading failed: {error!r}")

    def _resume(self) -> None:
        if not self.closed and not self._transport.is_closing():
            self._transport.resume_reading()

    def eof_received(self) -> bool:
        self._why = self._why or "closed by Redis"
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        self._why = self._why or str(exc or "closed by Redis")
        lost = ConnectionLost(self._why)
        while self._waiting:
            self._waiting.popleft()(lost)
        self._on_lost(self, self._why)
        if not self.ended.done():
            self.ended.set_result(None)


async def connect(
    address: Address,
    *,
    password: str | None,
    name: str,
    stats: BrokerStats,
    on_lost: Callable[[Connection, str], None],
    timeout_s: float,
) -> Connection:
    """Connect, log in, select the database. Raises :class:`Unavailable` with the reason; nothing is left open then."""
    loop = asyncio.get_running_loop()
    established = False

    def lost(connection: Connection, reason: str) -> None:
        if established:
            on_lost(connection, reason)

    def factory() -> Connection:
        return Connection(stats, lost)

    connection = None
    try:
        async with asyncio.timeout(timeout_s):
            if address.path is not None:
                transport, connection = await loop.create_unix_connection(factory, address.path)
            else:
                transport, connection = await _dial(factory, address)
                _set_options(transport.get_extra_info("socket"))
            await _log_in(connection, address, password, name, timeout_s)
    except (OSError, TimeoutError, Unavailable, OutcomeUnknown) as error:
        await _discard(connection)
        why = str(error)
        if isinstance(error, TimeoutError):
            why = f"no answer within {timeout_s:g} s"
        elif isinstance(error.__cause__, ConnectionLost):
            why = f"it ended the connection at once ({error.__cause__}); has it reached its maxclients?"
        raise Unavailable(f"cannot connect to Redis at {address}: {why}") from error
    except BaseException:
        await _discard(connection)
        raise
    established = True
    return connection


async def _dial(factory: Callable[[], Connection], address: Address) -> tuple[asyncio.Transport, Connection]:
    """To the first of the host's addresses that answers. The look-up is a task of its own: under uvloop one that
    outlives the time-out would be reported as an error that nobody had asked for."""
    loop = asyncio.get_running_loop()
    looking_up = asyncio.ensure_future(loop.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM))
    looking_up.add_done_callback(lambda done: done.cancelled() or done.exception())
    found = await asyncio.shield(looking_up)
    for number, (*_, (ip, port, *_rest)) in enumerate(found, 1):
        try:
            name = address.host if address.tls else None
            return await loop.create_connection(factory, str(ip), int(port), ssl=address.tls, server_hostname=name)
        except OSError:
            if number == len(found):
                raise
    raise OSError(f"{address.host} has no address")


async def _discard(connection: Connection | None) -> None:
    if connection is not None:
        connection.abort("not established")
        await asyncio.wait((connection.ended,))


async def _log_in(connection: Connection, address: Address, password: str | None, name: str, timeout_s: float) -> None:
    if password is not None:
        user = () if address.username is None else (address.username,)
        await connection.call("AUTH", *user, password, timeout_s=timeout_s)
    if address.db:
        await connection.call("SELECT", address.db, timeout_s=timeout_s)
    await connection.call("CLIENT", "SETNAME", name, timeout_s=timeout_s)


def _set_options(sock: socket.socket) -> None:
    """asyncio has set TCP_NODELAY already, uvloop too."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 5)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 2)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, TCP_USER_TIMEOUT_MS)

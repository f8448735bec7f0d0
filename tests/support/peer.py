"""A client that believes nothing: a bare WebSocket that keeps every frame and checks each against the promise.

Unlike a client library it repairs nothing. A hole, a repetition, a frame after a leave or a ``recovered: true`` that is
none stays visible in ``problems``.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

from roomcast_client import Message, Position, Reset
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from tests.support.waiting import patience

IN_TIME_S = 30.0
Frame = dict[str, Any]


async def small_window(url: str) -> socket.socket:
    """A connected TCP socket with the smallest receive buffer there is."""
    where = urlsplit(url)
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    await asyncio.to_thread(sock.connect, (where.hostname, where.port))
    return sock


class View:
    """What one peer saw of one room, from the position at which it began."""

    def __init__(self, room: str, start: Position) -> None:
        self.room = room
        self.start = start
        self.position = start
        self.seen: list[Message | Reset] = []
        self.live = False
        self.problems: list[str] = []

    @property
    def resets(self) -> int:
        return sum(isinstance(event, Reset) for event in self.seen)

    @property
    def data(self) -> list[Any]:
        return [event.data for event in self.seen if isinstance(event, Message)]

    def reset(self, position: Position) -> None:
        self.position = position
        self.seen.append(Reset(self.room, position))

    def next(self, frame: Frame) -> None:
        """The next message, which must be the one after the last."""
        if frame["offset"] != self.position.offset + 1:
            self.problems.append(f"{self.room}: offset {frame['offset']} after {self.position}")
        self.position = Position(self.position.epoch, frame["offset"], frame["tag"])
        if frame["type"] == "message":
            user, ts, data = frame["user_id"], frame["ts"], frame["data"]
            self.seen.append(Message(self.room, *self.position, user, ts, data))

    def joined(self, reply: Frame) -> None:
        """The join reply: what it brings must lead from here to where it says it does."""
        at = Position(reply["epoch"], reply["offset"], reply["tag"])
        if reply["recovered"] is False:
            self.reset(at)
        for message in reply["messages"] if reply["recovered"] else ():
            self.next(message)
        if self.position != at:
            self.problems.append(f"{self.room}: the join reply ends at {self.position} and says {at}")
            self.position = at
        self.live = not reply.get("more", False)


class Peer:
    """One WebSocket at a time; ``connect`` again for the next one, with the same session."""

    def __init__(self, user: str) -> None:
        self.user = user
        self.session: str | None = None
        self.frames: list[Frame] = []
        self.views: dict[str, View] = {}
        self.problems: list[str] = []
        self.close_code: int | None = None
        self.pause_s = 0.0
        """Over 0: connects through the smallest window and reads a frame only every so many seconds."""
        self._ids = itertools.count(1)
        self._requests: dict[int, tuple[Frame, asyncio.Future[Frame]]] = {}
        self._waiting: list[tuple[Callable[[], object], asyncio.Future[None]]] = []
        self._socket: ClientConnection | None = None
        self._reader: asyncio.Task[None] | None = None

    # Connecting.

    async def connect(self, url: str, **headers: str) -> Frame:
        """Open a connection, ending the one before; the welcome."""
        await self.close()
        query = f"?user={self.user}" + (f"&session={self.session}" if self.session else "")
        through: Any = {"sock": await small_window(url), "max_queue": 1} if self.pause_s else {}
        self._socket = await connect(
            url + query,
            additional_headers={name.replace("_", "-"): value for name, value in headers.items()},
            compression=None,
            max_size=None,
            ping_interval=None,
            open_timeout=IN_TIME_S,
            close_timeout=1,
            proxy=None,
            **through,
        )
        self.close_code = None
        before = len(self.frames)
        self._reader = asyncio.create_task(self._read(self._socket))
        await self.until(lambda: len(self.frames) > before)
        welcome = self.frames[before]
        assert welcome["op"] == "welcome", welcome
        self.session = str(welcome["session"])
        return welcome

    async def close(self) -> None:
        """Leave properly. Idempotent."""
        if self._socket is not None:
            await self._socket.close()
        await self._end()

    async def abort(self) -> None:
        """Vanish: what was written is sent, then the socket is reset."""
        assert self._socket is not None
        self._socket.transport.abort()
        await self._end()

    async def _end(self) -> None:
        if self._reader is not None:
            await asyncio.wait((self._reader,))
            self._reader = None
        self._socket = None

    async def _read(self, ws: ClientConnection) -> None:
        try:
            while True:
                self._received(json.loads(await ws.recv(decode=False)))
                if self.pause_s:
                    await asyncio.sleep(self.pause_s)
        except ConnectionClosed:
            self.close_code = ws.close_code
        except Exception as error:  # the test's own fault must not look like silence
            self.problems.append(f"{self.user} cannot read: {error!r}")
        finally:
            for view in self.views.values():
                view.live = False
            for _, future in self._requests.values():
                if not future.done():
                    future.set_exception(ConnectionAbortedError("the connection ended before the reply came"))
                    future.exception()  # looked at: perhaps nobody waits
            self._requests.clear()
            self._look()

    # Asking.

    def post(self, op: str, **fields: Any) -> asyncio.Future[Frame]:
        """Send a request; the future gives its reply, or ConnectionError when the connection ends first."""
        assert self._socket is not None, "connect first"
        request = {"op": op, "id": next(self._ids), **fields}
        future: asyncio.Future[Frame] = asyncio.get_running_loop().create_future()
        self._requests[request["id"]] = request, future
        # Written at once, in the order of the calls, and never waited for: the server answers or it does not.
        protocol = self._socket.protocol
        protocol.send_text(json.dumps(request).encode())
        for data in protocol.data_to_send():
            self._socket.transport.write(data)
        return future

    async def ask(self, op: str, **fields: Any) -> Frame:
        """The reply, which may be a refusal."""
        return await asyncio.wait_for(self.post(op, **fields), IN_TIME_S)

    async def timed(self, op: str, **fields: Any) -> tuple[Frame, float]:
        """The reply and how long it took, in seconds."""
        start_s = time.monotonic()
        return await self.ask(op, **fields), time.monotonic() - start_s

    async def join(self, room: str, resume: Position | None = None, **fields: Any) -> Frame:
        """Join, page by page, until the room is live. The last reply."""
        while True:
            if resume is not None:
                fields["resume"] = resume._asdict()
            reply = await self.ask("join", room=room, **fields)
            if not reply["ok"] or not reply.get("more"):
                return reply
            resume = self.views[room].position

    async def resume(self, url: str) -> list[Frame]:
        """Connect again and take up every room where it was; the last join replies."""
        await self.connect(url)
        return [await self.join(view.room, view.position) for view in list(self.views.values())]

    async def until(self, predicate: Callable[[], object], timeout_s: float = IN_TIME_S) -> None:
        """Return once a frame (or the end of the connection) has made it true."""
        if predicate():
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((predicate, future))
        try:
            async with patience(timeout_s):
                await future
        except TimeoutError:
            where = {room: view.position for room, view in self.views.items()}
            last = self.frames[-3:]
            raise AssertionError(f"{self.user} saw no such thing within {timeout_s} s: {where}, {last}") from None

    def told(self, op: str) -> int:
        """How many frames of this op (``degraded``, ``restored``, ``drain``) came."""
        return sum(frame["op"] == op for frame in self.frames)

    # What arrives.

    def _received(self, frame: Frame) -> None:
        self.frames.append(frame)
        if frame["op"] == "reply":
            self._replied(frame)
        elif frame["op"] == "broadcast" and frame["type"] in ("message", "position", "reset"):
            view = self.views.get(frame["room"])
            if view is None or not view.live:
                self.problems.append(f"{self.user} is not in the room of {frame}")
            elif frame["type"] == "reset":
                view.reset(Position(frame["epoch"], frame["offset"], frame["tag"]))
            else:
                view.next(frame)
        self._look()

    def _replied(self, reply: Frame) -> None:
        request, future = self._requests.pop(reply["id"])
        room = request.get("room", "")
        if request["op"] == "leave" and reply["ok"]:
            self.views[room].live = False
        elif request["op"] == "join" and reply["ok"]:
            resume = request.get("resume")
            if resume is None:
                self.views[room] = View(room, Position(reply["epoch"], reply["offset"], reply["tag"]))
            elif room not in self.views:
                self.views[room] = View(room, Position(**resume))
            self.views[room].joined(reply)
        if not future.done():
            future.set_result(reply)

    def _look(self) -> None:
        for waiting in self._waiting[:]:
            if waiting[0]():
                self._waiting.remove(waiting)
                if not waiting[1].done():
                    waiting[1].set_result(None)

    def check(self) -> None:
        """AssertionError with whatever contradicts the promise."""
        problems = self.problems + [p for view in self.views.values() for p in view.problems]
        assert not problems, f"{self.user}: {problems[:5]}"


@asynccontextmanager
async def peer(url: str, user: str, *rooms: str) -> AsyncIterator[Peer]:
    """Connected and in these rooms; closed and checked at the end."""
    one = Peer(user)
    try:
        await one.connect(url)
        for room in rooms:
            reply = await one.join(room)
            assert reply["ok"], reply
        yield one
        one.check()
    finally:
        await one.close()

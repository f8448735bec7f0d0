"""The client: one connection that is kept up, and the rooms on it. machine.py decides, this file does it."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

from roomcast_client.effects import Connect, Done, Drop, Effect, Ended, Failed, NewToken, Send, Stop, Tell, TellRoom
from roomcast_client.errors import Closed, Disconnected, RoomcastError, Unavailable
from roomcast_client.events import ClientEvent, Connected, Position, Roster, Status, UserId
from roomcast_client.inbox import Inbox
from roomcast_client.link import CLOSE_TIMEOUT_S, End, Link
from roomcast_client.machine import Machine
from roomcast_client.policy import ABNORMAL, UNAUTHENTICATED, Verdict
from roomcast_client.room import REQUEST_TIMEOUT_S, Room
from roomcast_client.wire import decode_frame, encode_data, encode_frame

Token = str | Callable[[], str | Awaitable[str]]

OPEN_TIMEOUT_S: Final = 10.0
PING_S: Final = 10.0
"""Between two pings of this side; no answer for as long again: the link is dead."""
TICK_S: Final = 0.1
MAX_WAITING: Final = 1000
"""Requests without an answer. Callers of further ones wait."""
MAX_EPHEMERAL: Final = 64
"""Typing and receipts are left out while so many frames wait to be written."""


class Roomcast:
    """``async with Roomcast("wss://chat.example.com/ws", token=get_token) as rc: …``

    Entering waits for the first welcome: at most ``open_timeout_s``, then :class:`Unavailable`; what cannot get better
    raises :class:`Disconnected`. From then on the connection is kept up until the block ends: full-jitter back-off,
    ``retry_after_ms`` and close codes honoured, every room resumed where it was. After a fatal close every call raises.

    ``url`` may be several nodes: each attempt takes the next. ``token`` is a JWT or a function (async or not) that gets
    one, called for every connection and before the old token expires; it travels in a header. ``user`` is for servers
    in dev mode.
    """

    def __init__(
        self,
        url: str | Sequence[str],
        *,
        token: Token | None = None,
        user: UserId | None = None,
        open_timeout_s: float = OPEN_TIMEOUT_S,
        ping_s: float = PING_S,
    ) -> None:
        self._urls = [url] if isinstance(url, str) else list(url)
        for each in self._urls:
            if urlsplit(each).scheme not in ("ws", "wss"):
                raise ValueError(f"{each!r} is no WebSocket URL: write ws://host:port/ws or wss://host/ws")
        self._token = token
        self._user = user
        self._open_timeout_s = open_timeout_s
        self._ping_s = ping_s
        self._machine = Machine()
        self._rooms: dict[str, Room] = {}
        self._inbox: Inbox[ClientEvent] = Inbox()
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._last_ticket = 0
        self._places = asyncio.Semaphore(MAX_WAITING)
        self._link: Link | None = None
        self._connect_after_s: float | None = 0.0
        self._hurry = asyncio.Event()
        self._attempts = 0
        self._trouble = "nobody answered"
        self._welcomed: asyncio.Future[None] | None = None
        self._error: RoomcastError | None = None
        self._runner: asyncio.Task[None] | None = None
        self._refresher: asyncio.Task[None] | None = None
        self._ticker: asyncio.TimerHandle | None = None
        self.dropped_events = 0
        """Client events (not of rooms) that nobody read in time: the oldest of 1,000 makes room."""

    # Life.

    async def __aenter__(self) -> Roomcast:
        if self._runner is not None:
            raise RuntimeError("a Roomcast is entered once: make a new one")
        self._welcomed = asyncio.get_running_loop().create_future()
        self._runner = asyncio.create_task(self._run(), name="roomcast client")
        self._runner.add_done_callback(self._ended)
        try:
            async with asyncio.timeout(self._open_timeout_s):
                await asyncio.shield(self._welcomed)
        except TimeoutError:
            await self.close()
            text = f"no welcome from {self._urls[0]} within {self._open_timeout_s:g} s: {self._trouble}"
            raise Unavailable(text) from None
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Leave everything. What is not acknowledged yet fails with :class:`Closed`. Idempotent."""
        if self._error is None:
            self._apply(self._machine.stop(Closed("the client was closed")))
        for task in (self._runner, self._refresher):
            while task is not None and not task.done():
                task.cancel()  # again, if a library lost it; not before the close handshake had its time
                await asyncio.wait([task], timeout=CLOSE_TIMEOUT_S + 1)

    def reconnect(self) -> None:
        """Cut the connection, or stop waiting for the next attempt, and make a new one, on the next URL if there are
        several: for an application that knows that the network has changed. Nothing is lost by it."""
        self._machine.forgive()
        self._hurry.set()
        if self._link is not None:
            self._link.abort()

    @property
    def connected(self) -> bool:
        """Welcomed by a node, and not cut off since as far as is known."""
        return self._machine.connected

    @property
    def max_message(self) -> int:
        """The largest frame the server takes, in bytes."""
        return self._machine.max_message

    async def events(self) -> AsyncIterator[ClientEvent]:
        """What concerns no room: the connection's state, global presence, direct messages. At most once. For one
        reader at a time; ends with the client, raising why if that was fatal."""
        while True:
            try:
                event = await self._inbox.get()
            except Closed:
                return
            yield event

    # What the application asks for.

    async def join(
        self,
        name: str,
        *,
        presence: bool = False,
        history: int = 0,
        resume: Position | None = None,
        timeout_s: float = REQUEST_TIMEOUT_S,
    ) -> Room:
        """Be in the room until ``room.leave()``; returns when live. ``history``: the last n messages first.
        ``resume``: from a position kept earlier. ``presence``: who comes and goes. Raises Refused, or Unavailable
        after the time."""
        self._check()
        if name in self._rooms:
            raise ValueError(f"already in {name!r}: use the Room that join() gave, or leave it first")
        room = self._rooms[name] = Room(self, name, resume)
        ticket, answer = self._ticket()
        try:
            self._apply(
                self._machine.join(
                    ticket,
                    name,
                    self._now(),
                    presence=presence,
                    history=history,
                    resume=resume,
                    timeout_s=timeout_s,
                )
            )
            position = await answer
        except RoomcastError:
            self._rooms.pop(name, None)
            raise
        except BaseException:
            await room.leave()
            raise
        if room.position is None and not history:
            room.position = position
        return room

    async def members(self) -> list[UserId]:
        """All users online anywhere, where the server tells it (presence mode ``all``)."""
        return await self._members(None)

    async def broadcast(self, data: Any) -> None:
        """To every connection on the path, where the application allows it. At most once."""
        await self._request({"op": "broadcast"}, data=encode_data(data), timeout_s=REQUEST_TIMEOUT_S)

    # For its rooms.

    async def _leave(self, room: Room) -> None:
        if self._rooms.get(room.name) is not room or self._error is not None:
            return
        del self._rooms[room.name]
        ticket, answer = self._ticket()
        self._apply(self._machine.leave(ticket, room.name, self._now()))
        await answer

    async def _members(self, room: str | None) -> list[UserId]:
        users: list[UserId] = []
        frame: dict[str, Any] = {"op": "get_presence"} if room is None else {"op": "get_presence", "room": room}
        while True:
            roster: Roster = await self._request(frame, room=room, timeout_s=REQUEST_TIMEOUT_S)
            users += roster.users
            if roster.next is None:
                return users
            frame = frame | {"after": roster.next}

    async def _request(
        self, frame: dict[str, Any], *, timeout_s: float, data: str | None = None, room: str | None = None
    ) -> Any:
        self._check()
        async with self._places:
            self._check()
            ticket, answer = self._ticket()
            self._apply(self._machine.request(ticket, frame, self._now(), data=data, room=room, timeout_s=timeout_s))
            return await answer

    def _typing(self, room: str, typing: bool) -> None:
        if self._link is not None and self._link.waiting < MAX_EPHEMERAL:
            self._apply(self._machine.typing(room, typing, self._now()))

    def _receipt(self, room: str, status: Status, message_id: int | str) -> None:
        if self._link is None or self._link.waiting < MAX_EPHEMERAL:
            self._apply(self._machine.receipt(room, status, message_id))

    def _caught_up(self, room: str) -> None:
        self._apply(self._machine.unpark(room, self._now()))

    # The connection.

    async def _run(self) -> None:
        while self._connect_after_s is not None:
            with contextlib.suppress(TimeoutError):  # not wait_for: before Python 3.12 it can lose a cancellation
                async with asyncio.timeout(self._connect_after_s):
                    await self._hurry.wait()
            self._hurry.clear()
            self._connect_after_s = None
            end = await self._connect()
            if self._error is not None:
                return
            self._trouble = end.reason or f"closed with {end.code}"
            verdict = end.verdict
            if end.code == UNAUTHENTICATED and callable(self._token) and self._machine.session is not None:
                verdict = Verdict("")  # the token was good once: the next one may be again
            self._apply(self._machine.disconnected(verdict, end.code, end.reason, self._now(), random.random()))
            if verdict.fatal:
                text = f"{verdict.fatal} ({end.code}{': ' + end.reason if end.reason else ''})"
                self._apply(self._machine.stop(Disconnected(end.code, text)))

    async def _connect(self) -> End:
        url = self._urls[self._attempts % len(self._urls)]
        self._attempts += 1
        query = {"user": str(self._user)} if self._user is not None else {}
        if self._machine.session is not None:
            query["session"] = self._machine.session
        if query:
            url += ("&" if urlsplit(url).query else "?") + urlencode(query)
        try:
            token = await self._new_token()
        except Exception as error:
            return End(Verdict(""), ABNORMAL, f"the token function failed: {error!r}")
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        self._link = Link(url, headers, open_timeout_s=self._open_timeout_s, ping_s=self._ping_s)
        try:
            return await self._link.run(lambda: self._apply(self._machine.opened(self._now())), self._received)
        finally:
            self._link = None

    async def _new_token(self) -> str | None:
        if self._token is None or isinstance(self._token, str):
            return self._token
        token = self._token()
        return await token if inspect.isawaitable(token) else token

    async def _refresh(self) -> None:
        try:
            token = await self._new_token()
        except Exception as error:
            self._trouble = f"the token function failed: {error!r}"  # the close that follows asks it again
        else:
            if token is not None:
                self._apply(self._machine.auth(token, self._now()))

    def _received(self, data: bytes) -> None:
        try:
            frame = decode_frame(data)
        except ValueError:
            frame = None  # the machine drops a connection that speaks nonsense
        self._apply(self._machine.received(frame, self._now(), random.random()), len(data))

    def _tick(self) -> None:
        self._ticker = None
        self._apply(self._machine.tick(self._now(), random.random()))

    # Effects.

    def _apply(self, effects: list[Effect], size: int = 0) -> None:
        """Do what the machine says. ``size``: bytes of the frame it came from, for the limits of the inboxes."""
        share = size // len(effects) if effects else 0
        for effect in effects:
            match effect:
                case TellRoom(name, event):
                    room = self._rooms.get(name)
                    if room is not None and room._put(event, share):
                        self._apply(self._machine.park(name))
                case Send(frame, data):
                    if self._link is not None:
                        self._link.send(encode_frame(frame, data))
                case Done(ticket, value):
                    self._settle(ticket, value, None)
                case Failed(ticket, error):
                    self._settle(ticket, None, error)
                case Tell(event):
                    self._tell(event)
                case Connect(after_s):
                    self._connect_after_s = after_s
                case Drop(reason):
                    self._trouble = reason
                    if self._link is not None:
                        self._link.abort()
                case NewToken():
                    if self._refresher is None or self._refresher.done():
                        self._refresher = asyncio.create_task(self._refresh(), name="roomcast token")
                case Ended(name, error):
                    if (room := self._rooms.pop(name, None)) is not None:
                        room._end(error)
                case Stop(error):
                    self._stopped(error)
        if self._ticker is None and self._error is None and not self._machine.idle:
            self._ticker = asyncio.get_running_loop().call_later(TICK_S, self._tick)

    def _tell(self, event: ClientEvent) -> None:
        if isinstance(event, Connected) and self._welcomed is not None and not self._welcomed.done():
            self._welcomed.set_result(None)
        if self._inbox.full:
            self._inbox.drop_oldest()
            self.dropped_events += 1
        self._inbox.put(event)

    def _stopped(self, error: RoomcastError) -> None:
        if self._error is not None:
            return
        self._error = error
        self._connect_after_s = None
        if self._ticker is not None:
            self._ticker.cancel()
            self._ticker = None
        if self._welcomed is not None and not self._welcomed.done():
            if isinstance(error, Closed):
                self._welcomed.cancel()
            else:
                self._welcomed.set_exception(error)
        for room in self._rooms.values():
            room._end(error)
        self._inbox.end(error)
        for ticket in list(self._answers):
            self._settle(ticket, None, error)

    def _ended(self, runner: asyncio.Task[None]) -> None:
        """The runner's end, expected or not: nobody may wait for ever."""
        failure = None if runner.cancelled() else runner.exception()
        if failure is not None and self._error is None:
            error = RoomcastError(f"the client itself failed, please report it: {failure!r}")
            error.__cause__ = failure
            self._apply(self._machine.stop(error))

    def _ticket(self) -> tuple[int, asyncio.Future[Any]]:
        self._last_ticket += 1
        future = self._answers[self._last_ticket] = asyncio.get_running_loop().create_future()
        return self._last_ticket, future

    def _settle(self, ticket: int, value: Any, error: RoomcastError | None) -> None:
        future = self._answers.pop(ticket, None)
        if future is None or future.done():
            return
        if error is None:
            future.set_result(value)
        else:
            future.set_exception(error)

    def _check(self) -> None:
        if self._error is not None:
            raise self._error
        if self._runner is None:
            raise RuntimeError("not connected yet: use it inside `async with Roomcast(…) as rc:`")

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

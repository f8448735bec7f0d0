"""Keeps one connection up and does what the machine decides. Knows no application: events go into inboxes."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable
from typing import Any, Final

from roomcast_client.dialer import Dialer
from roomcast_client.effects import (
    Connect,
    Done,
    Drop,
    Effect,
    Ended,
    Entered,
    Failed,
    NewToken,
    Send,
    Stop,
    Tell,
    TellRoom,
)
from roomcast_client.errors import Closed, Disconnected, RoomcastError, Unavailable
from roomcast_client.events import ClientEvent, Connected, RoomEvent, Status
from roomcast_client.inbox import Inbox
from roomcast_client.link import CLOSE_TIMEOUT_S, End, Link
from roomcast_client.machine import Machine
from roomcast_client.mailboxes import Mailbox, Mailboxes
from roomcast_client.policy import ABNORMAL, UNAUTHENTICATED, Verdict
from roomcast_client.wire import decode_frame, encode_frame

TICK_S: Final = 0.1
MAX_WAITING: Final = 1000
"""Requests without an answer. Callers of further ones wait."""
MAX_EPHEMERAL: Final = 64
"""Typing and receipts are left out while so many frames wait to be written."""


class Engine:
    """``run`` between ``start`` and ``close``. After a fatal close ``check`` and all that asks raise why."""

    def __init__(self, dialer: Dialer) -> None:
        self.machine = Machine()
        self.inbox: Inbox[ClientEvent] = Inbox()
        self.dropped_events = 0
        self.rooms = Mailboxes()
        self._dialer = dialer
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._last_ticket = 0
        self._places = asyncio.Semaphore(MAX_WAITING)
        self._link: Link | None = None
        self._connect_after_s: float | None = 0.0
        self._hurry = asyncio.Event()
        self._trouble = "nobody answered"
        self._welcomed: asyncio.Future[None] | None = None
        self._error: RoomcastError | None = None
        self._runner: asyncio.Task[None] | None = None
        self._refresher: asyncio.Task[None] | None = None
        self._ticker: asyncio.TimerHandle | None = None

    # Life.

    async def start(self, timeout_s: float) -> None:
        """Return when welcomed. Raises Unavailable after the time, Disconnected for what cannot get better."""
        if self._runner is not None:
            raise RuntimeError("a Roomcast is entered once: make a new one")
        self._welcomed = asyncio.get_running_loop().create_future()
        self._runner = asyncio.create_task(self._run(), name="roomcast client")
        self._runner.add_done_callback(self._ended)
        try:
            async with asyncio.timeout(timeout_s):
                await asyncio.shield(self._welcomed)
        except TimeoutError:
            await self.close()
            text = f"no welcome from {self._dialer.urls[0]} within {timeout_s:g} s: {self._trouble}"
            raise Unavailable(text) from None
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """What is not acknowledged yet fails with :class:`Closed`. Idempotent."""
        if self._error is None:
            self.apply(self.machine.stop(Closed("the client was closed")))
        for task in (self._runner, self._refresher):
            while task is not None and not task.done():
                task.cancel()  # again, if a library lost it; not before the close handshake had its time
                await asyncio.wait([task], timeout=CLOSE_TIMEOUT_S + 1)

    def reconnect(self) -> None:
        self.machine.forgive()
        self._hurry.set()
        if self._link is not None:
            self._link.abort()

    def check(self) -> None:
        """Raise why nothing can be asked, if so."""
        if self._error is not None:
            raise self._error
        if self._runner is None:
            raise RuntimeError("not connected yet: use it inside `async with Roomcast(…) as rc:`")

    # Asking.

    async def ask(self, begin: Callable[[int, float], list[Effect]]) -> Any:
        """``begin`` gets a ticket and the time; what the machine answers under the ticket is returned or raised."""
        self._last_ticket += 1
        ticket = self._last_ticket
        answer = self._answers[ticket] = asyncio.get_running_loop().create_future()
        self.apply(begin(ticket, self._now()))
        return await answer

    async def request(
        self, frame: dict[str, Any], *, timeout_s: float, data: str | None = None, room: str | None = None
    ) -> Any:
        """As ``Machine.request``. Waits for its turn while ``MAX_WAITING`` are unanswered."""
        self.check()
        async with self._places:
            self.check()
            return await self.ask(
                lambda ticket, now: self.machine.request(ticket, frame, now, data=data, room=room, timeout_s=timeout_s)
            )

    def typing(self, room: str, typing: bool) -> None:
        if self._link is not None and self._link.waiting < MAX_EPHEMERAL:
            self.apply(self.machine.typing(room, typing, self._now()))

    def receipt(self, room: str, status: Status, message_id: int | str) -> None:
        if self._link is None or self._link.waiting < MAX_EPHEMERAL:
            self.apply(self.machine.receipt(room, status, message_id))

    # Rooms.

    async def leave(self, name: str, mailbox: Mailbox) -> None:
        if self._error is None and self.rooms.close(name, mailbox):
            await self.ask(lambda ticket, now: self.machine.leave(ticket, name, now))

    async def get(self, name: str, mailbox: Mailbox) -> RoomEvent:
        """The next event of a room. Raises what ended it."""
        event = await mailbox.inbox.get()
        if mailbox.parked and mailbox.inbox.low:
            mailbox.parked = False
            self.apply(self.machine.unpark(name, self._now()))
        return event

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
            if end.code == UNAUTHENTICATED and self._dialer.renewable and self.machine.denied():
                verdict = Verdict("")
            self.apply(self.machine.disconnected(verdict, end.code, end.reason, self._now(), random.random()))
            if verdict.fatal:
                text = f"{verdict.fatal} ({end.code}{': ' + end.reason if end.reason else ''})"
                self.apply(self.machine.stop(Disconnected(end.code, text)))

    async def _connect(self) -> End:
        try:
            self._link = await self._dialer.link(self.machine.session)
        except Exception as error:
            return End(Verdict(""), ABNORMAL, f"the token function failed: {error!r}")
        try:
            return await self._link.run(lambda: self.apply(self.machine.opened(self._now())), self._received)
        finally:
            self._link = None

    async def _refresh(self) -> None:
        try:
            token = await self._dialer.token()
        except Exception as error:
            self._trouble = f"the token function failed: {error!r}"  # the close that follows asks it again
        else:
            if token is not None:
                self.apply(self.machine.auth(token, self._now()))

    def _received(self, data: bytes) -> None:
        try:
            frame = decode_frame(data)
        except ValueError:
            frame = None  # the machine drops a connection that speaks nonsense
        self.apply(self.machine.received(frame, self._now(), random.random()), len(data))

    def _tick(self) -> None:
        self._ticker = None
        self.apply(self.machine.tick(self._now(), random.random()))

    # Effects.

    def apply(self, effects: list[Effect], size: int = 0) -> None:
        """Do what the machine says. ``size``: bytes of the frame it came from, for the limits of the inboxes."""
        share = size // len(effects) if effects else 0
        for effect in effects:
            self._do(effect, share)
        if self._ticker is None and self._error is None and not self.machine.idle:
            self._ticker = asyncio.get_running_loop().call_later(TICK_S, self._tick)

    def _do(self, effect: Effect, size: int) -> None:
        match effect:
            case TellRoom(name, event):
                if self.rooms.put(name, event, size):
                    self.apply(self.machine.park(name))
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
                if self._dialer.renewable and (self._refresher is None or self._refresher.done()):
                    self._refresher = asyncio.create_task(self._refresh(), name="roomcast token")
            case Entered(name, position):
                self.rooms.open(name, position, claimed=False)
            case Ended(name, error):
                self.rooms.end(name, error)
            case Stop(error):
                self._stopped(error)

    def _tell(self, event: ClientEvent) -> None:
        if isinstance(event, Connected) and self._welcomed is not None and not self._welcomed.done():
            self._welcomed.set_result(None)
        if self.inbox.full:
            self.inbox.drop_oldest()
            self.dropped_events += 1
        self.inbox.put(event)

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
        self.rooms.end_all(error)
        self.inbox.end(error)
        for ticket in list(self._answers):
            self._settle(ticket, None, error)

    def _ended(self, runner: asyncio.Task[None]) -> None:
        """The runner's end, expected or not: nobody may wait for ever."""
        failure = None if runner.cancelled() else runner.exception()
        if failure is not None and self._error is None:
            error = RoomcastError(f"the client itself failed, please report it: {failure!r}")
            error.__cause__ = failure
            self.apply(self.machine.stop(error))

    def _settle(self, ticket: int, value: Any, error: RoomcastError | None) -> None:
        future = self._answers.pop(ticket, None)
        if future is None or future.done():
            return
        if error is None:
            future.set_result(value)
        else:
            future.set_exception(error)

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

"""The client as the application holds it: rooms to join, events that concern no room. engine.py does the work."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

from roomcast_client.dialer import Dialer, Token
from roomcast_client.engine import Engine
from roomcast_client.errors import Closed, RoomcastError
from roomcast_client.events import ClientEvent, Position, UserId
from roomcast_client.room import REQUEST_TIMEOUT_S, Room, all_members
from roomcast_client.wire import encode_data

OPEN_TIMEOUT_S: Final = 10.0
PING_S: Final = 10.0
"""Between two pings of this side; no answer for as long again: the link is dead."""


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
        urls = [url] if isinstance(url, str) else list(url)
        self._open_timeout_s = open_timeout_s
        self._engine = Engine(Dialer(urls, token, user, open_timeout_s=open_timeout_s, ping_s=ping_s))

    # Life.

    async def __aenter__(self) -> Roomcast:
        await self._engine.start(self._open_timeout_s)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Leave everything. What is not acknowledged yet fails with :class:`Closed`. Idempotent."""
        await self._engine.close()

    def reconnect(self) -> None:
        """Cut the connection, or stop waiting for the next attempt, and make a new one, on the next URL if there are
        several: for an application that knows that the network has changed. Nothing is lost by it."""
        self._engine.reconnect()

    @property
    def connected(self) -> bool:
        """Welcomed by a node, and not cut off since as far as is known."""
        return self._engine.machine.connected

    @property
    def max_message(self) -> int:
        """The largest frame the server takes, in bytes."""
        return self._engine.machine.max_message

    @property
    def dropped_events(self) -> int:
        """Client events (not of rooms) that nobody read in time: the oldest of 1,000 makes room."""
        return self._engine.dropped_events

    async def events(self) -> AsyncIterator[ClientEvent]:
        """What concerns no room: the connection's state, global presence, direct messages. At most once. For one
        reader at a time; ends with the client, raising why if that was fatal."""
        while True:
            try:
                event = await self._engine.inbox.get()
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
        after the time.

        After a :class:`PutIn` it returns the room as it is, with all that came since, and looks at nothing else.
        """
        self._engine.check()
        put_in = self._engine.rooms.claim(name)
        if put_in is not None:
            return Room(self._engine, name, put_in)
        if self._engine.rooms.has(name):
            raise ValueError(f"already in {name!r}: use the Room that join() gave, or leave it first")
        mailbox = self._engine.rooms.open(name, resume)
        room = Room(self._engine, name, mailbox)
        try:
            position = await self._engine.ask(
                lambda ticket, now: self._engine.machine.join(
                    ticket, name, now, presence=presence, history=history, resume=resume, timeout_s=timeout_s
                )
            )
        except RoomcastError:
            self._engine.rooms.close(name, mailbox)
            raise
        except BaseException:
            await room.leave()
            raise
        if room.position is None and not history:
            room.position = position
        return room

    async def members(self) -> list[UserId]:
        """All users online anywhere, where the server tells it (presence mode ``all``)."""
        return await all_members(self._engine, None)

    async def broadcast(self, data: Any) -> None:
        """To every connection on the path, where the application allows it. At most once."""
        await self._engine.request({"op": "broadcast"}, data=encode_data(data), timeout_s=REQUEST_TIMEOUT_S)

"""A room as the application holds it."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from typing import Any

from roomcast_client.engine import Engine
from roomcast_client.errors import Closed, Refused
from roomcast_client.events import Ack, Message, Reset, RoomEvent, Roster, Status, UserId
from roomcast_client.mailboxes import Mailbox
from roomcast_client.wire import encode_data

SEND_TIMEOUT_S = 30.0
MAX_SEND_TIMEOUT_S = 110.0
"""The server remembers a retry key for two minutes; a later retry could be a second message."""
REQUEST_TIMEOUT_S = 10.0
_OVERHEAD_BYTES = 512
"""Room for the rest of the frame and what the server adds, below its ``max_message``."""


class Room:
    """Made by :meth:`Roomcast.join`. ``async for message in room`` gives every message of the log, once and in order; a
    message with ``after_reset`` follows a place where the log could not be followed. ``events()`` gives all there is.

    Reading too slowly costs nobody else anything: beyond 1,000 events or 4 MiB the rest stays on the server and is
    fetched when there is room again (within its history; otherwise there is a reset). What is not in the log (typing,
    presence) is not kept meanwhile.
    """

    def __init__(self, engine: Engine, name: str, mailbox: Mailbox) -> None:
        self.name = name
        self.position = mailbox.start
        """After the last message read here, or where the join began; None while none of the ``history`` asked for was
        read. Give it to ``join(resume=…)`` in a later life of the program."""
        self._engine = engine
        self._mailbox = mailbox

    async def __aiter__(self) -> AsyncIterator[Message]:
        async for event in self.events():
            if isinstance(event, Message):
                yield event

    async def events(self) -> AsyncIterator[RoomEvent]:
        """Everything that happens in the room. Ends when the room is left or the client closed; raises what the server
        said when it put this client out. For one reader at a time."""
        while True:
            try:
                event = await self._engine.get(self.name, self._mailbox)
            except Closed:
                return
            if isinstance(event, Message | Reset):
                self.position = event.position
            yield event

    async def send(
        self, data: Any, *, key: str | None = None, echo: bool = True, timeout_s: float = SEND_TIMEOUT_S
    ) -> Ack:
        """Put a message into the log; returns when it is there. Survives reconnects: sent again with the same retry
        key, so it is there once. ``echo=False``: do not bring it back to this client.

        Raises Refused (not there, and why), Unavailable (not there, in time), OutcomeUnknown (perhaps there); TypeError
        or ValueError for data that is no JSON. While 1,000 requests of this client wait, further ones wait here.
        """
        if not 0 < timeout_s <= MAX_SEND_TIMEOUT_S:
            raise ValueError(f"timeout_s={timeout_s}: more than 0 and at most {MAX_SEND_TIMEOUT_S:g}")
        text = encode_data(data)
        limit = self._engine.machine.max_message - _OVERHEAD_BYTES
        if len(text.encode()) > limit:
            raise Refused("too_large", f"{len(text.encode())} bytes of data; this server takes at most {limit}")
        frame: dict[str, Any] = {"op": "message", "room": self.name, "key": key or secrets.token_urlsafe(12)}
        if not echo:
            frame["echo"] = False
        ack = await self._engine.request(frame, data=text, room=self.name, timeout_s=timeout_s)
        assert isinstance(ack, Ack)
        return ack

    def typing(self, typing: bool = True) -> None:
        """Say that this user types; call it at every keystroke, few calls become frames. Ends by itself after 6 s."""
        self._engine.typing(self.name, typing)

    def read(self, message_id: int | str | None = None) -> None:
        """Say that this user has read up to this message; by default the last one taken from this room."""
        self._receipt("read", message_id)

    def delivered(self, message_id: int | str | None = None) -> None:
        """Say that this user's device has got up to this message; by default the last one taken from this room."""
        self._receipt("delivered", message_id)

    def _receipt(self, status: Status, message_id: int | str | None) -> None:
        if message_id is None:
            message_id = self.position.offset if self.position is not None else 0
        if message_id:
            self._engine.receipt(self.name, status, message_id)

    async def history(self, limit: int = 50, before: int | None = None) -> list[Message]:
        """The last ``limit`` (≤ 500) messages, or those before an offset, oldest first; fewer where the log has no
        more."""
        frame: dict[str, Any] = {"op": "history", "room": self.name, "limit": limit}
        if before is not None:
            frame["before"] = before
        answer = await self._engine.request(frame, room=self.name, timeout_s=REQUEST_TIMEOUT_S)
        assert isinstance(answer, list)
        return answer

    async def members(self) -> list[UserId]:
        """The users who are in the room now, all of them."""
        return await all_members(self._engine, self.name)

    async def leave(self) -> None:
        """Returns when nothing more of the room will come. What was received can still be read. Idempotent."""
        try:
            await self._engine.leave(self.name, self._mailbox)
        finally:
            self._mailbox.inbox.end(Closed(f"left {self.name!r}"))


async def all_members(engine: Engine, room: str | None) -> list[UserId]:
    """Who is in a room, or (``None``) online anywhere: all pages of it."""
    users: list[UserId] = []
    frame: dict[str, Any] = {"op": "get_presence"} if room is None else {"op": "get_presence", "room": room}
    while True:
        roster: Roster = await engine.request(frame, room=room, timeout_s=REQUEST_TIMEOUT_S)
        users += roster.users
        if roster.next is None:
            return users
        frame = frame | {"after": roster.next}

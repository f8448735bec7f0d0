"""What the application is told. The words are those of docs/protocol.md. Pure."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

UserId = int | str
"""42 and "42" are two users."""

Status = Literal["delivered", "read"]


class Position(NamedTuple):
    """A place in a room's log: after the message with this offset. Keep it to resume in a later process."""

    epoch: str
    offset: int
    tag: str


class Ack(NamedTuple):
    """The message is in the room's log, at this place."""

    epoch: str
    offset: int
    tag: str


class Message(NamedTuple):
    """One entry of a room's log. Its id is its offset."""

    room: str
    epoch: str
    offset: int
    tag: str
    user_id: UserId | None
    """None is the application itself or an anonymous connection."""
    ts: float
    """When the node took it, seconds since 1970."""
    data: Any
    after_reset: bool = False
    """The first message after the log behind the room was lost, trimmed or forked: messages before it may be missing.
    Fetch your state again."""

    @property
    def position(self) -> Position:
        return Position(self.epoch, self.offset, self.tag)


class Reset(NamedTuple):
    """The log could not be followed (lost, trimmed or forked); it stands at ``position`` now. Messages may be missing
    between the last one seen and the next one, which is one of the last ``history`` if that was asked for, or the one
    after ``position``. Fetch your state again."""

    room: str
    position: Position


class Mark(NamedTuple):
    """How far one user got in a room. ``read`` implies ``delivered``."""

    user_id: UserId
    delivered: int
    read: int


class Joined(NamedTuple):
    """The room is live: at the first join, and again after every reconnect or repair."""

    room: str
    recovered: bool | None
    """None: no resume was asked. True: nothing was missed. False: a :class:`Reset` came before."""
    replayed: int
    """Messages delivered on the way here."""
    receipts: tuple[Mark, ...]
    unread: int | None


class Presence(NamedTuple):
    """A user came or went: in a room, or (``room=None``) anywhere."""

    room: str | None
    user_id: UserId
    online: bool


class Roster(NamedTuple):
    """Who is here, replacing all that was known: of a room, or (``room=None``) anywhere."""

    room: str | None
    users: tuple[UserId, ...]
    total: int
    """How many they are; ``users`` may hold only the first 200."""
    typing: tuple[UserId, ...] = ()
    next: UserId | None = None
    """Where the list goes on, when it does."""


class Typing(NamedTuple):
    room: str
    user_id: UserId
    typing: bool


class Receipt(NamedTuple):
    room: str
    user_id: UserId
    message_id: int | str
    status: Status


RoomEvent = Message | Reset | Joined | Presence | Roster | Typing | Receipt


class Connected(NamedTuple):
    """Welcomed by a node. ``again`` is True for every time but the first."""

    node: str
    user_id: UserId | None
    again: bool


class Lost(NamedTuple):
    """The connection ended; the next attempt follows by itself after ``retry_in_s``."""

    code: int
    reason: str
    retry_in_s: float


class Draining(NamedTuple):
    """The node is about to close this connection; the client comes back ``retry_after_s`` after that."""

    retry_after_s: float


class Degraded(NamedTuple):
    """The node cannot reach Redis since this time (seconds since 1970): what is sent waits, nothing arrives."""

    since: float


class Restored(NamedTuple):
    """The node reaches Redis again."""


class Direct(NamedTuple):
    """To every connection of this user, from the application. At most once."""

    data: Any


class Broadcast(NamedTuple):
    """To every connection on the path. At most once."""

    path: str
    user_id: UserId | None
    data: Any


class PutIn(NamedTuple):
    """The server's application put this client into a room: ``await rc.join(room)`` gives it, live since
    ``position``. After a reconnect this client joins it by itself, if it may."""

    room: str
    position: Position


class PutOut(NamedTuple):
    """The server's application took this client out of a room: its events end with ``Removed``."""

    room: str


class Trouble(NamedTuple):
    """The server refused something that waits for no answer (typing, a receipt, a new token, a room that was live)."""

    room: str | None
    code: str
    message: str


ClientEvent = (
    Connected
    | Lost
    | Draining
    | Degraded
    | Restored
    | Direct
    | Broadcast
    | PutIn
    | PutOut
    | Trouble
    | Presence
    | Roster
)

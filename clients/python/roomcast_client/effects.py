"""What the state machine asks the world to do. Pure."""

from __future__ import annotations

from typing import Any, NamedTuple

from roomcast_client.errors import RoomcastError
from roomcast_client.events import ClientEvent, Position, RoomEvent


class Send(NamedTuple):
    """One frame; ``data`` is JSON text to be put in as its ``data``."""

    frame: dict[str, Any]
    data: str | None = None


class Tell(NamedTuple):
    """To whoever reads the client's events."""

    event: ClientEvent


class TellRoom(NamedTuple):
    """To whoever reads the room."""

    room: str
    event: RoomEvent


class Done(NamedTuple):
    ticket: int
    value: Any


class Failed(NamedTuple):
    ticket: int
    error: RoomcastError


class Entered(NamedTuple):
    """The server's application put this client into a room; what comes of it follows the position."""

    room: str
    position: Position


class Ended(NamedTuple):
    """The server put the application out of a room it was in."""

    room: str
    error: RoomcastError


class Connect(NamedTuple):
    after_s: float


class Drop(NamedTuple):
    """Cut the connection; ``disconnected`` follows."""

    reason: str


class NewToken(NamedTuple):
    """Get a fresh token and hand it to ``Machine.auth``."""


class Stop(NamedTuple):
    """It is over: nothing more will be asked for."""

    error: RoomcastError


Effect = Send | Tell | TellRoom | Done | Failed | Entered | Ended | Connect | Drop | NewToken | Stop

"""What can go wrong, as the application sees it. Every text says what to do next. Pure."""

from __future__ import annotations


class RoomcastError(Exception):
    """Anything this client raises on its own account."""


class Refused(RoomcastError):
    """The server answered with an error; ``code`` is one of docs/protocol.md ("Error codes"), such as ``forbidden``.
    It was not done."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}" if message else code)
        self.code = code
        self.message = message


class Unavailable(RoomcastError):
    """Not done in time, and certainly not half done: safe to try again."""


class OutcomeUnknown(RoomcastError):
    """A message was sent and no ack came in time: it may be in the log or not. Look into ``room.history()``."""


class Disconnected(RoomcastError):
    """The connection ended for good: trying again would not help. ``code`` is the WebSocket close code, or the HTTP
    status of a refused handshake."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class Removed(RoomcastError):
    """The server's application took this client out of the room. Join it again if that should be possible."""


class Closed(RoomcastError):
    """The client was closed, or the room left, by the application itself."""

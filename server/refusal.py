"""A request that is answered with an error (docs/protocol.md, "Error codes"). Pure."""

from __future__ import annotations

REFUSED_JOIN = "Unauthorized or invalid room join request"
"""The reference's words (Asok)."""


class Refusal(Exception):
    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def forbidden(action: str) -> Refusal:
    """What grants or authorizers do not allow in a room: join, publish, history or presence."""
    return Refusal("forbidden", REFUSED_JOIN if action == "join" else f"you may not use this room for: {action}")

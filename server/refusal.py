"""A request that is answered with an error (docs/protocol.md, "Error codes"). Pure."""

from __future__ import annotations

REFUSED_JOIN = "Unauthorized or invalid room join request"
"""The reference's words (Asok)."""


class Refusal(Exception):
    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message

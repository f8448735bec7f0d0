"""What waits to be published: single messages, and how many there are in all lines of a node together."""

from __future__ import annotations

import asyncio
from typing import Any

from broker.redis.append_calls import Piece


class Message:
    """One append, advance or publish on its way. ``given_s``: when it was called (monotonic; uvloop's own clock ticks
    in ms)."""

    __slots__ = ("future", "given_s", "piece", "size")

    def __init__(
        self,
        future: asyncio.Future[Any],
        piece: Piece,
        size: int,
        given_s: float,
    ) -> None:
        self.future = future
        self.piece = piece
        self.size = size
        self.given_s = given_s


class Backlog:
    """What waits in all lines of a node together."""

    __slots__ = ("messages", "size")

    def __init__(self) -> None:
        self.messages = 0
        self.size = 0

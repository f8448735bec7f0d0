"""What waits to be published: single messages, and how many there are in all lines of a node together."""

from __future__ import annotations

import asyncio
from typing import Any

from broker.redis.connection import Argument


class Message:
    """One append or publish on its way. ``given_s``: when it was called (monotonic; uvloop's own clock ticks in ms)."""

    __slots__ = ("arguments", "future", "given_s", "keys", "size")

    def __init__(
        self,
        future: asyncio.Future[Any],
        keys: tuple[Argument, ...],
        arguments: tuple[Argument, ...],
        size: int,
        given_s: float,
    ) -> None:
        self.future = future
        self.keys = keys
        self.arguments = arguments
        self.size = size
        self.given_s = given_s


class Backlog:
    """What waits in all lines of a node together."""

    __slots__ = ("messages", "size")

    def __init__(self) -> None:
        self.messages = 0
        self.size = 0

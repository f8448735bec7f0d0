"""What waits to be published: single messages, and how many there are in all lines of a node together."""

from __future__ import annotations

import asyncio
from typing import Any, NamedTuple


class Shape(NamedTuple):
    """How many keys and arguments a message of one kind gives to the script."""

    keys: int
    arguments: int


class Message:
    """One append, advance or publish on its way, its ``keys`` and ``arguments`` as they are written to Redis.
    ``given_s``: when it was called (monotonic; uvloop's own clock ticks in ms)."""

    __slots__ = ("arguments", "future", "given_s", "keys", "shape", "size")

    def __init__(
        self,
        future: asyncio.Future[Any],
        shape: Shape,
        keys: bytes,
        arguments: bytes,
        size: int,
        given_s: float,
    ) -> None:
        self.future = future
        self.shape = shape
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

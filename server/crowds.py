"""Large rooms: what is sent there is multiplied by all who are in it, so a room has a limit, not only a sender.

Members are counted on this node, and so is what its clients send: with connections spread evenly each node sees its
share of both. The application itself (HTTP, ``hub.publish``) is not limited.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from server.buckets import Buckets
from server.refusal import Refusal
from server.settings import Settings


class Crowds:
    def __init__(self, settings: Settings, members: Callable[[str], int]) -> None:
        """``members``: how many connections are in a room here."""
        self._large = settings.large_room_members
        self._members = members
        per_s = settings.large_room_messages_per_s
        self._messages = Buckets(per_s, max(1, round(per_s)))
        self._signals = Buckets(per_s, max(1, round(per_s)))

    def message(self, room: str) -> None:
        """Somebody publishes. Raises :class:`Refusal`; that counts against nobody: others may have used it up."""
        self._take(self._messages, room, "messages")

    def signal(self, room: str) -> None:
        """Somebody types or acknowledges."""
        self._take(self._signals, room, "typing events and receipts")

    def _take(self, buckets: Buckets, room: str, what: str) -> None:
        members = self._members(room)
        if members <= self._large:
            return
        wait_s = buckets.take(room, time.monotonic())
        if wait_s:
            text = f"the room has {members} members here and too many {what}: again in {wait_s:.2f} s"
            raise Refusal("rate_limited", text)

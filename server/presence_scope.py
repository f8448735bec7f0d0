"""What server/presence.py keeps of each set of users that is watched on this node."""

from __future__ import annotations

import asyncio

from broker.base import Change
from broker.follower import Follower


class Scope:
    """A room, or (``room`` None) everywhere."""

    __slots__ = (
        "again",
        "behind_since_s",
        "follower",
        "followers",
        "gathered",
        "kept",
        "listed",
        "live",
        "opened",
        "reading",
        "ready",
        "room",
        "timer",
        "whole",
    )

    def __init__(self, room: str | None) -> None:
        self.room = room
        self.follower = Follower()
        self.followers = 0
        self.live = False
        self.reading = False
        self.behind_since_s = 0.0
        """When it stopped being live, on the loop's clock; means nothing while it is."""
        self.again = False
        self.opened = False
        """Read once: from then on differences are told."""
        self.kept: list[Change] = []
        self.whole: tuple[list[str], bytes] | None = None
        """``listed``, and the event that says so to those who may have missed changes."""
        self.ready: asyncio.Future[None] | None = None
        self.listed: list[str] | None = None
        """The users, sorted, once somebody has asked; None again when they change."""
        self.gathered: dict[str, bool] = {}
        """User -> whether they were visible when last told."""
        self.timer: asyncio.TimerHandle | None = None

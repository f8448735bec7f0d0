"""One room the application is in: its log, and how far this connection has got with joining it. Pure."""

from __future__ import annotations

from typing import Any

from roomcast_client.events import Position, Status
from roomcast_client.room_log import RoomLog

TYPING_REFRESH_S = 3.0
"""The server forgets a typing user after six seconds."""


class Membership:
    """``live``: the server sends this connection what happens in the room, and takes messages for it.

    ``parked``: the application reads too slowly. What arrives is ignored, so that memory stays bounded and other rooms
    go on; once it has caught up the room is joined again from the position.
    """

    def __init__(self, name: str, *, presence: bool, history: int, resume: Position | None) -> None:
        self.name = name
        self.presence = presence
        self.history = history
        self.log = RoomLog(name, resume)
        self.live = False
        self.parked = False
        self.behind = False
        """Something was ignored while parked."""
        self.joining: int | None = None
        """The id of the join underway."""
        self.resumed = False
        """The join underway carries the position."""
        self.joined_at = 0.0
        """When it was sent."""
        self.retry_at: float | None = None
        self.failures = 0
        self.replayed = 0
        self.ticket: int | None = None
        """The application waits for the first join until ``deadline``."""
        self.deadline = 0.0
        self._marks: dict[Status, int] = {}
        self._marks_epoch = ""
        self._typing_at: float | None = None

    @property
    def unsettled(self) -> bool:
        """Waits for an answer, or for the time to ask again."""
        return self.joining is not None or self.retry_at is not None or self.ticket is not None

    def join(self, number: int, now: float) -> dict[str, Any]:
        """The request that enters the room, or moves to the log's position in it."""
        self.live = False
        self.joining, self.joined_at, self.retry_at = number, now, None
        frame: dict[str, Any] = {"op": "join", "id": number, "room": self.name}
        if self.presence:
            frame["presence"] = True
        position = self.log.position
        self.resumed = position is not None and not self.parked
        if position is not None and self.resumed:
            frame["resume"] = {"epoch": position.epoch, "offset": position.offset, "tag": position.tag}
        if self.history and not self.parked:
            frame["history"] = self.history
        return frame

    def disconnected(self) -> None:
        self.live = False
        self.joining = self.retry_at = self._typing_at = None
        self.failures = self.replayed = 0

    def mark(self, status: Status, message_id: int) -> bool:
        """Keep a receipt, to send it again after a reconnect. False if it says nothing new."""
        position = self.log.position
        epoch = position.epoch if position is not None else ""
        if epoch != self._marks_epoch:
            self._marks, self._marks_epoch = {}, epoch
        if message_id <= self._marks.get(status, 0):
            return False
        self._marks[status] = message_id
        return True

    def marks(self) -> dict[Status, int]:
        """What to say again to a server that may have missed it; nothing of another epoch."""
        position = self.log.position
        return self._marks if position is not None and position.epoch == self._marks_epoch else {}

    def typing(self, typing: bool, now: float) -> bool:
        """Whether this is worth a frame: the first one, a refresh, or the end."""
        if not typing:
            worth = self._typing_at is not None
            self._typing_at = None
            return worth
        if self._typing_at is not None and now - self._typing_at < TYPING_REFRESH_S:
            return False
        self._typing_at = now
        return True

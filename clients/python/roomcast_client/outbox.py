"""Requests on their way: who waits for a place, who for an answer, who is sent again after a reconnect. Pure.

Messages keep the order in which they were sent, through reconnects too. At most ``WINDOW`` are unanswered at a time: a
thousand waiting ones sent at once after a reconnect would break the node's limit of requests per second.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from roomcast_client.errors import OutcomeUnknown, RoomcastError, Unavailable
from roomcast_client.policy import backoff_s

WINDOW: Final = 32


@dataclass(slots=True, eq=False)
class Request:
    """``ticket`` is how the application's side knows it; tickets are in order of the calls."""

    ticket: int
    frame: dict[str, Any]
    data: str | None
    """JSON text of the frame's ``data``, encoded once."""
    room: str | None
    """Needs membership in this room."""
    deadline: float
    keyed: bool = False
    """A message with a retry key: sending it twice makes one entry."""
    maybe_done: bool = False
    """Was on its way when the connection ended, or the server did not know either."""
    sent_at: float = 0.0

    def expired(self) -> RoomcastError:
        if self.keyed and self.maybe_done:
            return OutcomeUnknown("sent, but no ack came in time: it may be in the log. Look into room.history()")
        return Unavailable("not sent in time: try again once the client is connected and the server is not degraded")


class Outbox:
    def __init__(self) -> None:
        self._waiting: list[Request] = []
        self._flying: dict[int, Request] = {}
        self._failures = 0
        self._paused_until = 0.0

    @property
    def empty(self) -> bool:
        return not self._waiting and not self._flying

    def add(self, request: Request) -> None:
        self._waiting.append(request)

    def launch(
        self, now: float, member: Callable[[str], bool], next_id: Callable[[], int]
    ) -> list[tuple[int, Request]]:
        """Those whose turn it is, with the id to send them under."""
        if not self._waiting or now < self._paused_until:
            return []
        launched, kept = [], []
        for request in self._waiting:
            if len(self._flying) < WINDOW and (request.room is None or member(request.room)):
                request.sent_at = now
                number = next_id()
                self._flying[number] = request
                launched.append((number, request))
            else:
                kept.append(request)
        self._waiting = kept
        return launched

    def answered(self, number: int) -> Request | None:
        """Take out what was sent under this id; None if nothing was (an answer from before, or to somebody else)."""
        return self._flying.pop(number, None)

    def succeeded(self) -> None:
        """The server does what it is asked: the next refusal is a first one."""
        self._failures = 0

    def flying(self, which: Callable[[Request], bool]) -> int | None:
        """The id of the first unanswered request that matches."""
        return next((number for number, request in self._flying.items() if which(request)), None)

    def again(self, request: Request, now: float, luck: float) -> None:
        """The server could not do it now: wait a little, then try once more, everything in order."""
        self._failures += 1
        self._paused_until = max(self._paused_until, now + 0.1 + backoff_s(min(self._failures, 3), luck))
        bisect.insort(self._waiting, request, key=lambda r: r.ticket)

    def disconnected(self) -> None:
        """What was on its way goes back to its place in the order."""
        for request in self._flying.values():
            request.maybe_done = True
        self._waiting = sorted([*self._flying.values(), *self._waiting], key=lambda r: r.ticket)
        self._flying.clear()
        self._paused_until = 0.0

    def take(self, which: Callable[[Request], bool]) -> list[Request]:
        """Take out all waiting requests that match."""
        taken = [request for request in self._waiting if which(request)]
        self._waiting = [request for request in self._waiting if not which(request)]
        return taken

    def take_all(self) -> list[Request]:
        """Take out everything, in order."""
        self.disconnected()
        return self.take(lambda request: True)

    def overdue(self, now: float) -> list[Request]:
        """Take out all whose time is over, on their way or not."""
        late = [number for number, request in self._flying.items() if now >= request.deadline]
        for number in late:
            self._flying[number].maybe_done = True
        return [self._flying.pop(number) for number in late] + self.take(lambda request: now >= request.deadline)

    def oldest_sent_at(self) -> float | None:
        """When the longest unanswered request was sent; None if none is on its way."""
        return min((request.sent_at for request in self._flying.values()), default=None)

"""The connection underway, as far as decisions go: is it welcomed, when is the next attempt, what is to be done. Pure.

What the machine's parts want done is gathered here, in order: ``flush`` hands it over.
"""

from __future__ import annotations

from typing import Any

from roomcast_client.effects import Connect, Done, Drop, Effect, Failed, Send, Tell, TellRoom
from roomcast_client.errors import RoomcastError
from roomcast_client.events import ClientEvent, Connected, Draining, Lost, RoomEvent
from roomcast_client.policy import MAX_DENIED, STABLE_S, Verdict, backoff_s
from roomcast_client.room_log import Frame


class Connection:
    def __init__(self) -> None:
        self.session: str | None = None
        """Sent with every connection, so that retry keys keep their meaning."""
        self.max_message = 64 * 1024
        self.open = False
        """The handshake is done, and it was not given up since."""
        self.connected = False
        """Open and welcomed."""
        self.opened_at = 0.0
        self._ever = False
        self._denied = 0
        self._failures = 0
        self._stopped = False
        self._retry_after_s: float | None = None
        self._last_id = 0
        self._effects: list[Effect] = []

    # Life.

    def opened(self, now: float) -> None:
        self.open, self.opened_at, self._retry_after_s = True, now, None

    def welcomed(self, frame: Frame) -> bool:
        """True if the session is another than before: the server knows no retry key of ours."""
        session, self.max_message = str(frame["session"]), int(frame["max_message"])
        strange = self.session is not None and session != self.session
        self.session = session
        self.connected = True
        self.tell(Connected(str(frame["node"]), frame.get("user_id"), self._ever))
        self._ever = True
        return strange

    def draining(self, frame: Frame) -> None:
        self.tell(Draining(self.back_off(frame)))

    def back_off(self, frame: Frame) -> float:
        """Come back so long (s) after the close that follows."""
        self._retry_after_s = after_s = min(float(frame["retry_after_ms"]), 60_000) / 1000
        return after_s

    def ended(self, now: float) -> None:
        """It is gone, or an attempt failed."""
        if self.connected and now - self.opened_at >= STABLE_S:
            self._failures = 0
        self.open = self.connected = False

    def again(self, verdict: Verdict, code: int, reason: str, luck: float) -> None:
        """Unless it is over for good: when to come back."""
        if verdict.fatal or self._stopped:
            return
        attempt = max(self._failures, verdict.least_attempt)
        self._failures = attempt + 1
        after_s = self._retry_after_s if self._retry_after_s is not None else backoff_s(attempt, luck)
        self.tell(Lost(code, reason, after_s))
        self._effects.append(Connect(after_s))

    def denied(self) -> bool:
        """A fresh token was refused. Is there hope for another? It was good once, or there were few."""
        self._denied += 1
        return self._ever or self._denied < MAX_DENIED

    def forgive(self) -> None:
        """What failed before says nothing about the next attempt: the back-off starts over."""
        self._failures = 0

    def stop(self) -> None:
        self._stopped = True
        self.open = self.connected = False

    def drop(self, reason: str) -> None:
        """Give it up: ``ended`` follows."""
        if self.open:
            self.open = self.connected = False
            self._effects.append(Drop(reason))

    # What is to be done.

    def next_id(self) -> int:
        self._last_id += 1
        return self._last_id

    def send(self, frame: dict[str, Any], data: str | None = None) -> None:
        self._effects.append(Send(frame, data))

    def tell(self, event: ClientEvent) -> None:
        self._effects.append(Tell(event))

    def tell_room(self, room: str, event: RoomEvent) -> None:
        self._effects.append(TellRoom(room, event))

    def done(self, ticket: int, value: Any) -> None:
        self._effects.append(Done(ticket, value))

    def failed(self, ticket: int, error: RoomcastError) -> None:
        self._effects.append(Failed(ticket, error))

    def do(self, effect: Effect) -> None:
        """Anything else."""
        self._effects.append(effect)

    def flush(self) -> list[Effect]:
        effects, self._effects = self._effects, []
        return effects

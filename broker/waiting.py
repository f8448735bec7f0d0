"""How long the oldest of what is sent in batches has been waiting for its confirmation. Pure: time comes in."""

from __future__ import annotations


class Waiting:
    """One batch is in flight at a time. Nothing waits at the beginning."""

    __slots__ = ("_in_flight_since_s", "_since_s")

    def __init__(self) -> None:
        self._since_s: float | None = None
        self._in_flight_since_s: float | None = None

    def stated(self, now_s: float) -> None:
        """There is something to be sent, perhaps beside what waits already."""
        if self._since_s is None:
            self._since_s = now_s

    def taken(self, everything: bool) -> None:
        """A batch goes out. What is left behind may be as old as the oldest in it."""
        self._in_flight_since_s = self._since_s
        if everything:
            self._since_s = None

    def confirmed(self) -> None:
        self._in_flight_since_s = None

    def returned(self) -> None:
        """The batch was lost or refused: what was in it waits on."""
        if self._in_flight_since_s is not None:
            self._since_s = self._in_flight_since_s
            self._in_flight_since_s = None

    def refused(self, now_s: float) -> None:
        """Everything has to be said again."""
        self.returned()
        self.stated(now_s)

    def for_s(self, now_s: float) -> float:
        """0 when nothing waits."""
        since_s = self._since_s if self._in_flight_since_s is None else self._in_flight_since_s
        return 0.0 if since_s is None else max(0.0, now_s - since_s)

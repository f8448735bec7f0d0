"""How much one connection may ask: token buckets for requests, for bytes and for reads. Pure: time comes in.

A request over the limit is refused with ``rate_limited`` and costs no more than reading it; a hundred of them within
ten seconds and the connection is closed with 4009. Messages to an application's own protocol cannot be refused, since
nobody but the application could say so: those over the limit make the node read on later, so nothing is lost, and who
pushes on all the same for ten seconds is closed with 4009, too.
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

REFUSALS, REFUSALS_WITHIN_S = 100, 10.0
STRAINED_S: Final = 10.0
"""How long messages to an application may come as fast as they are let in, and faster."""
RETRY_AFTER_S: Final = 10.0
"""What the clients that are closed are asked to wait."""

Verdict = Literal["ok", "refuse", "close"]


class Rates(NamedTuple):
    """Per connection; bursts are what may come at once after a silence."""

    requests_per_s: float
    requests_burst: int
    bytes_per_s: float
    bytes_burst: int
    reads_per_s: float = 10.0
    reads_burst: int = 20
    """Of history and presence: one of them may cost as much as a hundred messages."""


class Budget:
    """What one connection has left. Made with its first request: an idle connection has none."""

    __slots__ = ("_at_s", "_bytes", "_reads", "_reads_at_s", "_refused", "_refused_since_s", "_requests")

    def __init__(self, rates: Rates, now_s: float) -> None:
        self._requests: float = rates.requests_burst
        self._bytes: float = rates.bytes_burst
        self._reads: float = rates.reads_burst
        self._at_s = self._reads_at_s = now_s
        self._refused = 0
        self._refused_since_s = now_s

    def spend(self, size: int, rates: Rates, now_s: float) -> Verdict:
        """Take one request of ``size`` bytes. Refused ones cost nothing but count."""
        passed_s = now_s - self._at_s
        self._at_s = now_s
        requests = min(self._requests + passed_s * rates.requests_per_s, rates.requests_burst)
        left = min(self._bytes + passed_s * rates.bytes_per_s, rates.bytes_burst)
        if requests >= 1 and left >= size:
            self._requests, self._bytes = requests - 1, left - size
            return "ok"
        self._requests, self._bytes = requests, left
        return self._refuse(now_s)

    def spend_read(self, rates: Rates, now_s: float) -> Verdict:
        """Take one read, of a request that was paid for."""
        reads = min(self._reads + (now_s - self._reads_at_s) * rates.reads_per_s, rates.reads_burst)
        self._reads_at_s = now_s
        if reads >= 1:
            self._reads = reads - 1
            return "ok"
        self._reads = reads
        return self._refuse(now_s)

    def _refuse(self, now_s: float) -> Verdict:
        if now_s - self._refused_since_s > REFUSALS_WITHIN_S:
            self._refused, self._refused_since_s = 0, now_s
        self._refused += 1
        return "close" if self._refused >= REFUSALS else "refuse"


class Pace:
    """How fast the messages of one connection to an application are let in."""

    __slots__ = ("_bytes_s", "_messages_s", "_strained_since_s")

    def __init__(self) -> None:
        self._messages_s = self._bytes_s = 0.0
        """When the buckets will be full again."""
        self._strained_since_s: float | None = None

    def take(self, size: int, rates: Rates, now_s: float) -> float | None:
        """One message of so many bytes has come: how long (s) to read nothing more; None: it was told long enough."""
        self._messages_s = max(self._messages_s, now_s) + 1 / rates.requests_per_s
        self._bytes_s = max(self._bytes_s, now_s) + size / rates.bytes_per_s
        messages_s = rates.requests_burst / rates.requests_per_s
        bytes_s = rates.bytes_burst / rates.bytes_per_s
        over_s = max(self._messages_s - now_s - messages_s, self._bytes_s - now_s - bytes_s)
        if over_s <= 0:
            if self._messages_s - now_s < messages_s / 2 and self._bytes_s - now_s < bytes_s / 2:
                self._strained_since_s = None  # it has paused: half of what it may send at once is there again
            return 0.0
        if self._strained_since_s is None:
            self._strained_since_s = now_s
        return None if now_s - self._strained_since_s > STRAINED_S else over_s

"""How much one connection may ask: token buckets for requests and for bytes. Pure: time comes in.

A request over the limit is refused with ``rate_limited`` and costs no more than reading it; a hundred of them within
ten seconds and the connection is closed with 4009.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

REFUSALS, REFUSALS_WITHIN_S = 100, 10.0

Verdict = Literal["ok", "refuse", "close"]


class Rates(NamedTuple):
    """Per connection; bursts are what may come at once after a silence."""

    requests_per_s: float
    requests_burst: int
    bytes_per_s: float
    bytes_burst: int


class Budget:
    """What one connection has left. Made with its first request: an idle connection has none."""

    __slots__ = ("_at_s", "_bytes", "_refused", "_refused_since_s", "_requests")

    def __init__(self, rates: Rates, now_s: float) -> None:
        self._requests: float = rates.requests_burst
        self._bytes: float = rates.bytes_burst
        self._at_s = now_s
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
        if now_s - self._refused_since_s > REFUSALS_WITHIN_S:
            self._refused, self._refused_since_s = 0, now_s
        self._refused += 1
        return "close" if self._refused >= REFUSALS else "refuse"

"""How much one key may ask of one node: a token bucket per name. Pure: time comes in."""

from __future__ import annotations


class Bucket:
    """``per_s`` tokens come in every second, at most ``burst`` are kept."""

    __slots__ = ("_at_s", "_burst", "_left", "_per_s")

    def __init__(self, per_s: float, burst: int, now_s: float) -> None:
        self._per_s = per_s
        self._burst = burst
        self._left: float = burst
        self._at_s = now_s

    def take(self, count: int, now_s: float) -> float:
        """Take ``count`` tokens and return 0; or take none and return how many seconds to wait. More than ``burst`` at
        once are given when the bucket is full, and then owed."""
        self._left = min(self._left + (now_s - self._at_s) * self._per_s, self._burst)
        self._at_s = now_s
        missing = min(count, self._burst) - self._left
        if missing > 0:
            return missing / self._per_s
        self._left -= count
        return 0.0

"""How often something is said at most. Pure."""

from __future__ import annotations

GATHER_S = 0.01
"""Between two commands that tell Redis who comes and goes, in a storm: at 2,000 connects a second each carries 20
instead of one or two. ``python -m loadtests presence-storm`` counts."""
AT_ONCE = 30
"""So many go at once after a pause: only in a storm does anybody wait for company."""


class Pace:
    """``burst`` turns at once, and one more every ``every_s``: a token bucket, counted as the generic cell rate
    algorithm does (ITU-T I.371)."""

    __slots__ = ("_every_s", "_next_s", "_slack_s")

    def __init__(self, every_s: float = GATHER_S, burst: int = AT_ONCE) -> None:
        self._every_s = every_s
        self._slack_s = (burst - 1) * every_s
        self._next_s = float("-inf")

    def wait_s(self, now_s: float) -> float:
        """Take the next turn; it is after so long."""
        turn_s = max(now_s - self._slack_s, self._next_s)
        self._next_s = turn_s + self._every_s
        return max(0.0, turn_s - now_s)

"""How often something is said at most. Pure."""

from __future__ import annotations

GATHER_S = 0.01
"""Between two commands that tell Redis who connects and disconnects: at 2,000 connects a second each carries 20 of them
instead of one or two. A connect that comes alone waits for nothing. ``python -m loadtests presence-storm`` counts."""


class Pace:
    """One turn every ``every_s``; the first after a pause is at once."""

    __slots__ = ("_every_s", "_next_s")

    def __init__(self, every_s: float = GATHER_S) -> None:
        self._every_s = every_s
        self._next_s = float("-inf")

    def wait_s(self, now_s: float) -> float:
        """Take the next turn; it is after so long."""
        turn_s = max(now_s, self._next_s)
        self._next_s = turn_s + self._every_s
        return turn_s - now_s

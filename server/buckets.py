"""Token buckets by key: so much per second for every user, address or room. Pure: time comes in.

One number a key is enough (the generic cell rate algorithm): when its bucket will be full again. Full ones are
forgotten, so what is kept is bounded by how fast tokens are taken, and by ``MAX_KEYS`` whatever keys somebody makes up.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

MAX_KEYS: Final = 20_000
"""With more of them the one longest not used is forgotten: for it the bucket is full again."""


class Buckets:
    def __init__(self, per_s: float, burst: int) -> None:
        self._each_s = 1 / per_s
        self._spare_s = (burst - 1) / per_s
        self._full_at_s: OrderedDict[str, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._full_at_s)

    def wait_s(self, key: str, now_s: float) -> float:
        """Seconds until there is a token; 0 if there is one now."""
        full_at_s = self._full_at_s.get(key)
        return 0.0 if full_at_s is None else max(0.0, full_at_s - now_s - self._spare_s)

    def take(self, key: str, now_s: float) -> float:
        """Take a token and return 0, or take none and return how long to wait."""
        wait_s = self.wait_s(key, now_s)
        if wait_s > 0:
            return wait_s
        full_at_s = self._full_at_s.pop(key, now_s)
        self._full_at_s[key] = max(full_at_s, now_s) + self._each_s
        self._forget(now_s)
        return 0.0

    def _forget(self, now_s: float) -> None:
        """The two longest not used, if they are full: so the table shrinks faster than it grows."""
        for _ in range(2):
            key, full_at_s = next(iter(self._full_at_s.items()))
            if full_at_s > now_s and len(self._full_at_s) <= MAX_KEYS:
                return
            if len(self._full_at_s) > 1:
                del self._full_at_s[key]

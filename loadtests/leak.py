"""Whether something that should stay as it is has grown over a long run. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Final, NamedTuple

WARM_SHARE: Final = 0.2
"""The first fifth of a run counts for nothing: caches and buffers find their size."""
MIN_SAMPLES: Final = 10


class Bound(NamedTuple):
    """Both must be exceeded for it to count as growth."""

    share: float
    amount: float


def grown(values: Sequence[float], bound: Bound) -> bool:
    """Whether the last quarter after the warm-up lies higher than the first one by more than the bound. False for runs
    of fewer than ``MIN_SAMPLES`` samples, which say nothing."""
    if len(values) < MIN_SAMPLES:
        return False
    settled = values[round(len(values) * WARM_SHARE) :]
    quarter = max(1, len(settled) // 4)
    before, after = median(settled[:quarter]), median(settled[-quarter:])
    return after - before > max(bound.amount, bound.share * before)

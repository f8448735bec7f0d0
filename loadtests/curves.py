"""Curves of samples from what Python clients saw, in the shape of those of the native client. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

PER_OCTAVE: Final = 64
SLOT_S: Final = 0.1


def distribution(values: Iterable[float]) -> list[tuple[float, float]]:
    """How many values lie up to each edge and above the one before it; edges are 1.1 % apart. Values below 0 count as
    the smallest."""
    buckets = Counter(math.ceil(PER_OCTAVE * math.log2(max(value, 1e-3))) for value in values)
    return [(2 ** (bucket / PER_OCTAVE), count) for bucket, count in sorted(buckets.items())]


def per_second(times_s: Iterable[float], began_s: float, slot_s: float = SLOT_S) -> list[tuple[float, float]]:
    """How much happened per second in each slot from ``began_s`` to the last time; slots without anything are 0."""
    slots = Counter(int((at_s - began_s) / slot_s) for at_s in times_s if at_s >= began_s)
    return [(slot * slot_s, slots[slot] / slot_s) for slot in range(max(slots, default=-1) + 1)]


def merged(distributions: Sequence[Sequence[tuple[float, float]]]) -> list[tuple[float, float]]:
    """One distribution of all values."""
    total: Counter[float] = Counter()
    for each in distributions:
        for edge, count in each:
            total[edge] += count  # type: ignore[assignment]
    return sorted(total.items())


def quantile(values: Sequence[float], share: float) -> float:
    """The value that ``share`` of them do not exceed; 0 without any."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0

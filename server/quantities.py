"""Sizes and durations as people write them. Pure."""

from __future__ import annotations

import re

_NUMBER = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", re.ASCII)
_SIZES = {"": 1, "b": 1, "kib": 2**10, "mib": 2**20, "gib": 2**30, "kb": 10**3, "mb": 10**6, "gb": 10**9}
_DURATIONS = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}


def parse_size(value: object) -> int:
    """Bytes from ``65536``, ``"64KiB"``, ``"8 MB"``. ValueError says what is understood."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    match = _NUMBER.fullmatch(value) if isinstance(value, str) else None
    factor = _SIZES.get(match[2].lower()) if match else None
    if match is None or factor is None:
        raise ValueError("a size is a number of bytes or one with KiB, MiB, GiB, KB, MB or GB")
    return round(float(match[1]) * factor)


def parse_duration(value: object) -> float:
    """Seconds from ``300``, ``"1.5"``, ``"300s"``, ``"24h"``. ValueError says what is understood."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    match = _NUMBER.fullmatch(value) if isinstance(value, str) else None
    factor = _DURATIONS.get(match[2].lower()) if match else None
    if match is None or factor is None:
        raise ValueError("a time is a number of seconds or one with ms, s, m, h or d")
    return float(match[1]) * factor

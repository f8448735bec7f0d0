"""Sizes and durations as people write them."""

from __future__ import annotations

import pytest

from server.quantities import parse_duration, parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [(65536, 65536), ("65536", 65536), ("64KiB", 65536), ("8 MiB", 8 * 2**20), ("1gib", 2**30), ("1.5kb", 1500)],
)
def test_sizes_are_bytes(text: object, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    ("text", "seconds"),
    [(5, 5.0), (0.5, 0.5), ("300", 300.0), ("300s", 300.0), ("24h", 86400.0), ("250ms", 0.25), ("2 min", 120.0)],
)
def test_durations_are_seconds(text: object, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "x", "-1", "64 XiB", "1 2", "1e3", None, True, [1], "٣"])
def test_what_is_no_quantity_is_told_what_one_is(text: object) -> None:
    with pytest.raises(ValueError, match="a size is a number of bytes"):
        parse_size(text)
    with pytest.raises(ValueError, match="a time is a number of seconds"):
        parse_duration(text)

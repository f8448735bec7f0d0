"""The token bucket against what it promises, whatever is asked when."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.api.rates import Bucket


def test_the_burst_at_once_then_the_rate() -> None:
    bucket = Bucket(10, 3, 0.0)
    assert [bucket.take(1, 0.0) for _ in range(3)] == [0, 0, 0]
    assert bucket.take(1, 0.0) == pytest.approx(0.1)
    assert bucket.take(1, 0.05) == pytest.approx(0.05), "a refusal costs nothing"
    assert bucket.take(1, 0.1) == 0
    assert bucket.take(3, 100.0) == 0
    assert bucket.take(1, 100.0) > 0, "no more than the burst is kept"


def test_more_than_the_burst_is_given_to_a_full_bucket_and_owed() -> None:
    bucket = Bucket(10, 3, 0.0)
    assert bucket.take(13, 0.0) == 0
    assert bucket.take(1, 0.0) == pytest.approx(1.1)
    assert bucket.take(1, 1.1) == pytest.approx(0, abs=1e-9)


@given(
    st.floats(0.1, 1000),
    st.integers(1, 100),
    st.lists(st.tuples(st.floats(0, 10), st.integers(1, 100)), max_size=50),
)
def test_never_more_than_the_burst_and_the_rate_and_waiting_as_told_helps(
    per_s: float, burst: int, asked: list[tuple[float, int]]
) -> None:
    bucket, now_s, taken, largest = Bucket(per_s, burst, 0.0), 0.0, 0, 0
    for after_s, count in asked:
        now_s += after_s
        wait_s = bucket.take(count, now_s)
        if wait_s:
            now_s += wait_s + 1e-6
            assert bucket.take(count, now_s) < 1e-6
        taken, largest = taken + count, max(largest, count)
        assert taken <= burst + now_s * per_s + largest + 1e-3

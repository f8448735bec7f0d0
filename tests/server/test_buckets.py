"""Token buckets by key, with the clock in hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server import buckets
from server.buckets import Buckets


def test_a_burst_passes_and_then_the_rate_holds() -> None:
    table = Buckets(2.0, 5)
    assert [table.take("a", 100.0) for _ in range(5)] == [0.0] * 5
    assert table.take("a", 100.0) == pytest.approx(0.5)
    assert table.wait_s("a", 100.25) == pytest.approx(0.25)
    assert table.take("a", 100.51) == 0.0
    assert table.take("a", 100.51) > 0
    assert table.take("b", 100.51) == 0.0, "keys do not know each other"


def test_one_that_was_never_asked_for_is_full() -> None:
    assert Buckets(1.0, 1).wait_s("nobody", 5.0) == 0.0


def test_full_ones_are_forgotten() -> None:
    table = Buckets(1.0, 2)
    for number in range(1000):
        table.take(str(number), number / 10)
    assert len(table) < 30


def test_many_keys_at_once_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buckets, "MAX_KEYS", 100)
    table = Buckets(0.001, 1)
    for number in range(1000):
        table.take(str(number), 0.0)
    assert len(table) == 100
    assert table.take("999", 0.0) > 0 and table.take("0", 0.0) == 0.0


@given(st.lists(st.floats(0, 3), min_size=1, max_size=200), st.floats(0.1, 50), st.integers(1, 20))
def test_never_more_than_the_rate_and_the_burst(pauses: list[float], per_s: float, burst: int) -> None:
    table, now_s, taken = Buckets(per_s, burst), 0.0, 0
    for pause_s in pauses:
        now_s += pause_s
        wait_s = table.take("a", now_s)
        taken += not wait_s
        assert taken <= burst + per_s * now_s + 1e-6
        if wait_s:
            assert table.wait_s("a", now_s + wait_s + 1e-9) == pytest.approx(0.0, abs=1e-9)

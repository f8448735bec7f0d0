"""Token buckets, with the clock in hand."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from server.limits import REFUSALS, REFUSALS_WITHIN_S, Budget, Rates

RATES = Rates(requests_per_s=50, requests_burst=100, bytes_per_s=1000, bytes_burst=5000)


def test_a_burst_passes_and_then_the_rate_holds() -> None:
    budget = Budget(RATES, 0.0)
    assert [budget.spend(1, RATES, 0.0) for _ in range(101)] == ["ok"] * 100 + ["refuse"]
    assert budget.spend(1, RATES, 0.01) == "refuse"
    assert budget.spend(1, RATES, 0.03) == "ok"
    assert budget.spend(1, RATES, 0.03) == "refuse"


def test_bytes_count_apart_from_requests() -> None:
    budget = Budget(RATES, 0.0)
    assert budget.spend(4000, RATES, 0.0) == "ok"
    assert budget.spend(4000, RATES, 0.0) == "refuse"
    assert budget.spend(1000, RATES, 0.0) == "ok"
    assert budget.spend(1000, RATES, 1.0) == "ok"


def test_whoever_goes_on_is_closed() -> None:
    budget = Budget(RATES, 0.0)
    for _ in range(100):
        budget.spend(1, RATES, 0.0)
    verdicts = [budget.spend(1, RATES, 0.0) for _ in range(REFUSALS)]
    assert verdicts == ["refuse"] * (REFUSALS - 1) + ["close"]


def test_now_and_then_over_the_limit_is_not_closed() -> None:
    budget = Budget(RATES, 0.0)
    now = 0.0
    for _ in range(20):
        now += REFUSALS_WITHIN_S + 1
        verdicts = [budget.spend(1, RATES, now) for _ in range(150)]
        assert "close" not in verdicts and verdicts.count("refuse") == 50


@given(st.lists(st.tuples(st.floats(0, 1), st.integers(0, 2000)), max_size=300))
def test_never_more_than_the_rate_and_the_burst(requests: list[tuple[float, int]]) -> None:
    budget = Budget(RATES, 0.0)
    now, passed, size_passed = 0.0, 0, 0
    for pause, size in requests:
        now += pause
        if budget.spend(size, RATES, now) == "ok":
            passed += 1
            size_passed += size
        assert passed <= RATES.requests_burst + RATES.requests_per_s * now + 1e-6
        assert size_passed <= RATES.bytes_burst + RATES.bytes_per_s * now + 1e-6

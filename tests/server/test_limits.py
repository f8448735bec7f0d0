"""Token buckets, with the clock in hand."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from server.limits import REFUSALS, REFUSALS_WITHIN_S, Budget, Pace, Rates

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


def test_reads_count_apart_and_their_refusals_count_too() -> None:
    budget = Budget(RATES, 0.0)
    assert [budget.spend_read(RATES, 0.0) for _ in range(21)] == ["ok"] * 20 + ["refuse"]
    assert budget.spend(1, RATES, 0.0) == "ok"
    assert budget.spend_read(RATES, 0.11) == "ok"
    assert [budget.spend_read(RATES, 0.11) for _ in range(REFUSALS - 1)] == ["refuse"] * (REFUSALS - 2) + ["close"]


def pushing(pace: Pace, since_s: float, until_s: float, size: int = 1) -> tuple[int, float | None]:
    """Send as fast as one is let: how many came in, and the last verdict."""
    count, now_s = 0, since_s
    while now_s < until_s:
        hold_s = pace.take(size, RATES, now_s)
        count += 1
        if hold_s is None:
            return count, None
        now_s += hold_s
    return count, 0.0


def test_messages_to_an_application_are_let_in_at_a_pace() -> None:
    assert pushing(Pace(), 1000.0, 1005.0)[0] in range(349, 353)  # a burst of 100, and then 50 a second
    assert pushing(Pace(), 1000.0, 1005.0, size=1000)[0] in range(9, 12), "5000 bytes, and then 1000 a second"


def test_who_pushes_on_is_closed_after_a_while() -> None:
    count, verdict = pushing(Pace(), 1000.0, 2000.0)
    assert verdict is None and count in range(598, 605)


def test_who_pauses_is_not() -> None:
    pace = Pace()
    for start_s in range(0, 100, 10):
        assert pushing(pace, start_s, start_s + 8.0)[1] == 0.0
    assert pushing(pace, 200.0, 300.0)[1] is None


def test_who_keeps_to_the_rate_is_never_held() -> None:
    pace = Pace()
    for number in range(5000):
        assert pace.take(10, RATES, number / 49) == 0.0


@given(st.lists(st.tuples(st.floats(0, 1), st.integers(0, 2000)), max_size=300))
def test_an_obedient_reader_lets_in_no_more_than_the_rate_and_the_burst(messages: list[tuple[float, int]]) -> None:
    pace, now_s, count, total = Pace(), 0.0, 0, 0
    for pause_s, size in messages:
        now_s += pause_s
        hold_s = pace.take(size, RATES, now_s)
        if hold_s is None:
            return
        now_s += hold_s
        count, total = count + 1, total + size
        assert count <= RATES.requests_burst + RATES.requests_per_s * now_s + 1e-3
        assert total <= RATES.bytes_burst + RATES.bytes_per_s * now_s + 1e-3

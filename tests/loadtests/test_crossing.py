"""Which rate half fills the core of two nodes, from how busy it was at two others."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtests.crossing import Busy, Crossing, rate_for
from loadtests.errors import SetupError


@given(
    idle=st.floats(0, 0.2),
    per_message=st.floats(1e-5, 2e-3),
    rates=st.tuples(st.integers(1, 99), st.integers(100, 5000)),
)
def test_what_comes_with_a_message_and_what_is_there_without_any_are_told_apart(
    idle: float, per_message: float, rates: tuple[int, int]
) -> None:
    low, high = (Busy(rate, idle + rate * per_message) for rate in rates)
    assert rate_for(0.5, low, high) == pytest.approx((0.5 - idle) / per_message, rel=1e-3, abs=1)


@pytest.mark.parametrize(
    ("low", "high"),
    [
        (Busy(100, 0.1), Busy(400, 0.1)),
        (Busy(100, 0.2), Busy(400, 0.1)),
        (Busy(100, 0.1), Busy(100, 0.2)),
        (Busy(0, 0), Busy(100, 0)),
    ],
)
def test_a_core_that_did_not_become_busier_tells_nothing(low: Busy, high: Busy) -> None:
    with pytest.raises(SetupError, match="give --rate"):
        rate_for(0.5, low, high)


def test_the_goal_is_judged_at_half_load_only() -> None:
    assert [str(goal) for goal in Crossing().goals()] == ["≤ 2 × baseline at half load"]
    assert Crossing(rate=800).goals() == Crossing(subscribers=50).goals() == []

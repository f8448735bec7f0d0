"""Distributions and rates from single values, and quantiles."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadtests.curves import distribution, merged, per_second, quantile

values = st.lists(st.floats(1e-3, 1e9), max_size=50)


@settings(deadline=None)
@given(values, values)
def test_a_distribution_counts_every_value_just_below_its_edge(one: list[float], other: list[float]) -> None:
    found = merged([distribution(one), distribution(other)])
    assert found == distribution([*one, *other])
    assert sum(count for _, count in found) == len(one) + len(other)
    for value in one:
        edge = min(edge for edge, _ in found if edge >= value * (1 - 1e-9))
        assert edge <= value * 1.011


def test_what_cannot_be_is_the_smallest() -> None:
    assert distribution([-5.0, 0.0]) == distribution([1e-3] * 2)


def test_rates_have_a_slot_for_every_tenth_of_a_second() -> None:
    slots, rates = zip(*per_second([10.0, 10.05, 10.31, 9.0], 10.0), strict=True)
    assert slots == pytest.approx((0, 0.1, 0.2, 0.3)) and rates == pytest.approx((20, 0, 0, 10))
    assert per_second([], 10.0) == []


@pytest.mark.parametrize(("share", "value"), [(0, 1), (0.5, 3), (0.99, 5), (1, 5)])
def test_quantiles(share: float, value: float) -> None:
    assert quantile([5, 1, 4, 2, 3], share) == value
    assert quantile([], share) == 0

"""The fit finds what was planted, and never says that something costs less than nothing."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadtests.leastsquares import fit

ROWS = [(1.0, 0.1, 0.0), (1.0, 0.01, 0.0), (0.2, 0.001, 0.8), (0.5, 0.1, 0.5), (1.0, 0.0001, 0.0)]
costs = st.one_of(st.just(0.0), st.floats(0.1, 100))


@settings(deadline=None)
@given(st.tuples(st.floats(0.1, 100), costs, costs))
def test_planted_costs_are_found(planted: tuple[float, float, float]) -> None:
    values = [sum(a * x for a, x in zip(row, planted, strict=True)) for row in ROWS]
    assert fit(ROWS, values) == pytest.approx(planted, rel=1e-3, abs=1e-3)


@settings(deadline=None)
@given(st.lists(st.floats(0.01, 100), min_size=5, max_size=5))
def test_nothing_costs_less_than_nothing_and_no_single_cost_fits_better(values: list[float]) -> None:
    found = fit(ROWS, values)
    assert min(found) >= 0

    def error(factors: list[float]) -> float:
        return sum(
            (sum(a * x for a, x in zip(row, factors, strict=True)) / value - 1) ** 2
            for row, value in zip(ROWS, values, strict=True)
        )

    for place, factor in enumerate(found):
        for nearby in (factor * 0.99, factor * 1.01 + 1e-4):
            assert error(found) <= error([*found[:place], nearby, *found[place + 1 :]]) + 1e-6


def test_too_few_measurements_are_refused() -> None:
    with pytest.raises(ValueError, match="2 measurements cannot give 3"):
        fit(ROWS[:2], [1.0, 1.0])

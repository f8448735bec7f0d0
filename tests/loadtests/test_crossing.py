"""At which rate the goal of ``cross-node`` is judged."""

from __future__ import annotations

import pytest

from loadtests.crossing import Crossing, half_load


@pytest.mark.parametrize(("cpu_us", "rate"), [(1000.0, 500), (250.0, 2000), (1e9, 1), (0.0, 500_000)])
def test_half_a_core_is_used_by_so_many_messages(cpu_us: float, rate: int) -> None:
    assert half_load(cpu_us) == rate


def test_the_goal_is_judged_at_half_load_only() -> None:
    assert [str(goal) for goal in Crossing().goals()] == ["≤ 2 × baseline at half load"]
    assert Crossing(rate=800).goals() == Crossing(subscribers=50).goals() == []

"""Turns that are taken."""

from __future__ import annotations

import pytest

from broker.pace import Pace


def test_a_few_wait_for_nothing_and_a_crowd_comes_in_turns() -> None:
    pace = Pace(0.25, burst=2)
    assert [pace.wait_s(10.0) for _ in range(5)] == [0, 0, 0.25, 0.5, 0.75]
    assert pace.wait_s(11.0) == 0, "its turn has come"
    assert pace.wait_s(11.0) == 0.25
    assert [pace.wait_s(20.0) for _ in range(3)] == [0, 0, 0.25], "what nobody took is kept, but no more than a burst"


def test_alone_each_has_its_turn() -> None:
    pace = Pace(0.25, burst=1)
    assert [pace.wait_s(now_s) for now_s in (1.0, 1.125, 1.25, 3.0)] == [0, 0.125, 0.25, 0]


@pytest.mark.parametrize("gap_s", [0.0, 0.125, 0.5])
def test_in_any_second_there_are_four_turns_and_a_burst(gap_s: float) -> None:
    pace, now_s, turns = Pace(0.25, burst=3), 0.0, list[float]()
    for _ in range(40):
        turns.append(now_s + pace.wait_s(now_s))
        now_s += gap_s
    for turn in turns:
        assert sum(turn <= other < turn + 1 for other in turns) <= 4 + 3

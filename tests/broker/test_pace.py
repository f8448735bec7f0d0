"""Turns that are taken."""

from __future__ import annotations

from itertools import pairwise

import pytest

from broker.pace import Pace


def test_who_comes_alone_waits_for_nothing_and_a_crowd_comes_in_turns() -> None:
    pace = Pace(0.25)
    assert pace.wait_s(10.0) == 0
    assert pace.wait_s(10.125) == 0.125
    assert pace.wait_s(10.25) == 0.25
    assert pace.wait_s(10.5) == 0.25
    assert pace.wait_s(11.0) == 0, "what nobody took is not kept"


@pytest.mark.parametrize("gap_s", [0.0, 0.125, 0.5])
def test_no_two_turns_are_closer(gap_s: float) -> None:
    pace, now_s, turns = Pace(0.25), 0.0, []
    for _ in range(20):
        turns.append(now_s + pace.wait_s(now_s))
        now_s += gap_s
    assert all(later - earlier >= 0.25 for earlier, later in pairwise(turns))

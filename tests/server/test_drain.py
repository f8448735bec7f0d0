"""The pace of a drain."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from server.drain import CLOSES_PER_S, STEP_S, pace


@given(st.integers(1, 20_000), st.floats(0, 30))
def test_everybody_is_sent_away_within_the_time_and_evenly(connections: int, drain_s: float) -> None:
    steps = list(pace(connections, drain_s))
    assert sum(steps) == connections
    assert (len(steps) - 1) * STEP_S <= drain_s + 1e-9
    assert max(steps) - min(steps) <= 1


def test_few_connections_do_not_take_the_whole_time() -> None:
    steps = list(pace(10, 20.0))
    assert sum(steps) == 10 and len(steps) * STEP_S <= 10 / CLOSES_PER_S + STEP_S


def test_many_connections_take_the_whole_time() -> None:
    assert len(list(pace(5000, 20.0))) == 200


def test_without_time_all_go_at_once() -> None:
    assert list(pace(500, 0.0)) == [500]

from __future__ import annotations

import pytest

from loadtests.result import Column, Goal, Result, Sample


def result(*samples: Sample, goals: tuple[Goal, ...] = ()) -> Result:
    return Result("fanout", {"subscribers": 2}, (Column("speed", "speed/s"),), goals, samples)


def test_medians_and_their_ratio_are_per_server() -> None:
    speeds = [("node", 1.0), ("baseline", 10.0), ("node", 9.0), ("baseline", 20.0), ("node", 8.0), ("baseline", 16.0)]
    found = result(*(Sample(server, {"speed": speed}) for server, speed in speeds))
    assert (found.median("node", "speed"), found.median("baseline", "speed"), found.ratio("speed")) == (8, 16, 0.5)


def test_there_is_no_ratio_to_nothing() -> None:
    assert result(Sample("node", {"speed": 1.0})).ratio("speed") is None
    assert result(Sample("node", {"speed": 1.0}), Sample("baseline", {"speed": 0.0})).ratio("speed") is None


@pytest.mark.parametrize(
    ("goal", "met", "text"),
    [
        (Goal("speed", "ratio", 0.5, None, "1 × 1"), True, "≥ 0.5 × baseline at 1 × 1"),
        (Goal("speed", "ratio", 0.51, None, "1 × 1"), False, "≥ 0.51 × baseline at 1 × 1"),
        (Goal("speed", "value", None, 5, "8,000"), True, "≤ 5 at 8,000"),
        (Goal("speed", "value", None, 4.9, "8,000"), False, "≤ 4.9 at 8,000"),
    ],
)
def test_a_goal_bounds_the_value_or_the_ratio(goal: Goal, met: bool, text: str) -> None:
    found = result(Sample("node", {"speed": 5.0}), Sample("baseline", {"speed": 10.0}), goals=(goal,))
    measured = found.measured(goal)
    assert measured is not None
    assert (goal.met(measured), str(goal)) == (met, text)
    assert found.as_json()["goals"] == [
        {"goal": text, "figure": "speed", "of": goal.of, "measured": measured, "met": met}
    ]


@pytest.mark.parametrize("fault", ["lost", "duplicated", "reordered", "early", "closed", "failed"])
@pytest.mark.parametrize("server", ["node", "baseline"])
def test_one_fault_in_any_sample_is_told(fault: str, server: str) -> None:
    assert result(Sample("node", {"speed": 1.0, fault: 0})).faults() == []
    assert result(Sample("node", {}), Sample(server, {fault: 1})).faults() == [f"sample 2 ({server}): 1 {fault}"]

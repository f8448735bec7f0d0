"""The age of the oldest that waits, against a model that remembers everything."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from broker.waiting import Waiting

STEPS = st.lists(st.sampled_from(["state", "take", "take some", "confirm", "return", "refuse"]), max_size=30)


@given(STEPS)
def test_it_is_the_age_of_the_oldest_and_never_less(steps: list[str]) -> None:
    waiting, now_s = Waiting(), 0.0
    queued: list[float] = []
    in_flight: list[float] | None = None
    exact = True  # until a batch leaves something behind, whose age is then only known not to be more
    for step in steps:
        now_s += 1.0
        if step == "state":
            queued.append(now_s)
            waiting.stated(now_s)
        elif step.startswith("take") and queued and in_flight is None:
            kept = 1 if step == "take some" and len(queued) > 1 else 0
            exact = exact and not kept
            in_flight, queued = queued[: len(queued) - kept], queued[len(queued) - kept :]
            waiting.taken(everything=not kept)
        elif step == "confirm" and in_flight is not None:
            in_flight = None
            waiting.confirmed()
        elif step == "return" and in_flight is not None:
            queued, in_flight = in_flight + queued, None
            waiting.returned()
        elif step == "refuse":
            queued, in_flight = (in_flight or []) + queued or [now_s], None
            waiting.refused(now_s)
        oldest = min([*queued, *(in_flight or [])], default=None)
        found = waiting.for_s(now_s)
        if oldest is None:
            assert found == 0.0
        else:
            assert found >= now_s - oldest
            assert not exact or found == now_s - oldest


def test_nothing_waits_once_all_is_confirmed() -> None:
    waiting = Waiting()
    waiting.stated(5.0)
    waiting.taken(everything=True)
    assert waiting.for_s(9.0) == 4.0
    waiting.confirmed()
    assert waiting.for_s(99.0) == 0.0

"""Typing, with the clock in hand."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from server.payload import Origin
from server.typists import SAY_EVERY_S, TYPING_S, Keyboards, Typist, Typists

HERE = Origin("n1", 7)
THERE = Origin("n2", 1)
ALICE, BOB = Typist("r", '"alice"'), Typist("r", '"bob"')


def test_typing_ends_six_seconds_after_it_was_last_said() -> None:
    typists = Typists()
    typists.started(ALICE, HERE, 0.0)
    typists.started(BOB, THERE, 1.0)
    typists.started(ALICE, HERE, 3.0)
    assert typists.next_deadline_s() == 1.0 + TYPING_S
    assert typists.due(6.9) == []
    assert typists.due(7.0) == [(BOB, THERE)]
    assert typists.due(8.9) == []
    assert typists.due(9.0) == [(ALICE, HERE)]
    assert typists.users("r") == () and typists.next_deadline_s() is None and not typists._rooms


def test_stopping_says_who_must_not_be_told_and_only_once() -> None:
    typists = Typists()
    typists.started(ALICE, HERE, 0.0)
    assert typists.stopped(ALICE) == HERE
    assert typists.stopped(ALICE) is None


def test_a_room_that_is_given_up_is_forgotten() -> None:
    typists = Typists()
    typists.started(ALICE, HERE, 0.0)
    typists.started(Typist("other", '"alice"'), HERE, 0.0)
    typists.forget("r")
    assert typists.users("r") == () and typists.users("other") == ('"alice"',)


def test_a_hundred_keystrokes_in_a_second_are_one_signal_and_a_refresh() -> None:
    keyboards = Keyboards()
    published = [n for n in range(100) if keyboards.press(ALICE, True, HERE, n / 100)]
    assert published == [0]
    assert keyboards.due(0.99) == []
    assert keyboards.due(1.0) == [(ALICE, True, HERE)]
    assert keyboards.due(1.5) == []


def test_a_stop_within_the_second_is_said_when_it_is_over() -> None:
    keyboards = Keyboards()
    assert keyboards.press(ALICE, True, HERE, 0.0)
    assert not keyboards.press(ALICE, False, HERE, 0.4)
    assert keyboards.due(1.0) == [(ALICE, False, HERE)]


def test_a_stop_after_the_second_is_said_at_once() -> None:
    keyboards = Keyboards()
    assert keyboards.press(ALICE, True, HERE, 0.0)
    assert keyboards.press(ALICE, False, HERE, 1.5)


def test_a_stop_of_somebody_who_did_not_type_is_not_said() -> None:
    keyboards = Keyboards()
    assert not keyboards.press(ALICE, False, HERE, 0.0)
    assert len(keyboards) == 0


def test_whoever_leaves_while_typing_must_be_stopped() -> None:
    keyboards = Keyboards()
    keyboards.press(ALICE, True, HERE, 0.0)
    assert keyboards.lifted(ALICE)
    assert not keyboards.lifted(ALICE)


def test_a_forgotten_key_was_ended_by_the_others_too() -> None:
    keyboards = Keyboards()
    keyboards.press(ALICE, True, HERE, 0.0)
    keyboards.due(TYPING_S - 0.1)
    assert len(keyboards) == 1
    keyboards.due(TYPING_S)
    assert len(keyboards) == 0


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 2)), max_size=60))
def test_never_more_than_one_signal_a_second_and_the_last_word_wins(presses: list[tuple[bool, float]]) -> None:
    keyboards = Keyboards()
    said: list[tuple[float, bool]] = []
    now = 0.0
    wanted = False
    for typing, pause in presses:
        for _ in range(int(pause / 0.1)):
            now += 0.1
            said += [(now, state) for _, state, _ in keyboards.due(now)]
        if keyboards.press(ALICE, typing, HERE, now):
            said.append((now, typing))
        wanted = typing
    for _ in range(20):
        now += 0.1
        said += [(now, state) for _, state, _ in keyboards.due(now)]
    assert all(b[0] - a[0] >= SAY_EVERY_S - 1e-6 for a, b in pairwise(said))
    assert (said[-1][1] if said else False) == wanted or (not wanted and not said)

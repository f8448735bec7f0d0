"""Tickets: good on every node that has the key, for half a minute, for watching; and nothing else is one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.api.keys import parse_keys
from server.ticket import VALID_S, check, issue

VIEWER, OPS, BACKEND = parse_keys(
    [f"viewer.a-b:read:{'v' * 40}", f"ops:admin:{'o' * 40}", f"backend:publish:{'b' * 40}"]
)
KEYS = (VIEWER, OPS, BACKEND)
NOW_S = 1_790_000_000.25


@pytest.mark.parametrize("key", [VIEWER, OPS])
def test_a_ticket_names_its_key_as_long_as_it_is_valid(key: object) -> None:
    ticket = issue(key, NOW_S)  # type: ignore[arg-type]
    assert check(ticket, KEYS, NOW_S) == key.name  # type: ignore[attr-defined]
    assert check(ticket, KEYS, NOW_S + VALID_S - 1) == key.name  # type: ignore[attr-defined]
    assert check(ticket, KEYS, NOW_S + VALID_S + 1) is None


def test_two_tickets_differ_and_none_shows_the_secret() -> None:
    one, two = issue(VIEWER, NOW_S), issue(VIEWER, NOW_S)
    assert one != two and "vvvv" not in one


def test_a_ticket_ends_with_its_key_and_survives_a_rotation_to_another_of_its_name() -> None:
    ticket = issue(VIEWER, NOW_S)
    (newer,) = parse_keys([f"viewer.a-b:read:{'n' * 40}"])
    assert check(ticket, (OPS, BACKEND), NOW_S) is None
    assert check(ticket, (newer,), NOW_S) is None
    assert check(ticket, (newer, VIEWER), NOW_S) == "viewer.a-b"


def test_a_key_without_the_scope_makes_none() -> None:
    assert check(issue(BACKEND, NOW_S), KEYS, NOW_S) is None


@given(st.data())
def test_a_ticket_with_any_character_changed_is_none(data: st.DataObject) -> None:
    ticket = issue(VIEWER, NOW_S)
    place = data.draw(st.integers(0, len(ticket) - 1))
    other = data.draw(st.characters().filter(lambda character: character != ticket[place]))
    assert check(ticket[:place] + other + ticket[place + 1 :], KEYS, NOW_S) is None


@given(st.text())
def test_no_text_is_a_ticket_and_none_fails(text: str) -> None:
    assert check(text, KEYS, NOW_S) is None
    assert check(f"viewer.a-b.{text}.0.0", KEYS, NOW_S) is None
    assert check(f"viewer.a-b.{'9' * 5000}.0.{text}", KEYS, NOW_S) is None

"""Names are judged in time that grows with their length, and that is bounded. What they may be: test_protocol.py."""

from __future__ import annotations

import time
from collections.abc import Callable
from fnmatch import fnmatchcase

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.names import (
    key_is_valid,
    parse_user_id,
    room_is_valid,
    room_matches,
    session_is_valid,
    user_id_is_valid,
)

WORST = [
    "a" * 128 + "!",
    "_" * 128,
    ("a:" * 64)[:127] + "\n",
    "-" * 127 + "{",
    "0" * 128 + "x",
    "a" * 1_000_000,
    "\ud800" * 128,
]


def parses(text: str) -> bool:
    try:
        parse_user_id(text)
    except ValueError:
        return False
    return True


@pytest.mark.parametrize("judge", [room_is_valid, user_id_is_valid, session_is_valid, key_is_valid, parses])
def test_the_worst_names_are_refused_in_under_a_millisecond(judge: Callable[[str], bool]) -> None:
    for name in WORST:
        took_s = []
        for _ in range(5):
            start_s = time.thread_time()
            assert not judge(name)
            took_s.append(time.thread_time() - start_s)
        assert min(took_s) < 0.001, name[:20]


@pytest.mark.parametrize("pattern", ["*a" * 32, "*" * 128, "a*" * 30 + "b", "*a*" * 20 + "x*y"])
def test_patterns_take_linear_time_too(pattern: str) -> None:
    """Operators, tokens and keys of the HTTP API bring patterns; clients name the rooms they are matched with."""
    room = "a" * 127 + "c"
    start_s = time.thread_time()
    assert room_matches(pattern, room) == (pattern == "*" * 128)
    assert time.thread_time() - start_s < 0.1


@given(st.text("ab*", max_size=12), st.text("ab", min_size=1, max_size=12))
def test_a_star_is_any_text(pattern: str, room: str) -> None:
    assert room_matches(pattern, room) == fnmatchcase(room, pattern)

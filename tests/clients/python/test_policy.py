from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from roomcast_client.policy import CAP_S, after_close, after_http, backoff_s


@given(st.integers(0, 10_000), st.floats(0, 1, exclude_max=True))
def test_a_wait_is_never_negative_and_never_over_the_cap(attempt: int, luck: float) -> None:
    assert 0 <= backoff_s(attempt, luck) <= CAP_S


def test_unknown_codes_are_worth_another_try_and_known_ones_say_what_to_do() -> None:
    assert not after_close(4999).fatal
    assert "token" in after_close(4001).fatal
    assert not after_http(503).fatal
    assert "Origin" in after_http(403).fatal

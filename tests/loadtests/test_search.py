from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from loadtests.search import PRECISION, Search


def found(limit: float, first: float = 16, highest: float = 16_000) -> tuple[Search, list[float]]:
    """A search among servers that keep up with ``limit`` and no more, and the rates that were tried."""
    search, tried = Search(first, highest), list[float]()
    while search.rate is not None:
        tried.append(search.rate)
        if search.rate <= limit:
            search.kept_up()
        else:
            search.fell_behind()
    return search, tried


@given(limit=st.floats(16, 15_999))
def test_what_is_found_is_kept_up_with_and_a_fifth_more_is_too_much(limit: float) -> None:
    search, tried = found(limit)
    assert search.held <= limit < search.held * PRECISION
    assert len(tried) <= 12


def test_it_goes_up_in_steps_of_four_and_then_halfway() -> None:
    assert [round(rate) for rate in found(100)[1]] == [16, 64, 256, 128, 91, 108]


def test_nothing_above_the_highest_is_tried() -> None:
    search, tried = found(1e9, highest=100)
    assert (search.held, search.too_much, tried) == (100, None, [16, 64, 100])
    assert found(1e9, first=16, highest=4)[1] == [4]


def test_a_server_that_cannot_do_the_first_has_no_peak() -> None:
    search, tried = found(10)
    assert (search.held, tried) == (0, [16])

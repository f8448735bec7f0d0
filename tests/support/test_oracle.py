"""The checker itself: it passes a faithful log and names every kind of fault."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from roomcast_client import Ack, Message, Position, Reset

from tests.support.oracle import Follower, Oracle

Seen = list[Message | Reset]


def entry(offset: int, data: str | None = None, *, epoch: str = "e", tag: str | None = None) -> Message:
    return Message("r", epoch, offset, tag or f"{epoch}{offset}", 1, 1.5, data or f"{epoch} message {offset}")


def oracle_of(*logs: Seen, start: int = 0) -> Oracle:
    """Six messages were acknowledged in the epoch ``e``; the followers saw these."""
    oracle = Oracle()
    for offset in range(1, 7):
        oracle.acked("r", f"e message {offset}", Ack("e", offset, f"e{offset}"))
    for number, log in enumerate(logs):
        follower = oracle.follow(f"client {number}", "r", Position("e", start, f"e{start}"))
        follower.seen += log
    return oracle


ALL: Seen = [entry(offset) for offset in range(1, 7)]


def test_a_faithful_log_passes() -> None:
    oracle_of(ALL, ALL).check()
    oracle_of(ALL[3:], start=3).check()


FAULTS: dict[str, tuple[Callable[[], Seen], str]] = {
    "a loss in the middle": (lambda: ALL[:2] + ALL[3:], "offset 4 after 2"),
    "a loss at the beginning": (lambda: ALL[1:], "offset 2 after 0"),
    "a loss at the end": (lambda: ALL[:-1], "ends at"),
    "nothing at all": (lambda: [], "ends at"),
    "a duplicate": (lambda: [*ALL[:3], ALL[2], *ALL[3:]], "offset 3 after 3"),
    "a reorder": (lambda: [ALL[0], ALL[2], ALL[1], *ALL[3:]], "offset 3 after 1"),
    "a swap of payloads": (lambda: [entry(1, "e message 2"), entry(2, "e message 1"), *ALL[2:]], "elsewhere"),
    "a wrong payload": (lambda: [*ALL[:5], entry(6, "forged")], "elsewhere"),
    "a wrong tag": (lambda: [*ALL[:5], entry(6, tag="fork")], "elsewhere"),
    "a message nobody published": (lambda: [*ALL, entry(7, "forged")], "never published"),
    "a second entry of one publish": (lambda: [*ALL, entry(7, "e message 2")], "in the log twice"),
    "a change of epoch without a reset": (lambda: [*ALL, entry(1, epoch="f")], "without a reset"),
    "a loss hidden behind a reset's position": (
        lambda: [*ALL[:2], Reset("r", Position("e", 3, "e3")), *ALL[4:]],
        "offset 5 after 3",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_every_kind_of_fault_is_named(fault: str) -> None:
    make, expected = FAULTS[fault]
    with pytest.raises(AssertionError, match=expected):
        oracle_of(ALL, make()).check()


def test_a_break_at_a_reset_is_allowed() -> None:
    oracle = oracle_of([*ALL[:2], Reset("r", Position("e", 4, "e4")), *ALL[4:]])
    oracle.check()
    assert oracle.followers[0].resets == 1


def test_a_publish_without_an_ack_may_be_there_once_or_not_at_all_but_the_same_for_all() -> None:
    with_it: Seen = [*ALL, entry(7, "doubt")]
    for logs in ([ALL], [with_it], [with_it, ALL]):
        oracle = oracle_of(*logs)
        oracle.in_doubt("r", "doubt")
        oracle.check()
    oracle = oracle_of(with_it, [*ALL, entry(7, "doubt", tag="fork")])
    oracle.in_doubt("r", "doubt")
    with pytest.raises(AssertionError, match="elsewhere"):
        oracle.check()
    oracle = oracle_of([*with_it, entry(8, "doubt")])
    oracle.in_doubt("r", "doubt")
    with pytest.raises(AssertionError, match="in the log twice"):
        oracle.check()


def test_a_place_acknowledged_to_two_publishers_is_a_fault_without_any_subscriber() -> None:
    oracle = oracle_of()
    oracle.acked("r", "other", Ack("e", 3, "x"))
    with pytest.raises(AssertionError, match="acknowledged twice"):
        oracle.check()


def test_who_is_behind_is_known() -> None:
    oracle = oracle_of(ALL, ALL[:3])
    behind: list[Follower] = oracle.behind()
    assert [follower.name for follower in behind] == ["client 1"]

"""One reader's copy of a scope."""

from __future__ import annotations

from broker.base import Change, Roster
from broker.follower import Follower


def roster(version: int, *users: str, epoch: bytes = b"e") -> Roster:
    return Roster({epoch: version} if epoch else {}, frozenset(users))


def following(version: int, *users: str) -> Follower:
    follower = Follower()
    follower.replace(roster(version, *users), settling=False)
    return follower


def test_the_next_version_is_applied_and_what_is_known_is_dropped() -> None:
    follower = following(5, "1")
    assert follower.apply(Change(b"e", 6, "2", True)) == "changed"
    assert follower.apply(Change(b"e", 6, "2", True)) == "known"
    assert follower.apply(Change(b"e", 3, "1", False)) == "known"
    assert follower.apply(Change(b"e", 7, "1", False)) == "changed"
    assert follower.users == {"2"} and follower.versions == {b"e": 7}


def test_a_hole_or_another_epoch_means_to_read_again_and_changes_nothing() -> None:
    follower = following(5, "1")
    assert follower.apply(Change(b"e", 7, "2", True)) == "behind"
    assert follower.apply(Change(b"f", 6, "2", True)) == "behind"
    assert follower.apply(Change(b"f", 1, "2", True)) == "behind"
    assert (follower.versions, follower.users) == ({b"e": 5}, {"1"})


def test_even_the_first_version_of_an_epoch_is_verified_because_it_may_be_late() -> None:
    assert Follower().apply(Change(b"e", 1, "1", True)) == "behind"


def test_a_roster_gives_the_differences() -> None:
    follower = following(5, "1", "2", "3")
    assert follower.replace(roster(9, "2", "4", "0"), settling=False) == [
        ("1", False), ("3", False), ("0", True), ("4", True),
    ]  # fmt: skip
    assert follower.users == {"0", "2", "4"} and follower.versions == {b"e": 9}


def test_an_older_roster_after_a_rollback_is_taken_over_too() -> None:
    follower = following(9, "1", "2")
    assert follower.replace(roster(4, "1"), settling=False) == [("2", False)]
    assert follower.apply(Change(b"e", 5, "3", True)) == "changed"


def test_while_settling_nobody_is_said_to_have_gone() -> None:
    follower = following(5, "1", "2", "3")
    assert follower.replace(roster(1, "2", "4", epoch=b"f"), settling=True) == [("4", True)]
    assert follower.doubtful == {"1", "3"}
    assert follower.apply(Change(b"f", 2, "1", True)) == "known", "they were never away"
    assert follower.doubtful == {"3"}
    assert follower.replace(roster(2, "1", "2", "4", epoch=b"f"), settling=False) == [("3", False)]
    assert follower.doubtful == set()


def test_a_doubtful_user_may_be_told_gone_by_a_change() -> None:
    follower = following(5, "1")
    follower.replace(roster(0, epoch=b""), settling=True)
    follower.replace(roster(1, "1", epoch=b"f"), settling=True)
    assert follower.doubtful == set()
    assert follower.apply(Change(b"f", 2, "1", False)) == "changed"
    assert follower.users == set()


def test_parts_of_everywhere_have_versions_of_their_own() -> None:
    follower = Follower()
    follower.replace(Roster({b"e": 5, b"f": 2}, frozenset({"1", "2"})), settling=False)
    assert follower.apply(Change(b"f", 3, "3", True)) == "changed"
    assert follower.apply(Change(b"e", 6, "1", False)) == "changed"
    assert follower.apply(Change(b"f", 3, "3", True)) == "known"
    assert follower.apply(Change(b"f", 5, "4", True)) == "behind"
    assert follower.apply(Change(b"g", 1, "5", True)) == "behind"
    assert follower.users == {"2", "3"}

"""What becomes of what the talkers said. Without a server: the scenarios themselves are in test_scenarios.py."""

from __future__ import annotations

from loadtests.member import Member, Seen
from loadtests.talk import Talk, Talkers

CHAT = Talk("chat", members=10, rooms=2, rooms_each=1, rate=10)


def test_rooms_are_equally_full_and_those_who_share_one_share_all() -> None:
    scenario = Talk("many-rooms", members=200, rooms=1000, rooms_each=50, rate=10)
    assert scenario.room_size == 10
    filled = [room for number in range(200) for room in scenario.rooms_of(number)]
    assert {filled.count(room) for room in set(filled)} == {10}
    assert len(set(filled)) == 1000
    assert scenario.rooms_of(0) == scenario.rooms_of(9) != scenario.rooms_of(10)


def said(talkers: Talkers) -> Seen:
    """One message: by a member that has no connection, so it only counts."""
    talkers._say(talkers.members[0])
    (room, data), *_ = talkers.members[0].unacked.values()
    return Seen(room, 1, "t", data)


def test_every_delivery_and_the_acknowledgement_are_missed() -> None:
    talkers = Talkers(CHAT, ("127.0.0.1", 1))
    message = said(talkers)
    assert talkers.verdict()["lost"] == 6
    for _ in range(4):
        talkers._heard(message)
    talkers._acked(message)
    assert talkers.verdict()["lost"] == 1, "one of five did not hear it"
    talkers._heard(message)
    assert talkers.verdict() == {"lost": 0, "duplicated": 0, "closed": 0}


def test_what_members_noticed_counts() -> None:
    talkers = Talkers(CHAT, ("127.0.0.1", 1))
    one: Member = talkers.members[3]
    one.holes, one.repeats, one.closes = 2, 3, [1006]
    assert talkers.verdict() == {"lost": 2, "duplicated": 3, "closed": 1}

"""A member tells what a node does wrong: the client that the figures of ``rolling`` rest on."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from loadtests.crowd import Crowd
from loadtests.member import Member, Position, Seen


def member(*heard: list[Seen]) -> Member:
    return Member("u", ["r"], ("127.0.0.1", 1), heard[0].append if heard else lambda seen: None)


def tell(one: Member, **frame: Any) -> None:
    one.received(orjson.dumps(frame))


def message(offset: int) -> dict[str, Any]:
    return {"op": "broadcast", "type": "message", "room": "r", "offset": offset, "tag": f"t{offset}", "data": offset}


def joined(one: Member, offset: int, **fields: Any) -> None:
    """It asks, and this is the answer."""
    one._ask("join", "r", room="r")
    reply = {"op": "reply", "id": one._next_id, "ok": True, "epoch": "e", "offset": offset, "tag": f"t{offset}"}
    tell(one, **reply | {"recovered": None, "messages": []} | fields)


def test_a_stream_without_a_fault() -> None:
    heard: list[Seen] = []
    one = member(heard)
    joined(one, 3)
    assert one.here
    for offset in (4, 5):
        tell(one, **message(offset))
    assert one.places["r"] == Position("e", 5, "t5")
    assert heard == [Seen("r", 4, "t4", 4), Seen("r", 5, "t5", 5)]
    assert (one.holes, one.repeats, one.resets) == (0, 0, 0)


@pytest.mark.parametrize(("offsets", "holes", "repeats"), [((4, 6), 1, 0), ((4, 4), 0, 1), ((3,), 0, 1), ((6,), 2, 0)])
def test_holes_and_repetitions_are_counted(offsets: tuple[int, ...], holes: int, repeats: int) -> None:
    one = member()
    joined(one, 3)
    for offset in offsets:
        tell(one, **message(offset))
    assert (one.holes, one.repeats) == (holes, repeats)


def test_a_resume_must_lead_to_where_it_says() -> None:
    one = member()
    joined(one, 3)
    joined(one, 5, recovered=True, messages=[message(4), message(5)])
    assert (one.holes, one.resets) == (0, 0)
    joined(one, 8, recovered=True, messages=[message(6)])
    assert one.holes == 1
    joined(one, 20, recovered=False)
    assert one.resets == 1


def test_who_is_behind_or_disagrees_is_found() -> None:
    crowd = Crowd(2, ("127.0.0.1", 1), room_size=2, observers=0)
    one, other = crowd.members
    for each in (one, other):
        each.places["room0"] = Position("e", 0, "0")
    one.acked(Seen("room0", 1, "t1", "said"))
    assert crowd.verdict()["lost"] == 2, "neither has seen it"
    for each, data in ((one, "said"), (other, "something else")):
        each._message("room0", {"offset": 1, "tag": "t1", "data": data})
    assert crowd.verdict()["lost"] == 1, "the other saw something else"

"""What waits for a slow reader: the latest on every topic, in bounded memory, and nothing given up without a word."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from server.backlog import ENTRY_BYTES, MAX_BYTES, Backlog
from server.frames import Ephemeral, Topic


def put(backlog: Backlog, kind: str, room: str | None, about: str, payload: bytes = b"{}") -> list[str]:
    return list(backlog.put(Ephemeral(payload, Topic(kind, room, about))))  # type: ignore[arg-type]


def test_the_latest_on_a_topic_wins_and_the_others_are_told() -> None:
    backlog = Backlog()
    assert put(backlog, "typing", "r", "1", b"old") == []
    assert put(backlog, "typing", "r", "1", b"new") == ["typing"]
    assert put(backlog, "typing", "s", "1", b"elsewhere") == []
    assert put(backlog, "presence", "r", "1", b"here") == []
    assert sorted(part.payload for part in backlog.parts()) == [b"elsewhere", b"here", b"new"]
    assert not backlog.lists


def test_a_list_of_all_takes_the_place_of_what_was_known_of_each() -> None:
    backlog = Backlog()
    put(backlog, "presence", "r", "1")
    put(backlog, "presence", None, "1", b"everywhere")
    assert put(backlog, "presence", "r", "") == ["presence", "presence"]
    assert put(backlog, "presence", "r", "2") == ["presence"], "the list that will be sent says it"
    assert [part.payload for part in backlog.parts()] == [b"everywhere"]
    assert backlog.lists == {"r"}


def test_over_its_size_presence_becomes_a_list_and_then_the_oldest_goes() -> None:
    backlog = Backlog()
    many = MAX_BYTES // ENTRY_BYTES
    dropped: Counter[str] = Counter()
    for user in range(many // 2):
        dropped.update(put(backlog, "presence", "r", str(user)))
    for user in range(2 * many):
        dropped.update(put(backlog, "typing", "r", str(user), str(user).encode()))
    assert backlog.lists == {"r"}
    kept = [int(part.payload) for part in backlog.parts()]
    assert kept == list(range(kept[0], 2 * many)) and many // 2 < len(kept) <= many
    assert dropped == {"presence": many // 2, "typing": 2 * many - len(kept)}


def test_of_a_room_that_was_left_nothing_is_told() -> None:
    backlog = Backlog()
    for room in ("r", "s"):
        for kind in ("presence", "typing", "receipt"):
            put(backlog, kind, room, "1")
        put(backlog, "presence", room + "2", "")
    backlog.forget("r")
    backlog.forget("r2")
    assert {part.topic.room for part in backlog.parts()} == {"s"} and len(backlog.parts()) == 3
    assert backlog.lists == {"s2"}


events = st.tuples(
    st.sampled_from(["presence", "typing", "receipt"]),
    st.sampled_from([None, "a", "b"]),
    st.integers(0, 12).map(str),
    st.integers(1, 9000),
)


@given(st.lists(st.one_of(events, st.tuples(st.just("presence"), st.just("a"), st.just(""), st.just(9))), max_size=60))
def test_whatever_comes_it_is_kept_or_told_and_never_too_much(steps: list[tuple[str, str | None, str, int]]) -> None:
    backlog = Backlog()
    latest: dict[tuple[str, str | None, str], bytes] = {}
    dropped: Counter[str] = Counter()
    for number, (kind, room, about, size) in enumerate(steps):
        payload = b"%05d" % number + b"x" * size
        latest[kind, room, about] = payload
        dropped.update(put(backlog, kind, room, about, payload))
        parts = backlog.parts()
        assert sum(len(part.payload) + ENTRY_BYTES for part in parts) <= MAX_BYTES
    kept = {part.topic: part.payload for part in backlog.parts()}
    assert len(kept) == len(backlog.parts()), "one per topic"
    for topic, payload in kept.items():
        assert latest[topic] == payload
    put_in = Counter(kind for kind, *_ in steps)
    assert put_in == dropped + Counter(topic.kind for topic in kept)
    for kind, room, about in latest.keys() - kept.keys():
        if kind == "presence":
            assert room in backlog.lists, f"{about} of {room} would never be told"

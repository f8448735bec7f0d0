"""Names in Redis: no two things share one, and all of a room is in one hash slot."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from broker.redis.keys import CLUSTER_SHARDS, SLOTS, Keys, Topic, slot_of

names = st.text(st.characters(exclude_categories=["Cs"]), max_size=6) | st.text(":{}1ab", max_size=6)


@given(st.tuples(names, names, names), st.tuples(names, names, names))
def test_retry_keys_are_injective(one: tuple[str, str, str], other: tuple[str, str, str]) -> None:
    keys = Keys()
    assert (keys.dedup(*one) == keys.dedup(*other)) == (one == other)


@given(names, names)
def test_no_room_can_name_a_key_of_another_kind_or_room(one: str, other: str) -> None:
    def all_keys(room: str) -> list[str]:
        keys = Keys()
        return [keys.meta(room), keys.log(room), keys.marks(room), keys.nodes()]

    assert len(set(all_keys(one))) == 4
    if one != other:
        assert not set(all_keys(one)[:3]) & set(all_keys(other))


@given(names, st.sampled_from([1, CLUSTER_SHARDS]))
def test_everything_of_a_room_is_in_one_slot(room: str, shards: int) -> None:
    keys = Keys("p", shards)
    shard = keys.shard(room)
    of_room = [keys.meta(room), keys.log(room), keys.marks(room), keys.dedup(room, "s", "k"), *keys.guard(shard)]
    of_room += [keys.channel(f"room:{room}"), keys.presence(shard, "room", room)]
    assert 0 <= shard < shards
    assert {slot_of(key[key.index("{") + 1 : key.index("}")]) for key in of_room} == {keys.slot(shard)}


def test_shards_lie_evenly_over_the_slots_however_many_masters_there_are() -> None:
    keys = Keys("p", CLUSTER_SHARDS)
    slots = [keys.slot(shard) for shard in range(CLUSTER_SHARDS)]
    for masters in range(1, CLUSTER_SHARDS + 1):
        counts = [0] * masters
        for slot in slots:
            counts[slot * masters // SLOTS] += 1
        assert max(counts) - min(counts) <= (1 if masters <= 6 else 2)


def test_presence_of_everywhere_is_in_all_shards_and_all_else_in_one() -> None:
    keys = Keys("p", CLUSTER_SHARDS)
    assert keys.topics("presence") == [Topic(shard, "presence") for shard in range(CLUSTER_SHARDS)]
    for channel in ("room:r", "user:42", "path:/ws", "node:a"):
        [topic] = keys.topics(channel)
        assert keys.name(topic) == keys.channel(channel) and topic.shard == keys.home(channel)
    assert len({keys.home(f"user:{number}") for number in range(1000)}) == CLUSTER_SHARDS


@given(names)
def test_only_marks_of_this_installation_are_found_as_marks(name: str) -> None:
    keys = Keys("p", CLUSTER_SHARDS)
    assert keys.marks_shard(keys.marks(name).encode()) == keys.shard(name)
    for key in (keys.log(name), keys.meta(name), Keys("q", CLUSTER_SHARDS).marks(name), "p:{x}:marks:r"):
        assert keys.marks_shard(key.encode()) is None


def test_names_are_these() -> None:
    keys = Keys("p")
    assert keys.meta("r") == "p:{0}:meta:r"
    assert keys.log("r") == "p:{0}:log:r"
    assert keys.dedup("r", "s", "k") == "p:{0}:dedup:1:r:1:s:k"
    assert keys.channel("room:r") == "p:{0}:room:r"
    assert keys.channel("user:42") == "p:{0}:user:42"
    assert keys.nodes() == "p:{0}:nodes"


def test_shards_are_those_of_redis_cluster_modulo_their_number() -> None:
    assert Keys(shards=16384).shard("123456789") == 0x31C3 % 16384  # the check value of CRC16/XMODEM

"""Names in Redis: no two things share one, and all of a room is in one hash slot."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from broker.redis.keys import Keys

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


@given(names, st.sampled_from([1, 64]))
def test_everything_of_a_room_is_in_one_slot(room: str, shards: int) -> None:
    keys = Keys("p", shards)
    of_room = [keys.meta(room), keys.log(room), keys.marks(room), keys.dedup(room, "s", "k")]
    tags = {key[key.index("{") : key.index("}") + 1] for key in [*of_room, keys.channel(f"room:{room}")]}
    assert tags == {f"{{{keys.shard(room)}}}"}
    assert 0 <= keys.shard(room) < shards


def test_names_are_these() -> None:
    keys = Keys("p")
    assert keys.meta("r") == "p:{0}:meta:r"
    assert keys.log("r") == "p:{0}:log:r"
    assert keys.dedup("r", "s", "k") == "p:{0}:dedup:1:r:1:s:k"
    assert keys.channel("room:r") == "p:{0}:room:r"
    assert keys.channel("user:42") == "p:{0}:user:42"
    assert keys.nodes() == "p:nodes"


def test_shards_are_those_of_redis_cluster_modulo_their_number() -> None:
    assert Keys(shards=16384).shard("123456789") == 0x31C3 % 16384  # the check value of CRC16/XMODEM

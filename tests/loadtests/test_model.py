"""The arithmetic of sizing: what more of everything does, and what is needed is enough and no more."""

from __future__ import annotations

import dataclasses
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadtests.model import (
    Constants,
    Limits,
    Load,
    Rooms,
    heard,
    node_cores,
    nodes_with_members,
    redis_cores,
    size,
    uses,
)

CONSTANTS = Constants(
    write_us=4.0,
    joined_us=1.0,
    heard_us=30.0,
    said_us=60.0,
    connect_us=250.0,
    idle_us=1.0,
    connection_bytes=5000.0,
    node_bytes=70e6,
    append_us=20.0,
    read_us=25.0,
    sent_us=3.0,
    redis_connect_us=15.0,
    redis_beat_us=300.0,
    append_bytes=500.0,
    sent_bytes=250.0,
    log_bytes=270.0,
    user_bytes=150.0,
    delivery_bytes=232.0,
)
LIMITS = Limits()
rooms = st.builds(Rooms, st.integers(1, 10_000), st.integers(1, 10_000), st.floats(0.001, 10))
loads = st.builds(Load, st.integers(1, 2_000_000), st.lists(rooms, min_size=1, max_size=3), st.floats(0, 1000))


@pytest.mark.parametrize(
    ("members", "nodes", "expected"),
    [(1, 1, 1), (5, 1, 1), (1, 7, 1), (2, 2, 1.5), (10**6, 50, 50), (0, 3, 0)],
)
def test_nodes_with_members_of_a_room(members: int, nodes: int, expected: float) -> None:
    assert nodes_with_members(members, nodes) == pytest.approx(expected)


def test_nodes_with_members_is_what_chance_gives() -> None:
    chance = random.Random(3)
    seen = [len({chance.randrange(20) for _ in range(5)}) for _ in range(20_000)]
    assert nodes_with_members(5, 20) == pytest.approx(sum(seen) / len(seen), rel=0.01)


def test_one_room_on_one_node_by_hand() -> None:
    load = Load(1000, [Rooms(1, 1000, 50.0)], connects_per_s=2.0)
    assert (load.messages, load.deliveries, heard(load, 1)) == (50, 50_000, 50)
    # deliveries, heard, said, connects, idle
    by_hand = 50_000 * 4 + 50 * 30 + 50 * 60 + 2 * 250 + 1000 * 1
    assert node_cores(CONSTANTS, load, 1) == pytest.approx(by_hand / 1e6)
    assert redis_cores(CONSTANTS, load, 1) == pytest.approx((50 * (20 + 25) + 50 * 3 + 2 * 15 + 300) / 1e6)
    in_tens = 50 * 20 + 5 * 25 + 5 * 3 + 2 * 15 + 300
    assert redis_cores(CONSTANTS, load, 1, messages_per_read=10.0) == pytest.approx(in_tens / 1e6)
    half = 25_000 * 4 + 25_000 * 1 + 25 * 30 + 50 * 60 + 2 * 250 + 1000 * 1
    assert node_cores(CONSTANTS, load, 1, messages_per_write=2.0) == pytest.approx(half / 1e6)


@settings(deadline=None)
@given(loads)
def test_what_is_needed_is_enough_and_one_node_less_is_not(load: Load) -> None:
    needed = size(CONSTANTS, load, LIMITS)
    assert needed.node_share <= LIMITS.fill * (1 + 1e-9)
    assert load.connections <= needed.nodes * LIMITS.connections_per_node
    if needed.nodes > 1:
        fewer = needed.nodes - 1
        share = node_cores(CONSTANTS, load, fewer) / fewer
        assert share > LIMITS.fill or load.connections > fewer * LIMITS.connections_per_node
    assert needed.masters == 64 or needed.master_share <= LIMITS.fill * (1 + 1e-9)


@settings(deadline=None)
@given(loads, st.integers(1, 200))
def test_more_nodes_cost_more_in_all_and_less_each(load: Load, nodes: int) -> None:
    one, more = (node_cores(CONSTANTS, load, count) for count in (nodes, nodes + 1))
    assert more >= one * (1 - 1e-9)
    assert more / (nodes + 1) <= one / nodes * (1 + 1e-9)
    assert redis_cores(CONSTANTS, load, nodes + 1) >= redis_cores(CONSTANTS, load, nodes) * (1 - 1e-9)


@settings(deadline=None)
@given(loads, st.sampled_from([field.name for field in dataclasses.fields(Constants)]))
def test_whatever_costs_more_needs_no_less(load: Load, name: str) -> None:
    dearer = dataclasses.replace(CONSTANTS, **{name: getattr(CONSTANTS, name) * 1.5})
    before, after = (size(constants, load, LIMITS) for constants in (CONSTANTS, dearer))
    assert after.nodes >= before.nodes and after.masters >= before.masters


@pytest.mark.parametrize(
    ("load", "first"),
    [
        (Load(1_000_000, [Rooms(1, 1_000_000, 5.0)], 500.0), "the core of the master of the busiest room"),
        (Load(1_000_000, [Rooms(200_000, 5, 0.2)], 500.0), "the cores of 64 masters"),
        (Load(100, [Rooms(1, 100, 5.0)], 0.0), "the core of the master of the busiest room"),
    ],
    ids=["stadium", "chat", "one node"],
)
def test_where_it_breaks_first_all_is_used_and_nothing_else_is(load: Load, first: str) -> None:
    needed = size(CONSTANTS, load, LIMITS)
    assert needed.breaks_first == first

    def used(times: float) -> dict[str, float]:
        rooms = [Rooms(each.count, each.members, each.rate * times) for each in load.rooms]
        return uses(CONSTANTS, load._replace(rooms=rooms), LIMITS)

    times = needed.walls[first]
    assert used(times * 1.01)[first] >= 1 > max(used(times * 0.99).values())


def test_without_messages_nothing_breaks() -> None:
    assert size(CONSTANTS, Load(1000, [Rooms(10, 100, 0.0)], 5.0), LIMITS).breaks_first == "nothing"


def test_messages_that_every_node_must_hear_can_be_too_many() -> None:
    with pytest.raises(ValueError, match="no number of nodes"):
        size(CONSTANTS, Load(1_000_000, [Rooms(1, 10**9, 30_000.0)], 0.0), LIMITS)

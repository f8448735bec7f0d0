"""When a node sends connections to others, and how many: alone, and in simulated clusters with late figures."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.rebalance import BEGIN, MIN_GAP, Figures, Rebalance, figures, share

ANNOUNCE_S = 5.0


def told(node: str, connections: int, updated: float = 0.0, moved: int = 0, leaving: bool = False) -> Figures:
    return Figures(node, connections, moved, leaving, updated)


class Alone:
    """One node's decisions, a second apart; the others tell new figures each time unless they are silent."""

    def __init__(self) -> None:
        self.rebalance = Rebalance(ANNOUNCE_S)
        self.now_s = 0.0

    def look(self, own: int, *others: int, seconds: int = 1, silent: bool = False, leaving: bool = False) -> int:
        surplus = 0
        for _ in range(seconds):
            self.now_s += 1
            updated = 0.0 if silent else self.now_s
            there = [told(f"n{i}", count, updated, leaving=leaving) for i, count in enumerate(others)]
            me = told("me", own, self.now_s, self.rebalance.moved(self.now_s))
            surplus = self.rebalance.surplus(self.now_s, me, there)
        return surplus


def test_what_is_above_the_share_may_go_once_the_nodes_have_been_apart_for_a_while() -> None:
    node = Alone()
    assert [node.look(200, 0) for _ in range(10)] == [0] * 10
    assert node.look(200, 0) == 100


def test_nothing_goes_from_a_node_that_has_its_share_or_less() -> None:
    assert Alone().look(100, 0, 200, seconds=30) == 0
    assert Alone().look(10, 200, 200, seconds=30) == 0
    assert Alone().look(100, seconds=30) == 0, "alone"


def test_small_differences_are_left_as_they_are() -> None:
    assert Alone().look(109, 100, seconds=30) == 0
    assert Alone().look(MIN_GAP, 0, seconds=30) == 0


def test_what_has_begun_goes_on_further_than_where_it_would_begin() -> None:
    node = Alone()
    assert node.look(120, 100, seconds=30) == 10
    assert node.look(108, 100) == 4, "apart by less than where it begins"
    assert node.look(104, 100) == 0, "close enough"
    assert node.look(108, 100, seconds=30) == 0, "and not begun again"


def test_what_was_sent_away_lately_may_be_counted_nowhere() -> None:
    node = Alone()
    assert node.look(200, 0, seconds=30) == 100
    node.rebalance.sent(node.now_s, 60)
    assert node.look(140, 0) == 40, "the 60 are on their way, and belong to the other"
    assert node.look(140, 60) == 10, "arrived: but perhaps they are others"
    assert node.look(140, 60, seconds=10) == 40, "forgotten: they must have been counted by now"


def test_nobody_moves_while_a_node_leaves_and_for_a_while_after() -> None:
    node = Alone()
    assert node.look(200, 0, seconds=30) == 100
    assert node.look(200, 0, leaving=True) == 0
    assert node.look(200, 0, seconds=10) == 0
    assert node.look(200, 0) == 100


def test_nobody_moves_while_a_node_is_silent() -> None:
    node = Alone()
    assert node.look(200, 0, seconds=30) == 100
    assert node.look(200, 0, seconds=8, silent=True) == 100
    assert node.look(200, 0, seconds=2, silent=True) == 0
    assert node.look(200, 0, seconds=10) == 0, "anew from when it speaks again"


def test_a_killed_node_is_not_taken_for_an_emptier_one() -> None:
    """Three had 100 each; the clients of one are with the other two before its description runs out."""
    node = Alone()
    node.look(100, 100, 100, seconds=30)
    assert [node.look(150, 150, 100, silent=True) for _ in range(15)] == [0] * 15


def test_when_redis_is_away_all_begins_anew() -> None:
    node = Alone()
    assert node.look(200, 0, seconds=30) == 100
    node.rebalance.hold()
    assert node.look(200, 0) == 0


def test_figures_are_read_from_descriptions_of_any_release() -> None:
    assert figures({"node": "a", "version": "1", "connections": 7}) == told("a", 7)
    whole = {"node": "a", "connections": 7, "moved": 3, "leaving": True, "updated": 12.5, "more": "later"}
    assert figures(whole) == told("a", 7, 12.5, 3, True)


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"node": 1, "connections": 1},
        {"node": "a", "connections": -1},
        {"node": "a", "connections": True},
        {"node": "a", "connections": 1, "moved": "1"},
        {"node": "a", "connections": 1, "updated": "now"},
    ],
)
def test_what_no_node_can_have_said_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        figures(wrong)


@given(st.lists(st.integers(0, 10_000), min_size=1, max_size=20))
def test_the_share_is_the_mean_rounded_up(counts: list[int]) -> None:
    nodes = [told(str(i), count) for i, count in enumerate(counts)]
    assert 0 <= share(nodes, moving=False) * len(counts) - sum(counts) < len(counts)


Balancer = Callable[[Sequence[int], random.Random], int]
"""The node for the next connection, by how many each has."""


def least_conn(counts: Sequence[int], _chance: random.Random) -> int:
    return min(range(len(counts)), key=lambda node: counts[node])


def at_random(counts: Sequence[int], chance: random.Random) -> int:
    return chance.randrange(len(counts))


class World:
    """Nodes that announce and decide at times of their own, clients that take up to two seconds to come back."""

    def __init__(self, counts: list[int], balancer: Balancer, rate: int, seed: int) -> None:
        self.chance = random.Random(seed)
        self.counts = counts[:]
        self.balancer = balancer
        self.rate = rate
        self.share = -(-sum(counts) // len(counts))
        self.moves = 0
        self.deciding = [Rebalance(ANNOUNCE_S) for _ in counts]
        self.announced: list[Figures] = []
        self.now_s = 0.0
        self.announces_at_s = [self.chance.uniform(0, ANNOUNCE_S) for _ in counts]
        self.looks_at_s = [self.chance.uniform(0, ANNOUNCE_S) for _ in counts]
        self.on_their_way: list[float] = []
        self.announced = [self.figures(node) for node in range(len(counts))]

    def figures(self, node: int) -> Figures:
        return told(str(node), self.counts[node], self.now_s, self.deciding[node].moved(self.now_s))

    def run(self, seconds: float) -> None:
        end_s = self.now_s + seconds
        while self.now_s < end_s:
            self.now_s += 0.25
            arrived = sum(due_s <= self.now_s for due_s in self.on_their_way)
            self.on_their_way = [due_s for due_s in self.on_their_way if due_s > self.now_s]
            for _ in range(arrived):
                self.counts[self.balancer(self.counts, self.chance)] += 1
            for node in range(len(self.counts)):
                if self.announces_at_s[node] <= self.now_s:
                    self.announced[node] = self.figures(node)
                    self.announces_at_s[node] += ANNOUNCE_S + self.chance.uniform(0, 0.5)
                if self.looks_at_s[node] <= self.now_s:
                    self.look(node)

    def look(self, node: int) -> None:
        others = [figures for other, figures in enumerate(self.announced) if other != node]
        deciding = self.deciding[node]
        count = min(self.rate, deciding.surplus(self.now_s, self.figures(node), others))
        self.looks_at_s[node] += ANNOUNCE_S / 5 if deciding.active else ANNOUNCE_S
        if count:
            self.counts[node] -= count
            self.moves += count
            deciding.sent(self.now_s, count)
            assert self.counts[node] >= self.share, "below its share"
            self.on_their_way += [self.now_s + self.chance.uniform(0.05, 2) for _ in range(count)]

    @property
    def spread(self) -> float:
        return (max(self.counts) - min(self.counts)) * len(self.counts) / sum(self.counts)


@settings(deadline=None, max_examples=100)
@given(
    counts=st.lists(st.integers(0, 400), min_size=2, max_size=6).filter(lambda counts: sum(counts) >= 40 * len(counts)),
    balancer=st.sampled_from([least_conn, at_random]),
    rate=st.sampled_from([5, 20, 1000]),
    seed=st.integers(0, 2**32),
)
def test_every_cluster_comes_to_rest_in_balance(counts: list[int], balancer: Balancer, rate: int, seed: int) -> None:
    """Whatever the load balancer does: below 15 %, never below the share, and then nothing moves any more."""
    world = World(counts, balancer, rate, seed)
    surplus = sum(max(0, count - world.share) for count in counts)
    world.run(900)
    assert world.spread <= max(BEGIN, 2 * MIN_GAP * len(counts) / sum(counts)) + 1e-9
    assert sum(world.counts) == sum(counts) and not world.on_their_way
    if balancer is least_conn:
        assert world.moves <= surplus, "nobody is moved twice"
    rest = world.moves
    world.run(300)
    assert world.moves == rest, "it does not come to rest"

"""The registry against a naive model: a plain set of (group, member) pairs."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from server.registry import Registry

groups = st.sampled_from(["a", "b", "c"])
members = st.integers(1, 4)


class RegistryMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.registry: Registry[str, int] = Registry()
        self.model: set[tuple[str, int]] = set()

    def size(self, group: str) -> int:
        return sum(1 for g, _ in self.model if g == group)

    @rule(group=groups, member=members)
    def add(self, group: str, member: int) -> None:
        first = self.size(group) == 0
        assert self.registry.add(group, member) == first
        self.model.add((group, member))

    @rule(group=groups, member=members)
    def remove(self, group: str, member: int) -> None:
        last = self.model >= {(group, member)} and self.size(group) == 1
        assert self.registry.remove(group, member) == last
        self.model.discard((group, member))

    @rule(member=members)
    def discard(self, member: int) -> None:
        ended = {g for g, m in self.model if m == member and self.size(g) == 1}
        assert set(self.registry.discard(member)) == ended
        self.model = {(g, m) for g, m in self.model if m != member}

    @invariant()
    def agrees_with_the_model(self) -> None:
        assert len(self.registry) == len({g for g, _ in self.model})
        assert set(self.registry) == {g for g, _ in self.model}
        for group in ("a", "b", "c"):
            assert set(self.registry.members(group)) == {m for g, m in self.model if g == group}
        for member in range(1, 5):
            mine = {g for g, m in self.model if m == member}
            assert set(self.registry.groups(member)) == mine
            assert self.registry.count(member) == len(mine)
            assert all(self.registry.has(g, member) == (g in mine) for g in ("a", "b", "c"))


TestRegistry = RegistryMachine.TestCase


def test_an_emptied_registry_keeps_nothing() -> None:
    registry: Registry[str, int] = Registry()
    for member in range(1000):
        registry.add(f"group {member % 7}", member)
    for member in range(1000):
        registry.discard(member)
    assert not registry._groups and not registry._members

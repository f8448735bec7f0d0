"""Who is in which group: rooms, paths, users or sessions on one side, connections on the other. Pure.

Both directions are kept, so that a connection that goes away is forgotten in time proportional to its own groups.
Calls that make a group begin or end say so; that is when the caller asks the broker for the channel or gives it up.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from collections.abc import Set as AbstractSet
from typing import Generic, TypeVar

Group = TypeVar("Group", bound=Hashable)
Member = TypeVar("Member", bound=Hashable)

_NOBODY: frozenset[object] = frozenset()


class Registry(Generic[Group, Member]):
    __slots__ = ("_groups", "_members")

    def __init__(self) -> None:
        self._members: dict[Group, set[Member]] = {}
        self._groups: dict[Member, list[Group]] = {}  # a list: members are in few groups, and a set takes 216 bytes

    def add(self, group: Group, member: Member) -> bool:
        """Put the member into the group. True if it is the group's first. Idempotent."""
        members = self._members.get(group)
        if members is None:
            self._members[group] = {member}
            self._groups.setdefault(member, []).append(group)
            return True
        if member not in members:
            members.add(member)
            self._groups.setdefault(member, []).append(group)
        return False

    def remove(self, group: Group, member: Member) -> bool:
        """Take the member out. True if it was the group's last. Idempotent."""
        members = self._members.get(group)
        if members is None or member not in members:
            return False
        members.discard(member)
        groups = self._groups[member]
        groups.remove(group)
        if not groups:
            del self._groups[member]
        if members:
            return False
        del self._members[group]
        return True

    def discard(self, member: Member) -> list[Group]:
        """Take the member out of every group. Returns the groups that ended with it."""
        ended = []
        for group in self._groups.pop(member, ()):
            members = self._members[group]
            members.discard(member)
            if not members:
                del self._members[group]
                ended.append(group)
        return ended

    def members(self, group: Group) -> AbstractSet[Member]:
        """The live set: do not keep it over an ``await``."""
        return self._members.get(group, _NOBODY)  # type: ignore[arg-type]  # an empty set of anything

    def groups(self, member: Member) -> tuple[Group, ...]:
        return tuple(self._groups.get(member, ()))

    def has(self, group: Group, member: Member) -> bool:
        members = self._members.get(group)
        return members is not None and member in members

    def count(self, member: Member) -> int:
        """In how many groups the member is."""
        return len(self._groups.get(member, ()))

    def __len__(self) -> int:
        """How many groups have a member."""
        return len(self._members)

    def __iter__(self) -> Iterator[Group]:
        return iter(tuple(self._members))

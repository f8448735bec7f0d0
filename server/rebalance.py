"""Whether a node has more connections than its share, and how many of them it may send to other nodes now. Pure.

Every node tells the others its figures at a fixed interval, so each decides for itself, from figures that are a little
old. Three rules keep that safe. A connection on its way between two nodes must not be missing from the sum, or the
share would look smaller than it is: so a node also tells how many it has sent away lately. What is begun goes on until
the nodes are close together and begins again only when they are far apart, and only after they have been for a while:
so nothing oscillates, and a node that was just killed or started is not taken for an empty one. And while any node
leaves or has fallen silent nobody moves anybody.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

BEGIN: Final = 0.10
"""A node begins when it has so much of the mean more than the emptiest one."""
END: Final = 0.05
"""It ends when it has not, or when it is down to its share."""
MIN_GAP: Final = 4
"""Connections. Smaller differences are none."""


class Figures(NamedTuple):
    """What one node tells of itself."""

    node: str
    connections: int
    moved: int
    """Sent away lately: perhaps counted by nobody yet."""
    leaving: bool
    updated: float
    """By the node's own clock, so it means nothing but that it changes with every announcement."""


def figures(description: Mapping[str, object]) -> Figures:
    """From a node's description; a node of an older release tells less. ValueError for what no node can have said."""
    node, connections = description.get("node"), description.get("connections")
    moved, updated = description.get("moved", 0), description.get("updated", 0.0)
    if not isinstance(node, str) or not _is_count(connections) or not _is_count(moved):
        raise ValueError(f"no description of a node: {description!r:.200}")
    if not isinstance(updated, (int, float)):
        raise ValueError(f"not a time: {updated!r:.50}")
    return Figures(node, int(str(connections)), int(str(moved)), description.get("leaving") is True, updated)


def _is_count(value: object) -> bool:
    return type(value) is int and value >= 0


def share(nodes: Sequence[Figures], *, moving: bool) -> int:
    """How many connections each node would have if all had the same, rounded up. ``moving``: those on their way count
    too; some of them twice, so this errs towards more."""
    total = sum(node.connections + (node.moved if moving else 0) for node in nodes)
    return -(-total // len(nodes))


class Rebalance:
    """One node's own decision. ``announce_s`` is the interval at which nodes tell their figures."""

    def __init__(self, announce_s: float) -> None:
        self.settle_s = 2 * announce_s
        """So long the nodes must be far apart before anything is done about it."""
        self.stale_s = 1.6 * announce_s
        """A node whose figures are older has fallen silent."""
        self.remembered_s = 2 * announce_s
        """So long a connection counts as sent away: older figures than ``stale_s`` are not used, and what it takes to
        come back is less than the rest."""
        self.active = False
        self._apart_since_s: float | None = None
        self._heard: dict[str, tuple[float, float]] = {}
        self._sent: deque[tuple[float, int]] = deque()

    def sent(self, now_s: float, connections: int) -> None:
        """So many were sent away."""
        self._sent.append((now_s, connections))

    def moved(self, now_s: float) -> int:
        """How many were lately."""
        while self._sent and self._sent[0][0] <= now_s - self.remembered_s:
            self._sent.popleft()
        return sum(count for _, count in self._sent)

    def hold(self) -> None:
        """Nothing can be known now: begin anew later."""
        self.active = False
        self._apart_since_s = None

    def surplus(self, now_s: float, own: Figures, others: Sequence[Figures]) -> int:
        """How many connections may go. Never more than the node has above its share."""
        if not others or any(node.leaving for node in others) or self._silent(now_s, others):
            self.hold()
            return 0
        nodes = [own, *others]
        gap = own.connections - min(node.connections for node in others)
        mean = sum(node.connections for node in nodes) / len(nodes)
        above = own.connections > share(nodes, moving=False)
        if not above or gap <= max(MIN_GAP, (END if self.active else BEGIN) * mean):
            self.hold()
            return 0
        if self._apart_since_s is None:
            self._apart_since_s = now_s
        self.active = self.active or now_s - self._apart_since_s >= self.settle_s
        return max(0, own.connections - share(nodes, moving=True)) if self.active else 0

    def _silent(self, now_s: float, others: Sequence[Figures]) -> bool:
        """Whether a node that is still listed says nothing any more: killed, frozen, cut off."""
        heard = self._heard
        self._heard = {}
        for node in others:
            updated, since_s = heard.get(node.node, (None, now_s))
            self._heard[node.node] = (node.updated, since_s if updated == node.updated else now_s)
        return any(now_s - since_s > self.stale_s for _, since_s in self._heard.values())

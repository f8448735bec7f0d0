"""What an installation needs, from what single runs cost: constants, and arithmetic on them. Pure.

CPU of the nodes is a sum over what happens: deliveries, messages heard from Redis (once by every node that has a member
of the room), messages said, connects, and connections that only exist. CPU of Redis is a sum over messages appended,
over what it reads at once from a node (several messages, when they come close together) and sends on at once to each
that hears of it, and over nodes. Everything is per second; CPU is in cores.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

HISTORY_ENTRIES: Final = 1000
HISTORY_S: Final = 300.0
"""What a room's log keeps by default."""
SHARDS: Final = 64
"""Masters beyond these have nothing to do: rooms are spread over so many shards."""
LINK_BITS_PER_S: Final = 10e9
"""The network of a machine, for what a single master must send."""
FEWEST, MOST = 1e-3, 1e4
"""Times as many messages: where walls are looked for."""


@dataclass(frozen=True)
class Constants:
    """CPU in µs, on the machine of the reports."""

    write_us: float
    """Node, per delivery that is a write of its own."""
    joined_us: float
    """Node, per delivery that leaves with another in one write."""
    heard_us: float
    """Node, per message it hears from Redis: a read, and the beginning of a fan-out."""
    said_us: float
    """Node, per message that a client says, its acknowledgement included."""
    connect_us: float
    """Node, per connect-and-join."""
    idle_us: float
    """Node, per connection and second: pings, and the node's own heartbeat."""
    connection_bytes: float
    node_bytes: float
    """Resident memory, per joined connection and of a node without any."""
    append_us: float
    """Redis, per message: what the script does for it."""
    read_us: float
    """Redis, per read: it takes what a node has sent, however many messages that is, and answers in one write."""
    sent_us: float
    """Redis, per read and node that has a member of a room in it: one write."""
    redis_connect_us: float
    """Redis, per connect-and-join with presence."""
    redis_beat_us: float
    """Redis, per node and second: heartbeats and probes."""
    append_bytes: float
    sent_bytes: float
    """On Redis' network: per message to it, and from it per message and node that hears it."""
    log_bytes: float
    user_bytes: float
    """Redis' memory, per message in a log and per user and room, with presence."""
    delivery_bytes: float
    """On the clients' network, WebSocket and JSON included, TCP and TLS not."""


@dataclass(frozen=True)
class Rooms:
    """``count`` rooms of ``members`` each, ``rate`` messages per second in each of them."""

    count: int
    members: int
    rate: float


class Load(NamedTuple):
    connections: int
    rooms: Sequence[Rooms]
    connects_per_s: float

    @property
    def messages(self) -> float:
        return sum(rooms.count * rooms.rate for rooms in self.rooms)

    @property
    def deliveries(self) -> float:
        return sum(rooms.count * rooms.rate * rooms.members for rooms in self.rooms)


class Limits(NamedTuple):
    """``fill``: how much of a core is used at most, the rest is for bursts and for the loss of a neighbour."""

    fill: float = 0.6
    connections_per_node: int = 20_000


def nodes_with_members(members: float, nodes: int) -> float:
    """On how many of the nodes a room of so many members, each on a node by chance, has at least one; expected."""
    return nodes * -math.expm1(members * math.log1p(-1 / nodes)) if nodes > 1 else 1.0


def heard(load: Load, nodes: int) -> float:
    """Messages heard per second by all nodes together."""
    return sum(rooms.count * rooms.rate * nodes_with_members(rooms.members, nodes) for rooms in load.rooms)


def node_cores(constants: Constants, load: Load, nodes: int, messages_per_write: float = 1.0) -> float:
    """CPU of all nodes together. ``messages_per_write``: how many messages of a tick leave in one write; 1 where a
    client hears of one message at a time."""
    writes = load.deliveries / messages_per_write
    return 1e-6 * (
        writes * constants.write_us
        + (load.deliveries - writes) * constants.joined_us
        + heard(load, nodes) / messages_per_write * constants.heard_us
        + load.messages * constants.said_us
        + load.connects_per_s * constants.connect_us
        + load.connections * constants.idle_us
    )


def redis_cores(constants: Constants, load: Load, nodes: int, messages_per_read: float = 1.0) -> float:
    """CPU of one Redis, or of all masters of a cluster together. ``messages_per_read``: how many messages a node sends
    at once; 1 where clients do not speak in step, and more only helps."""
    return 1e-6 * (
        load.messages * constants.append_us
        + load.messages / messages_per_read * constants.read_us
        + heard(load, nodes) / messages_per_read * constants.sent_us
        + load.connects_per_s * constants.redis_connect_us
        + nodes * constants.redis_beat_us
    )


class Sizing(NamedTuple):
    """What a load needs, and how near it is to what cannot be added."""

    nodes: int
    node_share: float
    """Of a core, on each."""
    node_bytes: float
    node_bits_per_s: float
    """To the clients of one node."""
    masters: int
    master_share: float
    redis_bytes: float
    """Memory, of all masters."""
    redis_bits_per_s: float
    """To all nodes, from all masters."""
    back_s: float
    """Until all are back when all lost their connections at once, if clients find every node."""
    walls: dict[str, float]
    """How many times as many messages there could be, on as many more nodes as they need, before each is reached; what
    is never reached is left out."""

    @property
    def breaks_first(self) -> str:
        return min(self.walls, key=lambda name: self.walls[name], default="nothing")


def size(constants: Constants, load: Load, limits: Limits) -> Sizing:
    """The fewest nodes and masters that carry it within the limits."""
    nodes = _fewest_nodes(constants, load, limits)
    cores = redis_cores(constants, load, nodes)
    masters = min(SHARDS, max(1, math.ceil(cores / limits.fill)))
    redis_bits = heard(load, nodes) * constants.sent_bytes * 8
    entries = sum(r.count * min(HISTORY_ENTRIES, r.rate * HISTORY_S) for r in load.rooms)
    in_rooms = sum(r.count * r.members for r in load.rooms)
    return Sizing(
        nodes=nodes,
        node_share=node_cores(constants, load, nodes) / nodes,
        node_bytes=constants.node_bytes + load.connections / nodes * constants.connection_bytes,
        node_bits_per_s=load.deliveries * constants.delivery_bytes * 8 / nodes,
        masters=masters,
        master_share=cores / masters,
        redis_bytes=entries * constants.log_bytes + in_rooms * constants.user_bytes,
        redis_bits_per_s=redis_bits,
        back_s=load.connections / nodes * constants.connect_us * 1e-6,
        walls=_walls(constants, load, limits),
    )


def _fewest_nodes(constants: Constants, load: Load, limits: Limits) -> int:
    """Twice as many until it is enough, then halved in between: more nodes never make one of them busier."""

    def enough(nodes: int) -> bool:
        within = load.connections / nodes <= limits.connections_per_node
        return within and node_cores(constants, load, nodes) / nodes <= limits.fill

    high = 1
    while not enough(high):
        if high > 10**7:
            raise ValueError("no number of nodes is enough: every node hears more messages than it can")
        high *= 2
    low = high // 2  # not enough, or 0
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def uses(constants: Constants, load: Load, limits: Limits) -> dict[str, float]:
    """How much is used of what more nodes do not help against, with as many nodes as the load needs; 1 is all of it. A
    room is on one master, whatever there is of others. ValueError if no number of nodes is enough."""
    nodes = _fewest_nodes(constants, load, limits)
    busiest = max(load.rooms, key=lambda rooms: rooms.rate * nodes_with_members(rooms.members, nodes))
    hearers = nodes_with_members(busiest.members, nodes)
    of_master = 1e-6 * busiest.rate * (constants.append_us + constants.read_us + hearers * constants.sent_us)
    return {
        "the core of the master of the busiest room": of_master / limits.fill,
        "the network of that master": busiest.rate * hearers * constants.sent_bytes * 8 / LINK_BITS_PER_S,
        f"the cores of {SHARDS} masters": redis_cores(constants, load, nodes) / SHARDS / limits.fill,
        "the core of a node, by what it hears": 1e-6 * heard(load, nodes) / nodes * constants.heard_us / limits.fill,
    }


def _walls(constants: Constants, load: Load, limits: Limits) -> dict[str, float]:
    """How many times as many messages there could be before each use is 1: by halving on a logarithmic scale."""
    if not load.messages:
        return {}
    walls = {}
    for name in uses(constants, load, limits):
        low, high = math.log(FEWEST), math.log(MOST)
        while high - low > 0.001:
            middle = (low + high) / 2
            times = math.exp(middle)
            more = load._replace(rooms=[replace(rooms, rate=rooms.rate * times) for rooms in load.rooms])
            try:
                full = uses(constants, more, limits)[name] >= 1
            except ValueError:
                full = True
            low, high = (low, middle) if full else (middle, high)
        if high < math.log(MOST):
            walls[name] = math.exp(low)
    return walls

"""Scenario ``masters``: the same load on one Redis and on clusters, to see how it spreads over the masters.

Two nodes; every room has a publisher on the one and a member on the other, so each message goes through Redis to the
other node. On a small machine nodes and clients are the limit and not Redis; so what counts is the CPU that each master
spends on a given rate, and the rate at which the busiest one would have its core full.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from rich.console import Console
from typer import Option

from loadtests.curves import distribution, per_second, quantile
from loadtests.errors import SetupError
from loadtests.options import Seconds
from loadtests.redis_masters import HOST, START_S, Master, Node, redis_and_nodes
from loadtests.result import Column, Distribution, Plot, Result, Sample, Timeline
from loadtests.sampling import MACHINE_PLOTS, Watch
from loadtests.stage import allow_open_files
from loadtests.steps import Tell, steps
from loadtests.websocket import WebSocket

SETTLE_S = 10.0
TICK_S = 0.01
PAYLOAD = "x" * 100
COLUMNS = (
    Column("acked_per_s", "messages acknowledged per second"),
    Column("deliveries_per_s", "deliveries per second"),
    Column("lost", "messages lost"),
    Column("reordered", "out of order, or twice"),
    Column("us_per_publish", "CPU of all masters per message, µs", 1),
    Column("calls_per_publish", "calls of scripts per message", 2),
    Column("reads_per_publish", "reads by the masters per message", 2),
    Column("busiest_share", "busiest master's core", percent=True),
    Column("cpu_evenness", "busiest master to the mean", 2),
    Column("full_at_per_s", "messages per second with the busiest master's core full"),
    Column("room_evenness", "rooms: fullest master to the mean", 2),
    Column("user_evenness", "users online: fullest master to the mean", 2),
    Column("ack_p99_ms", "p99 from publish to its acknowledgement, ms", 1),
)
PLOTS: tuple[Plot, ...] = (
    Timeline("Deliveries", "per second", {"per_s": ""}),
    Distribution("From published to acknowledged", "ack_us"),
    *MACHINE_PLOTS,
)


@dataclass(frozen=True)
class Masters:
    """The same load on one Redis and on Redis Cluster: CPU of each master, and how evenly rooms and users are spread.

    Nodes run on the first core, the masters on the last. Checks that every message reached the member on the other node
    once and in order.
    """

    masters: Annotated[str, Option(help="How many, compared: 1 is a Redis without a cluster.")] = "1,3"
    rooms: Annotated[int, Option(min=1, help="Each with a publisher on one node and a member on the other.")] = 300
    rate: Annotated[int, Option(min=1, help="Messages per second, all rooms together.")] = 3000
    duration_s: Seconds = 10.0

    @property
    def counts(self) -> list[int]:
        """SetupError for what is not a list of numbers."""
        try:
            counts = [int(count) for count in self.masters.split(",")]
        except ValueError:
            counts = []
        if not counts or min(counts) < 1:
            raise SetupError(f"--masters {self.masters}: give numbers of masters as in 1,3")
        return counts


def run(scenario: Masters, console: Console) -> Result:
    """Raises :class:`loadtests.errors.SetupError` when it could not be measured."""
    allow_open_files(4 * scenario.rooms)
    samples = []
    with steps(len(scenario.counts), console) as progress:
        for count in scenario.counts:
            name = f"{count} master{'s' * (count > 1)}"
            with progress.step(name) as tell, redis_and_nodes(count) as (servers, nodes):
                samples.append(asyncio.run(_load(name, scenario, servers, nodes, tell)))
    parameters = {
        "rooms": scenario.rooms,
        "messages/s": scenario.rate,
        "seconds": scenario.duration_s,
        "nodes": 2,
        "presence": "none",
    }
    return Result("masters", parameters, COLUMNS, [], samples, plots=PLOTS)


class Peer:
    """One connection in one room: the publisher's acks, or the member's messages."""

    def __init__(self, room: str, changed: asyncio.Event) -> None:
        self.room = room
        self.changed = changed
        """Set with every message heard, of all peers."""
        self.joined, self.gone = asyncio.Event(), asyncio.Event()
        self.heard = self.acked = self.reordered = 0
        self.sent_s: list[float] = []
        self.took_s: list[float] = []
        self.heard_s: list[float] = []
        self._offset = 0
        self.socket: WebSocket | None = None

    def opened(self) -> None:
        """Rooms are joined when the welcome comes."""

    def received(self, text: bytes) -> None:
        frame = json.loads(text)
        if frame["op"] == "welcome":
            self.say(op="join", room=self.room, id=0)
        elif frame["op"] == "reply" and frame["id"] == 0:
            self.joined.set()
        elif frame["op"] == "reply":
            if frame["ok"]:
                self.acked += 1
                self.took_s.append(time.monotonic() - self.sent_s[frame["id"] - 1])
        elif frame.get("type") == "message":
            self.heard += 1
            self.heard_s.append(time.monotonic())
            self.changed.set()
            self.reordered += self._offset != 0 and frame["offset"] != self._offset + 1
            self._offset = frame["offset"]

    def closed(self, code: int) -> None:
        """Before the end: seen as messages lost."""
        self.gone.set()

    def say(self, **fields: object) -> None:
        assert self.socket is not None
        self.socket.send(json.dumps(fields).encode())

    def publish(self) -> None:
        self.sent_s.append(time.monotonic())
        number = len(self.sent_s)
        # With a key for retries, as clients do.
        self.say(op="message", room=self.room, data=PAYLOAD, key=f"k{number}", id=number)


async def _enter(room: str, user: str, port: int, changed: asyncio.Event) -> Peer:
    peer = Peer(room, changed)
    socket = WebSocket(peer, HOST, f"/ws?user={user}")
    peer.socket = socket
    await asyncio.get_running_loop().create_connection(lambda: socket, HOST, port)
    try:
        await asyncio.wait_for(peer.joined.wait(), START_S)
    except TimeoutError:
        raise SetupError(f"{user} could not join {room}: look at the node's log") from None
    return peer


async def _load(name: str, scenario: Masters, servers: Sequence[Master], nodes: Sequence[Node], tell: Tell) -> Sample:
    rooms = [f"room-{number}" for number in range(scenario.rooms)]
    changed = asyncio.Event()
    tell(f"{scenario.rooms} rooms")
    members = [await _enter(room, f"m-{room}", nodes[1].port, changed) for room in rooms]
    publishers = [await _enter(room, f"p-{room}", nodes[0].port, changed) for room in rooms]
    tell(f"{scenario.rate:,} messages/s for {scenario.duration_s:g} s")
    calls, reads = sum(server.calls() for server in servers), sum(server.reads() for server in servers)
    before = [server.cpu_s() for server in servers]
    watch = Watch(lambda: [node.child.pid for node in nodes])
    began_s = time.monotonic()
    published = 0
    while (elapsed_s := time.monotonic() - began_s) < scenario.duration_s:
        while published < elapsed_s * scenario.rate:
            publishers[published % len(publishers)].publish()
            published += 1
        await asyncio.sleep(TICK_S)
    with contextlib.suppress(TimeoutError):  # what is missing then is lost
        async with asyncio.timeout(SETTLE_S):
            while sum(peer.heard for peer in members) < published:
                changed.clear()
                await changed.wait()
    window_s = time.monotonic() - began_s
    cpu_s = [server.cpu_s() - was for server, was in zip(servers, before, strict=True)]
    used = watch.close()
    calls = sum(server.calls() for server in servers) - calls
    reads = sum(server.reads() for server in servers) - reads
    held = [server.held() for server in servers]
    took_s = [seconds for peer in publishers for seconds in peer.took_s]
    seen = {
        "per_s": per_second([at_s for peer in members for at_s in peer.heard_s], began_s),
        "ack_us": distribution(seconds * 1e6 for seconds in took_s),
    }
    heard, acked = sum(peer.heard for peer in members), len(took_s)
    for peer in (*members, *publishers):
        if peer.socket is not None:
            peer.socket.abort()
    await asyncio.gather(*(peer.gone.wait() for peer in (*members, *publishers)))
    figures = {
        **used,
        "acked_per_s": acked / window_s,
        "deliveries_per_s": (heard + sum(peer.heard for peer in publishers)) / window_s,
        "lost": float(published - heard),
        "reordered": float(sum(peer.reordered for peer in (*members, *publishers))),
        "us_per_publish": sum(cpu_s) / published * 1e6,
        "busiest_share": max(cpu_s) / window_s,
        "cpu_evenness": max(cpu_s) * len(cpu_s) / sum(cpu_s),
        "full_at_per_s": published / max(cpu_s),
        "room_evenness": _evenness([rooms for rooms, _ in held]),
        "user_evenness": _evenness([users for _, users in held]),
        "ack_p99_ms": quantile(took_s, 0.99) * 1e3,
        "calls_per_publish": calls / published,
        "reads_per_publish": reads / published,
    }
    return Sample(name, figures, seen | watch.curves)


def _evenness(counts: Sequence[int]) -> float:
    return max(counts) * len(counts) / max(1, sum(counts))

"""Scenario ``masters``: the same load on one Redis and on clusters, to see how it spreads over the masters.

Two nodes; every room has a publisher on the one and a member on the other, so each message goes through Redis to the
other node. On a small machine nodes and clients are the limit and not Redis; so what counts is the CPU that each master
spends on a given rate, and the rate at which the busiest one would have its core full.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import redis
from rich.console import Console
from typer import Option

from loadtests.curves import distribution, per_second, quantile
from loadtests.errors import SetupError
from loadtests.options import Seconds
from loadtests.processes import Child, free_port, wait_for_port, wait_until_ready
from loadtests.result import Column, Distribution, Plot, Result, Sample, Timeline
from loadtests.sampling import MACHINE_PLOTS, Watch
from loadtests.stage import allow_open_files
from loadtests.steps import Tell, steps
from loadtests.websocket import WebSocket

SLOTS = 16384
_BARE = str.maketrans("", "", " '")
START_S = 20.0
SETTLE_S = 10.0
TICK_S = 0.01
HOST = "127.0.0.1"
PAYLOAD = "x" * 100
COLUMNS = (
    Column("acked_per_s", "messages acknowledged per second"),
    Column("deliveries_per_s", "deliveries per second"),
    Column("lost", "messages lost"),
    Column("reordered", "out of order, or twice"),
    Column("us_per_publish", "CPU of all masters per message, µs", 1),
    Column("calls_per_publish", "commands to the masters per message", 2),
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


class Server(NamedTuple):
    child: Child
    port: int
    client: redis.Redis

    def calls(self) -> int:
        """Commands it was sent, those of other masters and of this program included, which are few."""
        return int(self.client.info("stats")["total_commands_processed"])

    def cpu_s(self) -> float:
        found = self.client.info("cpu")
        return float(found["used_cpu_sys"]) + float(found["used_cpu_user"])


class Node(NamedTuple):
    child: Child
    port: int


def run(scenario: Masters, console: Console) -> Result:
    """Raises :class:`loadtests.errors.SetupError` when it could not be measured."""
    allow_open_files(4 * scenario.rooms)
    samples = []
    with steps(len(scenario.counts), console) as progress:
        for count in scenario.counts:
            name = f"{count} master{'s' * (count > 1)}"
            with progress.step(name) as tell, _installation(count) as (servers, nodes):
                samples.append(asyncio.run(_load(name, scenario, servers, nodes, tell)))
    parameters = {"rooms": scenario.rooms, "messages/s": scenario.rate, "seconds": scenario.duration_s, "nodes": 2}
    return Result("masters", parameters, COLUMNS, [], samples, plots=PLOTS)


# What is measured.


@contextmanager
def _installation(masters: int) -> Iterator[tuple[list[Server], list[Node]]]:
    """The masters, and two nodes."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="roomcast-loadtests-")))
        cores = sorted(os.sched_getaffinity(0))
        servers = [_start_redis(stack, folder, number, masters > 1, cores[-1]) for number in range(masters)]
        hosts = ",".join(f"{HOST}:{server.port}" for server in servers)
        if masters > 1:
            _form(servers)
        broker = f"redis+cluster://{hosts}" if masters > 1 else f"redis://{hosts}/0"
        nodes = []
        for number in range(2):
            port = free_port()
            environment = {
                "ROOMCAST_HOST": HOST,
                "ROOMCAST_PORT": str(port),
                "ROOMCAST_BROKER": broker,
                "ROOMCAST_DEV": "1",
                "ROOMCAST_LOG_LEVEL": "warning",
                "ROOMCAST_PRESENCE_BROADCAST": "none",
                "ROOMCAST_REQUESTS_PER_S": "1000000",
                "ROOMCAST_REQUESTS_BURST": "1000000",
            }
            command: list[str | Path] = [sys.executable, "-m", "server", "serve"]
            child = Child(f"node-{number}", command, folder=folder, core=cores[0], environment=environment)
            stack.enter_context(child)
            wait_until_ready(port, child, timeout_s=START_S)
            nodes.append(Node(child, port))
        yield servers, nodes


def _start_redis(stack: ExitStack, folder: Path, number: int, clustered: bool, core: int) -> Server:
    port, place = free_port(), folder / f"redis-{number}"
    place.mkdir()
    command: list[str | Path] = ["redis-server", "--port", str(port), "--bind", HOST, "--appendonly", "no"]
    command += ["--save", ""]
    command += ["--maxmemory-policy", "noeviction", "--dir", place]
    if clustered:
        command += ["--cluster-enabled", "yes", "--cluster-port", str(free_port())]
    child = stack.enter_context(Child(f"redis-{number}", command, folder=place, core=core))
    wait_for_port(port, child, timeout_s=START_S)
    return Server(child, port, stack.enter_context(redis.Redis(HOST, port, protocol=2, decode_responses=True)))


def _form(servers: Sequence[Server]) -> None:
    """Give each master its part of the slots and let them meet."""
    for number, (_, _, client) in enumerate(servers):
        first, end = (SLOTS * step // len(servers) for step in (number, number + 1))
        _command(client, "CLUSTER ADDSLOTSRANGE", first, end - 1)
        _command(client, "CLUSTER SET-CONFIG-EPOCH", number + 1)
        bus = servers[0].client.config_get("cluster-port")["cluster-port"]
        if number:
            _command(client, "CLUSTER MEET", HOST, servers[0].port, bus)
    until_s = time.monotonic() + START_S
    while not all(_covered(server) for server in servers):
        if time.monotonic() > until_s:
            raise SetupError("the masters did not form a cluster: look for other servers on their ports")
        time.sleep(0.05)


def _command(client: redis.Redis, *arguments: object) -> Any:
    return client.execute_command(*arguments)  # type: ignore[no-untyped-call]


def _covered(server: Server) -> bool:
    """Whether it knows an owner of every slot. The reply is text or, parsed already, a mapping."""
    return f"cluster_slots_ok:{SLOTS}" in str(_command(server.client, "CLUSTER INFO")).translate(_BARE)


def _held(server: Server) -> tuple[int, int]:
    """Rooms with a log, and users online, on one master."""
    rooms = sum(1 for _ in server.client.scan_iter("roomcast:{*}:meta:*", count=1000))
    users = [key for key in server.client.scan_iter("roomcast:{*}:presence:all", count=1000)]
    return rooms, sum(int(server.client.hlen(key)) - 2 for key in users)


# The load.


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
        self.say(op="message", room=self.room, data=PAYLOAD, id=len(self.sent_s))


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


async def _load(name: str, scenario: Masters, servers: Sequence[Server], nodes: Sequence[Node], tell: Tell) -> Sample:
    rooms = [f"room-{number}" for number in range(scenario.rooms)]
    changed = asyncio.Event()
    tell(f"{scenario.rooms} rooms")
    members = [await _enter(room, f"m-{room}", nodes[1].port, changed) for room in rooms]
    publishers = [await _enter(room, f"p-{room}", nodes[0].port, changed) for room in rooms]
    tell(f"{scenario.rate:,} messages/s for {scenario.duration_s:g} s")
    calls = sum(server.calls() for server in servers)
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
    held = [_held(server) for server in servers]
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
    }
    return Sample(name, figures, seen | watch.curves)


def _evenness(counts: Sequence[int]) -> float:
    return max(counts) * len(counts) / max(1, sum(counts))

"""Scenarios ``chat`` and ``many-rooms``: every member speaks, and hears what the others in its rooms say."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import uvloop
from rich.console import Console
from typer import Option

from loadtests.accounting import rss_bytes
from loadtests.curves import distribution, per_second, quantile
from loadtests.errors import SetupError
from loadtests.member import Member, Seen
from loadtests.options import Samples, Seconds, TalkRate
from loadtests.result import Column, Distribution, Goal, Plot, Result, Sample, Split, Timeline
from loadtests.sampling import CPU_TIMELINE, MEMORY, Window, alternate, trust_notes
from loadtests.stage import Server, Stage, allow_open_files
from loadtests.steps import Tell

COLUMNS = (
    Column("messages_per_s", "messages/s"),
    Column("deliveries_per_s", "deliveries/s"),
    Column("delivered_share", "of those expected", percent=True),
    Column("cpu_us_per_message", "server CPU µs per message", 1),
    Column("user_us_per_message", "of that beyond the kernel", 1),
    Column("budget_share", "of 40 µs per message and 3 µs per delivery", 2),
    Column("cpu_share", "server CPU of its core", percent=True),
    Column("p50_us", "latency p50 µs"),
    Column("p99_us", "latency p99 µs"),
    Column("ack_p99_us", "acknowledged p99 µs"),
    Column("redis_us_per_message", "Redis CPU µs per message", 1),
    Column("redis_reads_per_message", "reads by Redis per message", 2),
    Column("redis_in_bytes_per_message", "bytes to Redis per message"),
    Column("redis_out_bytes_per_message", "bytes from Redis per message"),
    Column("redis_bytes_per_message", "Redis memory per message, bytes"),
    Column("rss_mib", "server RSS MiB", 1),
    Column("lost", "lost"),
    Column("duplicated", "duplicated"),
    Column("load_core_busy", "load core busy", percent=True),
)
MESSAGE_US, DELIVERY_US = 40.0, 3.0
ARRIVING = 64
"""Connections that are being opened at the same time."""
TICK_S = 0.005
QUIET_S = 5.0
"""Waited for what has not arrived, from the last that did."""
PAD = "x" * 60
PLOTS: tuple[Plot, ...] = (
    Timeline("Deliveries", "per second", {"per_s": ""}),
    Distribution("Latency, from said to heard", "latency_us"),
    Distribution("From said to acknowledged", "ack_us"),
    Split(
        "CPU of the server", "µs per message and its deliveries", {"user_us_per_message": "user", "kernel_us": "kernel"}
    ),
    CPU_TIMELINE,
    MEMORY,
)


@dataclass(frozen=True)
class Chat:
    """Rooms of five in which everybody speaks: messages in, through Redis with log and dedup key, and out.

    The baseline passes messages on without Redis. Goal at 1,000 rooms: beyond the kernel's part at most 40 µs of node
    CPU per message and 3 µs per delivery.
    """

    rooms: Annotated[int, Option(min=1, help="Rooms of five.")] = 1000
    rate: TalkRate = 2000
    duration_s: Seconds = 10.0
    samples: Samples = 3

    def talk(self, warmup_s: float = 2.0) -> Talk:
        return Talk("chat", 5 * self.rooms, self.rooms, 1, self.rate, self.duration_s, warmup_s, self.samples)


@dataclass(frozen=True)
class ManyRooms:
    """Connections that are in 50 rooms each, as a client with many conversations is."""

    connections: Annotated[int, Option(min=10, help="Connections, each in 50 rooms of ten.")] = 200
    rate: TalkRate = 1000
    duration_s: Seconds = 10.0
    samples: Samples = 3

    def talk(self) -> Talk:
        return Talk(
            "many-rooms", self.connections, self.connections * 5, 50, self.rate, self.duration_s, samples=self.samples
        )


@dataclass(frozen=True)
class Talk:
    """``members`` connections; each is in ``rooms_each`` of the ``rooms``, which are all equally full."""

    name: str
    members: int
    rooms: int
    rooms_each: int
    rate: int
    duration_s: float = 10.0
    warmup_s: float = 2.0
    samples: int = 3

    @property
    def room_size(self) -> int:
        return self.members * self.rooms_each // self.rooms

    def rooms_of(self, member: int) -> list[str]:
        """Neighbours share rooms: those who share one share all, as colleagues do."""
        first = member // self.room_size * self.rooms_each
        return [f"room{(first + number) % self.rooms}" for number in range(self.rooms_each)]

    def goals(self) -> list[Goal]:
        """The goal stated for a chat of 1,000 rooms of 5."""
        if (self.name, self.rooms, self.members) == ("chat", 1000, 5000):
            return [Goal("budget_share", "value", None, 1.0, "1,000 × 5")]
        return []


class Talkers:
    """The members, and what became of what they said."""

    def __init__(self, scenario: Talk, address: tuple[str, int]) -> None:
        self.members = [
            Member(f"user{number}", scenario.rooms_of(number), address, self._heard)
            for number in range(scenario.members)
        ]
        for member in self.members:
            member.acked = self._acked
        self.room_size = scenario.room_size
        self.latencies_us: list[float] = []
        self.heard_s: list[float] = []
        self.acks_us: list[float] = []
        self.said = 0
        self._keys = itertools.count()

    def _heard(self, message: Seen) -> None:
        now_ns = time.monotonic_ns()
        self.latencies_us.append((now_ns - int(message.data["sent_ns"])) / 1e3)
        self.heard_s.append(now_ns / 1e9)

    def _acked(self, message: Seen) -> None:
        self.acks_us.append((time.monotonic_ns() - int(message.data["sent_ns"])) / 1e3)

    async def talk(self, rate: int, duration_s: float) -> float:
        """Say ``rate`` messages a second, each by a member and in a room chosen by chance. Returns how long it took."""
        begin_s, said = time.monotonic(), 0
        while (elapsed_s := time.monotonic() - begin_s) < duration_s:
            while said < elapsed_s * rate:
                said += 1
                self._say(random.choice(self.members))
            await asyncio.sleep(TICK_S)
        return time.monotonic() - begin_s

    def _say(self, member: Member) -> None:
        self.said += 1
        data = {"seq": f"{self.said:012d}", "sent_ns": f"{time.monotonic_ns():020d}", "pad": PAD}
        member.publish(random.choice(list(member.places)), f"k{next(self._keys)}", data)

    async def settled(self) -> None:
        """Return when all that was said has been heard and acknowledged, or nothing came for ``QUIET_S``."""
        quiet_since_s, seen = time.monotonic(), -1
        while self.missing and time.monotonic() - quiet_since_s < QUIET_S:
            now = len(self.latencies_us) + len(self.acks_us)
            if now != seen:
                quiet_since_s, seen = time.monotonic(), now
            await asyncio.sleep(TICK_S)

    @property
    def missing(self) -> int:
        """Deliveries and acknowledgements that are still to come."""
        return self.said * (self.room_size + 1) - len(self.latencies_us) - len(self.acks_us)

    def forget(self) -> None:
        """Latencies and counts begin anew; positions stay."""
        self.latencies_us.clear()
        self.heard_s.clear()
        self.acks_us.clear()
        self.said = 0

    def verdict(self) -> dict[str, float]:
        return {
            "lost": max(0, self.missing) + sum(member.holes for member in self.members),
            "duplicated": sum(member.repeats for member in self.members),
            "closed": sum(len(member.closes) for member in self.members),
        }


def run_chat(scenario: Chat, stage: Stage, console: Console) -> Result:
    return run(scenario.talk(), stage, console)


def run_many_rooms(scenario: ManyRooms, stage: Stage, console: Console) -> Result:
    return run(scenario.talk(), stage, console)


def run(scenario: Talk, stage: Stage, console: Console) -> Result:
    """Raises :class:`SetupError` when it could not be measured. Lost messages are in the result, not an exception."""
    allow_open_files(scenario.members)

    def measure(server: Server, tell: Tell) -> Sample:
        return uvloop.run(_measure(scenario, stage, server, tell))

    with stage.load_here(), stage.local_baseline():
        samples = alternate(scenario.samples, measure, stage, console)
    parameters = {
        "members": scenario.members,
        "rooms": scenario.rooms,
        "rooms of each": scenario.rooms_each,
        "messages/s": scenario.rate,
        "seconds": scenario.duration_s,
        "samples": scenario.samples,
        **stage.parameters,
    }
    notes = trust_notes(samples, pinned=stage.load_core is not None)
    return Result(scenario.name, parameters, COLUMNS, scenario.goals(), samples, notes, plots=PLOTS)


async def _measure(scenario: Talk, stage: Stage, server: Server, tell: Tell) -> Sample:
    talkers = Talkers(scenario, ("127.0.0.1", server.port))
    tell(f"{scenario.members:,} members arrive")
    await arrive(talkers.members)
    tell("warming up")
    await talkers.talk(scenario.rate, scenario.warmup_s)
    await talkers.settled()
    warm = talkers.verdict()
    talkers.forget()
    tell(f"{scenario.rate:,} messages/s for {scenario.duration_s:g} s")
    window, began_s = Window(server.pids, stage), time.monotonic()
    elapsed_s = await talkers.talk(scenario.rate, scenario.duration_s)
    await talkers.settled()
    server_side = window.close()
    rss_mib = rss_bytes(server.child.pid) / 2**20
    verdict = talkers.verdict()
    verdict["lost"] += max(0.0, warm["lost"] - sum(member.holes for member in talkers.members))
    heard, said = len(talkers.latencies_us), max(1, talkers.said)
    user_us = server_side["cpu_s"] * (1 - server_side["kernel_share"]) * 1e6
    for member in talkers.members:
        member.leave()
    await asyncio.sleep(TICK_S)
    figures = {
        **server_side,
        **verdict,
        "deliveries": heard,
        "messages_per_s": talkers.said / elapsed_s,
        "deliveries_per_s": heard / elapsed_s,
        "delivered_share": heard / (said * scenario.room_size),
        "cpu_us_per_message": server_side["cpu_s"] * 1e6 / said,
        "user_us_per_message": user_us / said,
        "kernel_us": (server_side["cpu_s"] * 1e6 - user_us) / said,
        "budget_share": user_us / (MESSAGE_US * said + DELIVERY_US * heard),
        "p50_us": quantile(talkers.latencies_us, 0.5),
        "p99_us": quantile(talkers.latencies_us, 0.99),
        "ack_p99_us": quantile(talkers.acks_us, 0.99),
        "redis_us_per_message": server_side["redis_cpu_s"] * 1e6 / said,
        "redis_reads_per_message": server_side["redis_reads"] / said,
        **{
            f"redis_{kind}_per_message": server_side[f"redis_{name}"] / said
            for kind, name in (("in_bytes", "in_bytes"), ("out_bytes", "out_bytes"), ("bytes", "used_bytes"))
        },
        "rss_mib": rss_mib,
    }
    seen = {
        "per_s": per_second(talkers.heard_s, began_s),
        "latency_us": distribution(talkers.latencies_us),
        "ack_us": distribution(talkers.acks_us),
    }
    return Sample(server.kind, figures, seen | window.curves)


async def arrive(members: Sequence[Member]) -> None:
    """Return when all are in all of their rooms. SetupError when nobody arrives any more."""
    waiting, coming = list(members), list[Member]()
    moved_s = time.monotonic()
    while waiting or coming:
        still = [member for member in coming if not member.here]
        if len(still) < len(coming):
            moved_s = time.monotonic()
        coming = still
        while waiting and len(coming) < ARRIVING:
            coming.append(waiting.pop())
            coming[-1].connect()
        if time.monotonic() - moved_s > 20:
            raise SetupError(f"{len(waiting) + len(coming)} members did not get into their rooms")
        await asyncio.sleep(0.001)

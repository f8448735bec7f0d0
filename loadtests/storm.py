"""Scenario ``reconnect-storm``: everybody loses the connection at once, misses messages, and comes back at once."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Annotated

import uvloop
from rich.console import Console
from typer import Option

from loadtests.accounting import rss_bytes
from loadtests.curves import distribution, per_second, quantile
from loadtests.errors import SetupError
from loadtests.member import Member, Seen
from loadtests.options import Samples
from loadtests.result import Column, Distribution, Plot, Result, Sample, Timeline
from loadtests.sampling import MACHINE_PLOTS, Window, alternate, trust_notes
from loadtests.stage import Server, Stage, allow_open_files
from loadtests.steps import Tell
from loadtests.talk import arrive

COLUMNS = (
    Column("back_per_s", "clients back/s"),
    Column("back_p50_ms", "back after, p50 ms"),
    Column("back_p99_ms", "back after, p99 ms"),
    Column("back_max_ms", "back after, the last, ms"),
    Column("cpu_us_per_client", "server CPU µs per client", 1),
    Column("cpu_share", "server CPU of its core", percent=True),
    Column("redis_calls_per_client", "Redis calls per client", 3),
    Column("redis_cpu_share", "Redis CPU of its core", percent=True),
    Column("rss_mib", "server RSS MiB", 1),
    Column("tries", "further tries"),
    Column("lost", "lost"),
    Column("duplicated", "duplicated"),
    Column("resets", "not recovered"),
    Column("load_core_busy", "load core busy", percent=True),
)
LOOK_S = 0.002
BACK_S = 60.0
"""Whoever is not back by then is lost."""
ROOM_SIZE = 100
PLOTS: tuple[Plot, ...] = (
    Timeline("Clients back", "per second", {"per_s": ""}),
    Distribution("Back after", "back_ms", "ms"),
    *MACHINE_PLOTS,
)


@dataclass(frozen=True)
class Storm:
    """Everybody loses the connection at the same moment, misses messages, and comes back at the same moment."""

    members: Annotated[int, Option(min=1, help="Clients in rooms of a hundred.")] = 10_000
    missed: Annotated[int, Option(min=0, help="Messages to each room while they are away.")] = 10
    samples: Samples = 1


def run(scenario: Storm, stage: Stage, console: Console) -> Result:
    """Raises :class:`SetupError` when it could not be measured. The baseline keeps nothing: its clients only return."""
    allow_open_files(scenario.members)

    def measure(server: Server, tell: Tell) -> Sample:
        return uvloop.run(_measure(scenario, stage, server, tell))

    with stage.load_here(), stage.local_baseline():
        samples = alternate(scenario.samples, measure, stage, console)
    parameters = {
        "members": scenario.members,
        "room size": ROOM_SIZE,
        "missed in each room": scenario.missed,
        "samples": scenario.samples,
        **stage.parameters,
    }
    notes = trust_notes(samples, pinned=stage.load_core is not None)
    return Result("reconnect-storm", parameters, COLUMNS, [], samples, notes, plots=PLOTS)


class Rooms:
    """The members, one speaker per room who stays, and how far each room has come."""

    def __init__(self, scenario: Storm, address: tuple[str, int]) -> None:
        rooms = [f"room{number}" for number in range(-(-scenario.members // ROOM_SIZE))]
        self.members = [
            Member(f"user{number}", [rooms[number // ROOM_SIZE]], address, self._heard)
            for number in range(scenario.members)
        ]
        self.speakers = [Member(f"speaker {room}".replace(" ", "-"), [room], address, self._heard) for room in rooms]
        self.tops: dict[str, int] = dict.fromkeys(rooms, 0)
        for speaker in self.speakers:
            speaker.acked = self._acked

    def _heard(self, message: Seen) -> None:
        pass

    def _acked(self, message: Seen) -> None:
        self.tops[message.room] = max(self.tops[message.room], message.offset)

    async def speak(self, times: int) -> None:
        """Every speaker says so much; return when it is acknowledged."""
        for speaker in self.speakers:
            (room,) = speaker.places
            for number in range(times):
                speaker.publish(room, f"k{self.tops[room]}-{number}", {"text": "x" * 80})
        deadline_s = time.monotonic() + 30
        while any(speaker.unacked for speaker in self.speakers):
            if time.monotonic() > deadline_s:
                raise SetupError("messages were not acknowledged within 30 s")
            await asyncio.sleep(LOOK_S)

    def behind(self) -> int:
        """Messages that members have not seen."""
        return sum(
            self.tops[room] - (place.offset if place is not None else 0)
            for member in self.members
            for room, place in member.places.items()
        )


async def _measure(scenario: Storm, stage: Stage, server: Server, tell: Tell) -> Sample:
    rooms = Rooms(scenario, ("127.0.0.1", server.port))
    tell(f"{scenario.members:,} members arrive")
    await arrive([*rooms.speakers, *rooms.members])
    await rooms.speak(1)
    deadline_s = time.monotonic() + 30
    while rooms.behind():
        if time.monotonic() > deadline_s:
            raise SetupError("the first message did not reach everybody within 30 s")
        await asyncio.sleep(LOOK_S)
    for member in rooms.members:
        member.drop()
    tell("everybody is away")
    await rooms.speak(scenario.missed)
    tell("everybody comes back")
    window = Window(server.pids, stage)
    begin_s = time.monotonic()
    for member in rooms.members:
        member.connect()
    away, back_ms = list(rooms.members), list[float]()
    while away and time.monotonic() - begin_s < BACK_S:
        await asyncio.sleep(LOOK_S)
        at_ms = (time.monotonic() - begin_s) * 1e3
        back_ms += [at_ms for member in away if member.here]
        away = [member for member in away if not member.here]
    elapsed_s = time.monotonic() - begin_s
    server_side = window.close()
    everybody = [*rooms.members, *rooms.speakers]
    kept = server.kind == "node"
    figures = {
        **server_side,
        "back_per_s": len(back_ms) / elapsed_s,
        "back_p50_ms": quantile(back_ms, 0.5),
        "back_p99_ms": quantile(back_ms, 0.99),
        "back_max_ms": max(back_ms, default=0.0),
        "cpu_us_per_client": server_side["cpu_s"] * 1e6 / scenario.members,
        "redis_calls_per_client": server_side["redis_calls"] / scenario.members,
        "redis_cpu_share": server_side["redis_cpu_s"] / elapsed_s,
        "rss_mib": rss_bytes(server.child.pid) / 2**20,
        "tries": sum(len(member.closes) for member in everybody),
        "lost": (rooms.behind() + sum(member.holes for member in everybody)) * kept,
        "duplicated": sum(member.repeats for member in everybody),
        "resets": sum(member.resets for member in everybody) * kept,
        "failed": len(away),
    }
    for member in everybody:
        member.leave()
    await asyncio.sleep(LOOK_S)
    seen = {"per_s": per_second([at_ms / 1e3 for at_ms in back_ms], 0.0), "back_ms": distribution(back_ms)}
    return Sample(server.kind, figures, seen | window.curves)

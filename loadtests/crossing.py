"""Scenario ``cross-node``: said on one node, heard on another, and the same over two bare C loops."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated

from rich.console import Console
from typer import Option

from loadtests.accounting import rss_bytes
from loadtests.fanout import DELIVERIES, LATENCY, SETTLE_S
from loadtests.options import RoomRate, Samples, Seconds
from loadtests.result import Column, Goal, Plot, Result, Sample
from loadtests.sampling import MACHINE_PLOTS, Window, trust_notes
from loadtests.stage import IN_FLIGHT, KINDS, Kind, Server, Stage, allow_open_files
from loadtests.steps import Tell, steps

COLUMNS = (
    Column("deliveries_per_s", "deliveries/s"),
    Column("p50_us", "from due to heard p50 µs"),
    Column("p99_us", "from due to heard p99 µs"),
    Column("p999_us", "from due to heard p99.9 µs"),
    Column("max_us", "from due to heard max µs"),
    Column("cpu_share", "CPU of both servers, of their core", percent=True),
    Column("kernel_share", "of that in the kernel", percent=True),
    Column("redis_us_per_message", "Redis CPU µs per message", 1),
    Column("rss_mib", "RSS MiB of both", 1),
    Column("lost", "lost"),
    Column("duplicated", "duplicated"),
    Column("load_core_busy", "load core busy", percent=True),
)
PLOTS: tuple[Plot, ...] = (DELIVERIES, LATENCY, *MACHINE_PLOTS)
WARM_S = 1.0
UNHURRIED = {
    "requests_per_s": "1000000",
    "requests_burst": "1000000",
    "inbound_bytes_per_s": "1000000000",
    "inbound_bytes_burst": "1000000000",
}
"""One speaker says it all, so that the order is known: more than a client may."""


@dataclass(frozen=True)
class Crossing:
    """One client speaks on one node, the members of the room are on another; both share the first core.

    The C loops do the same: one publishes what its client says, the other hears it from Redis; without a log. Checks
    that every member heard every message once and in order. Latency counts from when the speaker was due to speak.
    Goal: with the core half busy, p99 at most 2 x that of the C loops.
    """

    subscribers: Annotated[int, Option(min=1, help="Members on the other node.")] = 100
    rate: RoomRate = 800
    duration_s: Seconds = 10.0
    samples: Samples = 3

    def goals(self) -> list[Goal]:
        half = (self.subscribers, self.rate) == (100, 800)
        return [Goal("p99_us", "ratio", None, 2.0, "half load")] if half else []


def run(scenario: Crossing, stage: Stage, console: Console) -> Result:
    """Raises :class:`loadtests.errors.SetupError` when it could not be measured."""
    allow_open_files(scenario.subscribers)
    samples: list[Sample] = []
    with steps(scenario.samples * len(KINDS), console) as progress:
        for number in range(1, scenario.samples + 1):
            for kind in KINDS:
                with progress.step(f"{kind} {number}/{scenario.samples}") as tell, _pair(stage, kind) as pair:
                    samples.append(_measure(scenario, stage, *pair, tell))
    parameters = {
        "subscribers": scenario.subscribers,
        "messages/s": scenario.rate,
        "seconds": scenario.duration_s,
        "samples": scenario.samples,
        **stage.parameters,
    }
    notes = trust_notes(samples, pinned=stage.load_core is not None)
    return Result("cross-node", parameters, COLUMNS, scenario.goals(), samples, notes, plots=PLOTS)


@contextmanager
def _pair(stage: Stage, kind: Kind) -> Iterator[tuple[Server, Server]]:
    stage.empty_redis()
    with (
        stage.another_server(kind, name=f"{kind} of the speaker", **UNHURRIED) as near,
        stage.another_server(kind, name=f"{kind} of the members") as far,
    ):
        yield near, far


def _measure(scenario: Crossing, stage: Stage, near: Server, far: Server, tell: Tell) -> Sample:
    late_s = 30 + scenario.duration_s
    warm, count = max(1, round(scenario.rate * WARM_S)), round(scenario.rate * scenario.duration_s)
    with stage.client(near) as speaker, stage.client(far) as members:
        tell(f"joining {scenario.subscribers:,}")
        members.ask(f"open {scenario.subscribers} {IN_FLIGHT}", timeout_s=60 + scenario.subscribers / 100)
        speaker.ask("open 1 1", timeout_s=30)
        tell("warming up")
        speaker.ask(f"say {warm} {scenario.rate}", timeout_s=late_s)
        for client in (members, speaker):
            client.ask(f"reach {warm}", timeout_s=late_s)
            client.ask("reset", timeout_s=10)
        tell(f"{scenario.rate:,} messages/s for {scenario.duration_s:g} s")
        window = Window(lambda: [*near.pids(), *far.pids()], stage)
        said = speaker.ask(f"say {count} {scenario.rate}", timeout_s=late_s)
        for client in (members, speaker):
            client.ask(f"reach {warm + count}", timeout_s=late_s + 10 * scenario.duration_s)
        used = window.close()
        time.sleep(SETTLE_S)
        seen = members.ask(f"report {warm + count}", timeout_s=30)
        own = speaker.ask(f"report {warm + count}", timeout_s=30)
        curves = members.curves() | window.curves
    figures = {
        **seen,
        **used,
        **{name: seen[name] + own[name] for name in ("lost", "duplicated", "reordered", "early", "closed")},
        "deliveries_per_s": seen["deliveries"] / seen["span_s"] if seen["span_s"] > 0 else 0.0,
        "redis_us_per_message": used["redis_cpu_s"] * 1e6 / count,
        "rss_mib": sum(rss_bytes(server.child.pid) for server in (near, far)) / 2**20,
        "speaker_late_max_us": said["late_max_us"],
    }
    return Sample(near.kind, figures, curves)

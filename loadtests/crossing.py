"""Scenario ``cross-node``: said on one node, heard on another, and the same over two bare C loops."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from typing import Annotated, Final

from rich.console import Console
from typer import Option

from loadtests.accounting import rss_bytes
from loadtests.fanout import DELIVERIES, LATENCY, SETTLE_S
from loadtests.options import Samples, Seconds
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
    Column("cpu_us_per_message", "CPU of both servers µs per message"),
    Column("cpu_share", "of their core", percent=True),
    Column("kernel_share", "of that in the kernel", percent=True),
    Column("redis_us_per_message", "Redis CPU µs per message", 1),
    Column("redis_reads_per_message", "reads by Redis per message", 2),
    Column("rss_mib", "RSS MiB of both", 1),
    Column("lost", "lost"),
    Column("duplicated", "duplicated"),
    Column("load_core_busy", "load core busy", percent=True),
)
PLOTS: tuple[Plot, ...] = (DELIVERIES, LATENCY, *MACHINE_PLOTS)
WARM_S = 1.0
HALF: Final = 0.5
"""How busy the core of the two nodes is when nothing else is said."""
NEAR_HALF: Final = 0.05
"""Further off than this the figures are of another load than the goal's."""
LOW_RATE: Final = 100
"""Tried first: what any machine can."""
FIND_S: Final = 4.0
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
    Without a rate it first finds the one at which the nodes leave half of their core, and measures both kinds there.
    Goal: p99 at it at most 2 x that of the C loops.
    """

    subscribers: Annotated[int, Option(min=1, help="Members on the other node.")] = 100
    rate: Annotated[
        int | None, Option(min=1, help="Messages per second.", show_default="the nodes' core half busy")
    ] = None
    duration_s: Seconds = 10.0
    samples: Samples = 3

    def goals(self) -> list[Goal]:
        half = self.subscribers == 100 and self.rate is None
        return [Goal("p99_us", "ratio", None, 2.0, "half load")] if half else []


def half_load(cpu_us: float) -> int:
    """The rate at which messages that cost so much CPU each use half a core."""
    return max(1, round(HALF * 1e6 / max(1.0, cpu_us)))


def run(scenario: Crossing, stage: Stage, console: Console) -> Result:
    """Raises :class:`loadtests.errors.SetupError` when it could not be measured."""
    allow_open_files(scenario.subscribers)
    samples: list[Sample] = []
    finding = scenario.rate is None
    with steps(finding + scenario.samples * len(KINDS), console) as progress:
        if scenario.rate is None:
            with progress.step("half load") as tell, _pair(stage, "node") as pair:
                rate = _find_half_load(scenario.subscribers, stage, pair, tell)
        else:
            rate = scenario.rate
        for number in range(1, scenario.samples + 1):
            for kind in KINDS:
                with progress.step(f"{kind} {number}/{scenario.samples}") as tell, _pair(stage, kind) as pair:
                    samples.append(_measure(scenario.subscribers, rate, scenario.duration_s, stage, pair, tell))
    parameters = {
        "subscribers": scenario.subscribers,
        "messages/s": rate,
        "seconds": scenario.duration_s,
        "samples": scenario.samples,
        **stage.parameters,
    }
    notes = trust_notes(samples, pinned=stage.load_core is not None)
    share = median(sample.figures["cpu_share"] for sample in samples if sample.server == "node")
    if finding and abs(share - HALF) > NEAR_HALF:
        notes.append(f"the nodes' core was {share:.0%} busy instead of half: measure again, or give --rate")
    return Result("cross-node", parameters, COLUMNS, scenario.goals(), samples, notes, plots=PLOTS)


Pair = tuple[Server, Server]


@contextmanager
def _pair(stage: Stage, kind: Kind) -> Iterator[Pair]:
    stage.empty_redis()
    with (
        stage.another_server(kind, name=f"{kind} of the speaker", **UNHURRIED) as near,
        stage.another_server(kind, name=f"{kind} of the members") as far,
    ):
        yield near, far


def _find_half_load(subscribers: int, stage: Stage, nodes: Pair, tell: Tell) -> int:
    """Messages/s at which the core of the nodes is half busy. A message is cheaper the more there are, and part of the
    core is used without any: so what one costs is measured at a low rate, and once more near the one that is sought."""
    rate = LOW_RATE
    for _ in range(2):
        rate = half_load(_measure(subscribers, rate, FIND_S, stage, nodes, tell).figures["cpu_us_per_message"])
    return rate


def _measure(subscribers: int, rate: int, duration_s: float, stage: Stage, pair: Pair, tell: Tell) -> Sample:
    near, far = pair
    late_s = 30 + duration_s
    warm, count = max(1, round(rate * WARM_S)), round(rate * duration_s)
    with stage.client(near) as speaker, stage.client(far) as members:
        tell(f"joining {subscribers:,}")
        members.ask(f"open {subscribers} {IN_FLIGHT}", timeout_s=60 + subscribers / 100)
        speaker.ask("open 1 1", timeout_s=30)
        tell("warming up")
        speaker.ask(f"say {warm} {rate}", timeout_s=late_s)
        for client in (members, speaker):
            client.ask(f"reach {warm}", timeout_s=late_s)
            client.ask("reset", timeout_s=10)
        tell(f"{rate:,} messages/s for {duration_s:g} s")
        window = Window(lambda: [*near.pids(), *far.pids()], stage)
        said = speaker.ask(f"say {count} {rate}", timeout_s=late_s)
        for client in (members, speaker):
            client.ask(f"reach {warm + count}", timeout_s=late_s + 10 * duration_s)
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
        "cpu_us_per_message": used["cpu_s"] * 1e6 / count,
        "redis_us_per_message": used["redis_cpu_s"] * 1e6 / count,
        "redis_reads_per_message": used["redis_reads"] / count,
        "rss_mib": sum(rss_bytes(server.child.pid) for server in (near, far)) / 2**20,
        "speaker_late_max_us": said["late_max_us"],
    }
    return Sample(near.kind, figures, curves)

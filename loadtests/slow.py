"""Scenario ``slow``: what readers notice of others that read nothing. Phases with and without them take turns."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Annotated

from rich.console import Console
from typer import Option

from loadtests.accounting import rss_bytes
from loadtests.fanout import DELIVERIES, LATENCY
from loadtests.options import RoomRate
from loadtests.processes import Native
from loadtests.result import Column, Curves, Goal, Plot, Result, Sample
from loadtests.sampling import MACHINE_PLOTS, Watch
from loadtests.stage import IN_FLIGHT, ROOM, Server, Stage, allow_open_files
from loadtests.stalled import Stalled
from loadtests.steps import steps

COLUMNS = (
    Column("p50_us", "latency p50 µs"),
    Column("p99_us", "latency p99 µs"),
    Column("p999_us", "latency p99.9 µs"),
    Column("max_us", "latency max µs"),
    Column("deliveries", "deliveries"),
    Column("stalled", "stalled readers"),
    Column("kib_per_stalled", "RSS KiB per stalled reader", 1),
    Column("gone_s", "slowest of them gone after s", 2),
    Column("lost", "lost"),
    Column("duplicated", "duplicated"),
)
WITH, WITHOUT = "with", "without"
FEED_ROOM = "feed"
GONE_S = 11.0
"""The node's promise: 10 s of stalling, and a second look."""
LATE_S = 4.0
"""Waited beyond the promise before a stalled reader counts as never cut."""
WARM_S = 2.0
PLOTS: tuple[Plot, ...] = (DELIVERIES, LATENCY, *MACHINE_PLOTS)


@dataclass(frozen=True)
class Slow:
    """What readers notice of others that read nothing, as a ratio within one run.

    Checks that every reader saw every message once and in order, and that the node cut every stalled one. Goals: p99 of
    the readers at most 1.05 x that of the phases without; the last stalled reader gone after 11 s; with 50 of them or
    more at most 300 KiB of memory for each.
    """

    readers: Annotated[int, Option(min=1, help="Members of the room that read.")] = 1000
    stalled: Annotated[int, Option(min=1, help="Members of the room that stop reading, in each second phase.")] = 1
    rate: RoomRate = 50
    phase_s: Annotated[float, Option("--seconds", min=0.1, help="How long a phase is.")] = 9.0
    pairs: Annotated[int, Option(min=1, help="Phases with and without stalled readers, in turns.")] = 4

    def goals(self) -> list[Goal]:
        goals = [
            Goal("p99_us", "ratio", None, 1.05, f"{self.stalled} of {self.readers:,} stalled"),
            Goal("gone_s", "value", None, GONE_S + 0.5, "any size"),
        ]
        if self.stalled >= 50:  # of few the noise of the whole is more than they cost
            goals.append(Goal("kib_per_stalled", "value", None, 300, f"{self.stalled} stalled"))
        return goals


def run(scenario: Slow, stage: Stage, console: Console) -> Result:
    """Raises :class:`loadtests.errors.SetupError` when it could not be measured."""
    allow_open_files(scenario.readers + scenario.stalled)
    samples: list[Sample] = []
    # Through the log: a run this long sees the node compare itself with it, once a minute.
    with stage.server("node") as server, stage.client(server) as client, stage.publisher("append") as publisher:
        client.ask(f"open {scenario.readers} {IN_FLIGHT}", timeout_s=60 + scenario.readers / 100)

        def talk(seconds: float) -> tuple[dict[str, float], Curves]:
            return _talk(server, client, publisher, scenario.rate, seconds)

        talk(WARM_S)
        with Stalled(server.port, 0, (ROOM, FEED_ROOM)):
            pass  # so that no phase is the first to feed
        with steps(2 * scenario.pairs, console) as progress:
            for pair in range(scenario.pairs):
                for name in (WITHOUT, WITH) if pair % 2 == 0 else (WITH, WITHOUT):
                    stalled = scenario.stalled if name == WITH else 0
                    with progress.step(f"{name} {pair + 1}/{scenario.pairs}") as tell:
                        tell(f"{scenario.rate}/s to {scenario.readers:,} readers")
                        samples.append(_phase(name, server, stalled, lambda: talk(scenario.phase_s)))
    parameters = {
        "readers": scenario.readers,
        "stalled": scenario.stalled,
        "messages/s": scenario.rate,
        "seconds": scenario.phase_s,
        "phases": 2 * scenario.pairs,
        **stage.parameters,
    }
    notes = [] if stage.load_core is not None else ["only one core: the server, Redis and the load shared it"]
    return Result("slow", parameters, COLUMNS, scenario.goals(), samples, notes, pair=(WITH, WITHOUT), plots=PLOTS)


def _phase(name: str, server: Server, stalled: int, talk: Callable[[], tuple[dict[str, float], Curves]]) -> Sample:
    before_bytes = rss_bytes(server.child.pid)
    with ExitStack() as stack:
        readers = stack.enter_context(Stalled(server.port, stalled, (ROOM, FEED_ROOM))) if stalled else None
        figures, curves = talk()
        if readers is None:
            return Sample(name, figures, curves)
        grown_bytes = max(0, rss_bytes(server.child.pid) - before_bytes)
        gone_s = readers.ended_s(GONE_S + LATE_S)
    figures |= {
        "stalled": stalled,
        "kib_per_stalled": grown_bytes / stalled / 1024,
        "gone_s": max(gone_s, default=0.0),
        "failed": stalled - len(gone_s),
    }
    return Sample(name, figures, curves)


def _talk(
    server: Server, client: Native, publisher: Native, rate: int, seconds: float
) -> tuple[dict[str, float], Curves]:
    client.ask("reset", timeout_s=10)
    watch = Watch(server.pids)
    published = publisher.ask(f"publish {round(rate * seconds)} {rate} 0", timeout_s=30 + seconds)
    client.ask(f"reach {published['last']}", timeout_s=60 + seconds)
    used = watch.close()
    time.sleep(0.3)  # a late double is still seen
    return client.ask(f"report {published['last']}", timeout_s=30) | used, client.curves() | watch.curves

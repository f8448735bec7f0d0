"""Scenario ``workers``: N workers on one port (``roomcast serve --workers N``) against N nodes with a port each, on all
cores of this machine, which the load shares: the difference of the two says something, the figures little."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from rich.console import Console
from typer import Option

from loadtests.fanout import PLOTS
from loadtests.fleet import Kind, Shipyard, measure
from loadtests.options import RoomRate, Samples, Seconds
from loadtests.result import Column, Result, Sample
from loadtests.stage import allow_open_files
from loadtests.steps import steps

KINDS: tuple[Kind, ...] = ("workers", "nodes")
COLUMNS = (
    Column("opened_per_s", "joined connections/s"),
    Column("spread", "connections, (most - fewest) / mean", 2),
    Column("deliveries_per_s", "deliveries/s"),
    Column("delivered_share", "of those offered", percent=True),
    Column("cpu_us_per_delivery", "CPU µs per delivery, all nodes", 2),
    Column("p99_us", "latency p99 µs"),
    Column("rss_mib", "RSS MiB, all processes", 1),
    Column("lost", "lost"),
    Column("duplicated", "duplicated"),
)


@dataclass(frozen=True)
class Workers:
    """N workers on one port against N nodes with a port each. Nothing is pinned."""

    count: Annotated[int, Option(min=1, help="Workers, and nodes.")] = 2
    subscribers: Annotated[int, Option(min=1, help="Connections in the one room.")] = 1000
    rate: RoomRate = 100
    duration_s: Seconds = 10.0
    samples: Samples = 3


def run(scenario: Workers, console: Console) -> Result:
    """Raises :class:`loadtests.errors.SetupError` when it could not be measured."""
    allow_open_files(scenario.subscribers)
    samples: list[Sample] = []
    load = (scenario.count, scenario.subscribers, scenario.rate, scenario.duration_s)
    with Shipyard(pinned=False) as stage, steps(scenario.samples * len(KINDS), console) as progress:
        for number in range(scenario.samples):
            for kind in KINDS:
                with progress.step(f"{scenario.count} {kind} {number + 1}/{scenario.samples}"):
                    samples.append(measure(kind, stage, kind, *load))
    parameters = {
        "count": scenario.count,
        "subscribers": scenario.subscribers,
        "messages/s": scenario.rate,
        "seconds": scenario.duration_s,
        "samples": scenario.samples,
        **stage.parameters,
    }
    notes = ["nothing was pinned: everything shared the cores"]
    return Result("workers", parameters, COLUMNS, [], samples, notes, pair=("workers", "nodes"), plots=PLOTS)

"""Scenario ``cluster``: one room on 1, 2 and 4 nodes, and on 4 of which only one has members of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

from rich.console import Console
from typer import Option

from loadtests.fanout import PLOTS, Fanout
from loadtests.fanout import measure as measure_fanout
from loadtests.fleet import Shipyard, measure
from loadtests.options import RoomRate, Samples, Seconds
from loadtests.result import Column, Plot, Result, Sample, Split
from loadtests.stage import Stage, allow_open_files
from loadtests.steps import Tell, steps

COLUMNS = (
    Column("deliveries_per_s", "deliveries/s"),
    Column("delivered_share", "of those offered", percent=True),
    Column("cpu_us_per_delivery", "CPU µs per delivery, all nodes", 2),
    Column("cpu_share", "CPU of the nodes, of one core", percent=True),
    Column("redis_us_per_message", "Redis CPU µs per message", 1),
    Column("redis_out_bytes_per_message", "bytes from Redis per message"),
    Column("p99_us", "latency p99 µs"),
    Column("rss_mib", "RSS MiB of the nodes", 1),
    Column("heard_here", "messages heard by a node with members"),
    Column("heard_elsewhere", "messages heard by nodes without members"),
    Column("lost", "lost"),
    Column("duplicated", "duplicated"),
)
REDIS = Split("Redis", "CPU µs per message", {"redis_us_per_message": "CPU"})
COUNTS = (1, 2, 4)


@dataclass(frozen=True)
class Cluster:
    """One room on 1, 2 and 4 nodes, and on 4 of which only one has members: the others must not hear a message.

    All nodes share the first core: their CPU together is what counts.
    """

    subscribers: Annotated[
        int, Option(min=4, help="Connections in the one room, evenly on the nodes that have any.")
    ] = 1000
    rate: RoomRate = 50
    duration_s: Seconds = 10.0
    samples: Samples = 3


def run(scenario: Cluster, console: Console) -> Result:
    """Raises :class:`loadtests.errors.SetupError` when it could not be measured."""
    allow_open_files(scenario.subscribers)
    samples: list[Sample] = []
    load = (scenario.subscribers, scenario.rate, scenario.duration_s)
    with Shipyard(pinned=True) as stage, steps(scenario.samples * (len(COUNTS) + 2), console) as progress:
        for number in range(1, scenario.samples + 1):
            turn = f"{number}/{scenario.samples}"
            for count in COUNTS:
                name = f"{count} node{'s' * (count > 1)}"
                with progress.step(f"{name} {turn}"):
                    samples.append(measure(name, stage, "nodes", count, *load))
            with progress.step(f"members on one of four {turn}"):
                samples.append(measure("4, members on 1", stage, "nodes", 4, *load, with_members=1))
            with progress.step(f"C loop {turn}") as tell:
                samples.append(replace(_baseline(scenario, stage, tell, console), server="C loop"))
    parameters = {
        "subscribers": scenario.subscribers,
        "messages/s": scenario.rate,
        "seconds": scenario.duration_s,
        "samples": scenario.samples,
        **stage.parameters,
    }
    plots: tuple[Plot, ...] = (*PLOTS, REDIS)
    return Result("cluster", parameters, COLUMNS, [], samples, plots=plots)


def _baseline(scenario: Cluster, stage: Stage, tell: Tell, console: Console) -> Sample:
    load = Fanout(scenario.subscribers, scenario.rate, scenario.duration_s, warmup_s=1.0, samples=1)
    with stage.server("baseline") as server, stage.client(server) as client, stage.publisher("publish") as publisher:
        return measure_fanout(load, stage, server, client, publisher, tell, console)

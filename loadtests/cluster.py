"""Scenario ``cluster``: one room on 1, 2 and 4 nodes, and on 4 of which only one has members of it."""

from __future__ import annotations

from dataclasses import dataclass

from rich.console import Console

from loadtests.fanout import Fanout
from loadtests.fanout import measure as measure_fanout
from loadtests.result import Column, Result, Sample
from loadtests.stage import Stage, allow_open_files
from loadtests.workers import Machine, measure

COLUMNS = (
    Column("deliveries_per_s", "deliveries/s"),
    Column("delivered_share", "of those offered", percent=True),
    Column("cpu_us_per_delivery", "CPU µs per delivery, all nodes", 2),
    Column("p99_us", "latency p99 µs"),
    Column("heard_here", "messages heard by a node with members"),
    Column("heard_elsewhere", "messages heard by nodes without members"),
    Column("lost", "lost"),
    Column("duplicated", "duplicated"),
)
COUNTS = (1, 2, 4)


@dataclass(frozen=True)
class Cluster:
    """``subscribers`` connections in the one room, evenly on the nodes."""

    subscribers: int = 1000
    rate: int = 50
    duration_s: float = 10.0
    samples: int = 3


def run(scenario: Cluster, console: Console) -> Result:
    """Raises :class:`loadtests.errors.SetupError` when it could not be measured. Nothing is pinned: nodes, Redis and
    the load share the cores, so the CPU says something and the rates little."""
    allow_open_files(scenario.subscribers)
    samples: list[Sample] = []

    def add(name: str, figures: dict[str, float]) -> None:
        samples.append(Sample(name, figures))
        console.print(f"{name}: {figures['cpu_us_per_delivery']:.2f} µs per delivery")

    load = (scenario.subscribers, scenario.rate, scenario.duration_s)
    with Machine() as machine:
        for _ in range(scenario.samples):
            for count in COUNTS:
                add(f"{count} node{'s' * (count > 1)}", measure(machine, "nodes", count, *load))
            add("4, members on 1", measure(machine, "nodes", 4, *load, with_members=1))
            add("C loop", _baseline(scenario, machine, console))
    parameters = {
        "subscribers": scenario.subscribers,
        "messages/s": scenario.rate,
        "seconds": scenario.duration_s,
        "samples": scenario.samples,
    }
    return Result("cluster", parameters, COLUMNS, [], samples, ["nothing was pinned: everything shared the cores"])


def _baseline(scenario: Cluster, stage: Stage, console: Console) -> dict[str, float]:
    load = Fanout(scenario.subscribers, scenario.rate, scenario.duration_s, warmup_s=1.0, samples=1)
    with stage.server("baseline") as server, stage.client(server) as client, stage.publisher("publish") as publisher:
        return measure_fanout(load, stage, server, client, publisher, lambda _: None, console)

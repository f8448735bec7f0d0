"""Scenario ``growth``: the same deliveries per second to 10, 100, 1,000 and 10,000 subscribers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from rich.console import Console
from typer import Option

from loadtests.fanout import Fanout
from loadtests.fanout import measure as measure_fanout
from loadtests.options import Samples, Seconds
from loadtests.result import FAULTS, Column, Distribution, Goal, Plot, Result, Sample, Sweep
from loadtests.sampling import trust_notes
from loadtests.stage import KINDS, Stage, allow_open_files
from loadtests.steps import steps

SIZES = (10, 100, 1000, 10_000)
FROM, TO = 100, 10_000
"""Where the goal compares."""
COLUMNS = (
    *(Column(f"cpu_us_{size}", f"CPU µs per delivery, {size:,} subscribers", 2) for size in SIZES),
    Column("growth", f"CPU per delivery at {TO:,} to that at {FROM}", 2),
    *(Column(f"p99_us_{size}", f"latency p99 µs, {size:,} subscribers") for size in SIZES),
    *(Column(f"rss_mib_{size}", f"server RSS MiB, {size:,} subscribers", 1) for size in SIZES),
    Column("lost", "lost"),
    Column("duplicated", "duplicated"),
)
PLOTS: tuple[Plot, ...] = (
    Sweep("CPU per delivery", "µs", "subscribers", [(size, f"cpu_us_{size}") for size in SIZES]),
    Sweep(
        "CPU in the kernel", "share of the server's", "subscribers", [(size, f"kernel_share_{size}") for size in SIZES]
    ),
    Sweep("Deliveries", "per second", "subscribers", [(size, f"deliveries_per_s_{size}") for size in SIZES]),
    Sweep("Latency p99", "µs", "subscribers", [(size, f"p99_us_{size}") for size in SIZES]),
    *(Distribution(f"Latency, {size:,} subscribers", f"latency_us_{size}") for size in SIZES),
    Sweep("Memory of the server", "MiB resident", "subscribers", [(size, f"rss_mib_{size}") for size in SIZES]),
)


@dataclass(frozen=True)
class Growth:
    """What a delivery costs when the same number of deliveries goes to 10, 100, 1,000 and 10,000 subscribers.

    Goal: at 10,000 subscribers at most 1.3 x the CPU per delivery at 100.
    """

    deliveries_per_s: Annotated[int, Option("--deliveries", min=1, help="Per second, at each size.")] = 50_000
    largest: Annotated[int, Option(min=100, help="Sizes over this are left out.")] = 10_000
    duration_s: Seconds = 8.0
    samples: Samples = 1

    @property
    def loads(self) -> list[Fanout]:
        sizes = [size for size in SIZES if size <= self.largest]
        return [Fanout(size, max(1, self.deliveries_per_s // size), self.duration_s, warmup_s=1.0) for size in sizes]

    def goals(self) -> list[Goal]:
        return [Goal("growth", "value", None, 1.3, f"{FROM} to {TO:,} subscribers")] if self.largest >= TO else []


def run(scenario: Growth, stage: Stage, console: Console) -> Result:
    """Raises :class:`loadtests.errors.SetupError` when it could not be measured."""
    loads = scenario.loads
    allow_open_files(loads[-1].subscribers)
    samples: list[Sample] = []
    each: list[Sample] = []
    with steps(scenario.samples * len(loads) * len(KINDS), console) as progress:
        for number in range(1, scenario.samples + 1):
            found: dict[str, list[Sample]] = {kind: [] for kind in KINDS}
            for load in loads:
                for kind in KINDS:
                    name = f"{kind}, {load.subscribers:,} subscribers {number}/{scenario.samples}"
                    with (
                        progress.step(name) as tell,
                        stage.server(kind) as server,
                        stage.client(server) as client,
                        stage.publisher("publish") as publisher,
                    ):
                        found[kind].append(measure_fanout(load, stage, server, client, publisher, tell, console))
            samples += [_together(kind, loads, found[kind]) for kind in KINDS]
            each += [one for kind in KINDS for one in found[kind]]
    parameters = {
        "deliveries/s": scenario.deliveries_per_s,
        "subscribers": ", ".join(f"{load.subscribers:,}" for load in loads),
        "seconds": scenario.duration_s,
        "samples": scenario.samples,
        **stage.parameters,
    }
    notes = trust_notes(each, pinned=stage.load_core is not None)
    return Result("growth", parameters, COLUMNS, scenario.goals(), samples, notes, plots=PLOTS)


def _together(kind: str, loads: list[Fanout], found: list[Sample]) -> Sample:
    """One sample of all sizes. What the model needs of each has the size in its name."""
    figures: dict[str, float] = {fault: sum(one.figures.get(fault, 0.0) for one in found) for fault in FAULTS}
    curves = {}
    for load, one in zip(loads, found, strict=True):
        figures[f"cpu_us_{load.subscribers}"] = one.figures["cpu_us_per_delivery"]
        for name in (
            "p99_us",
            "rss_mib",
            "kernel_share",
            "deliveries",
            "deliveries_per_s",
            "messages_per_read",
            "bytes_per_delivery",
        ):
            figures[f"{name}_{load.subscribers}"] = one.figures[name]
        curves[f"latency_us_{load.subscribers}"] = one.curves["latency_us"]
    if f"cpu_us_{TO}" in figures:
        figures["growth"] = figures[f"cpu_us_{TO}"] / figures[f"cpu_us_{FROM}"]
    return Sample(kind, figures, curves)

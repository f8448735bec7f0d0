"""Scenario ``idle``: memory of a joined connection that says nothing but the pongs it owes."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Annotated

from rich.console import Console
from typer import Option

from loadtests.accounting import rss_bytes
from loadtests.options import Samples
from loadtests.result import Column, Distribution, Goal, Plot, Result, Sample, Split, Timeline
from loadtests.sampling import CPU_TIMELINE, MEMORY, Window, alternate, trust_notes
from loadtests.stage import IN_FLIGHT, Server, Stage, allow_open_files
from loadtests.steps import Tell

COLUMNS = (
    Column("kib_per_connection", "RSS KiB per connection", 2),
    Column("rss_mib", "server RSS MiB with all of them", 1),
    Column("joins_per_s", "joins/s while opening"),
    Column("cpu_share", "server CPU of its core, idle", percent=True),
    Column("pings", "pings answered"),
    Column("closed", "closed by the server"),
)
WARM_CONNECTIONS = 100
"""Opened before the first reading, so that code loaded at the first connection is not counted as memory of one."""
SETTLE_S = 1.0
PLOTS: tuple[Plot, ...] = (
    Timeline("Joins while opening, then none", "per second", {"per_s": ""}),
    Distribution("Connect-and-join, from the first packet to the answer", "joining_us"),
    Split("CPU of the server while idle", "% of a core", {"user_percent": "user", "kernel_percent": "kernel"}),
    CPU_TIMELINE,
    MEMORY,
    Split("Memory of a connection", "KiB", {"kib_per_connection": "resident"}),
)


@dataclass(frozen=True)
class Idle:
    """Resident memory per joined idle connection. Goal: at most 6 KiB at 15,000 connections."""

    connections: Annotated[int, Option(min=1, help="Joined connections that then say nothing.")] = 15_000
    hold_s: Annotated[float, Option("--hold", min=0, help="Seconds to hold them; 12 covers one round of pings.")] = 12.0
    samples: Samples = 1

    def goals(self) -> list[Goal]:
        return [Goal("kib_per_connection", "value", None, 6, "15,000")] if self.connections == 15_000 else []


def run(scenario: Idle, stage: Stage, console: Console) -> Result:
    """Raises :class:`loadtests.errors.SetupError` when not all connections could be opened."""
    allow_open_files(scenario.connections + WARM_CONNECTIONS)

    def measure(server: Server, tell: Tell) -> Sample:
        with stage.client(server) as client:
            client.ask(f"open {WARM_CONNECTIONS} {IN_FLIGHT}", timeout_s=60)
            time.sleep(SETTLE_S)
            before_bytes = rss_bytes(server.child.pid)
            tell(f"joining {scenario.connections:,}")
            client.ask("reset", timeout_s=10)
            opening = Window(server.pids, stage)
            opened = client.ask(f"open {scenario.connections} {IN_FLIGHT}", timeout_s=60 + scenario.connections / 100)
            tell(f"holding for {scenario.hold_s:.0f} s")
            time.sleep(SETTLE_S)
            window = Window(server.pids, stage)
            time.sleep(scenario.hold_s)
            server_side = window.close()
            opening.close()
            after_bytes = rss_bytes(server.child.pid)
            seen = client.ask("report 0", timeout_s=30)
            curves = client.curves() | opening.curves
        figures = {
            **server_side,
            "kib_per_connection": (after_bytes - before_bytes) / scenario.connections / 1024,
            "rss_mib": after_bytes / 2**20,
            "joins_per_s": scenario.connections / opened["seconds"],
            "pings": seen["pings"],
            "closed": seen["closed"],
        }
        return Sample(server.kind, figures, curves)

    samples = alternate(scenario.samples, measure, stage, console)
    parameters = {"connections": scenario.connections, "hold s": scenario.hold_s, **stage.parameters}
    notes = trust_notes(samples, pinned=stage.load_core is not None)
    return Result("idle", parameters, COLUMNS, scenario.goals(), samples, notes, plots=PLOTS)

"""Scenario ``idle``: memory of a joined connection that says nothing but the pongs it owes."""

from __future__ import annotations

import time
from dataclasses import dataclass

from rich.console import Console

from loadtests.accounting import rss_bytes
from loadtests.result import Column, Goal, Result
from loadtests.sampling import Tell, Window, alternate, trust_notes
from loadtests.stage import IN_FLIGHT, Server, Stage, allow_open_files

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


@dataclass(frozen=True)
class Idle:
    """``hold_s`` covers a round of pings (every 10 s) with its default."""

    connections: int = 8000
    hold_s: float = 12.0
    samples: int = 1

    def goals(self) -> list[Goal]:
        return [Goal("kib_per_connection", "value", None, 10, "8,000")] if self.connections == 8000 else []


def run(scenario: Idle, stage: Stage, console: Console) -> Result:
    """Raises :class:`loadtests.errors.SetupError` when not all connections could be opened."""
    allow_open_files(scenario.connections + WARM_CONNECTIONS)

    def measure(server: Server, tell: Tell) -> dict[str, float]:
        with stage.client(server) as client:
            client.ask(f"open {WARM_CONNECTIONS} {IN_FLIGHT}", timeout_s=60)
            time.sleep(SETTLE_S)
            before_bytes = rss_bytes(server.child.pid)
            tell(f"joining {scenario.connections:,}")
            opened = client.ask(f"open {scenario.connections} {IN_FLIGHT}", timeout_s=60 + scenario.connections / 100)
            tell(f"holding for {scenario.hold_s:.0f} s")
            time.sleep(SETTLE_S)
            window = Window(server, stage)
            time.sleep(scenario.hold_s)
            server_side = window.close()
            after_bytes = rss_bytes(server.child.pid)
            seen = client.ask("report 0", timeout_s=30)
        return {
            **server_side,
            "kib_per_connection": (after_bytes - before_bytes) / scenario.connections / 1024,
            "rss_mib": after_bytes / 2**20,
            "joins_per_s": scenario.connections / opened["seconds"],
            "pings": seen["pings"],
            "closed": seen["closed"],
        }

    samples = alternate(scenario.samples, measure, stage, console)
    parameters = {"connections": scenario.connections, "hold s": scenario.hold_s, **stage.parameters}
    return Result(
        "idle", parameters, COLUMNS, scenario.goals(), samples, trust_notes(samples, pinned=stage.load_core is not None)
    )

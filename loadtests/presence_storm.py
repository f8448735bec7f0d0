"""Scenario ``presence-storm``: users come online as fast as the node lets them in, each a change of presence."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Annotated

from rich.console import Console
from typer import Option

from loadtests.options import Samples
from loadtests.result import Column, Distribution, Goal, Plot, Result, Sample, Timeline
from loadtests.sampling import MACHINE_PLOTS, Window, alternate, trust_notes
from loadtests.stage import IN_FLIGHT, Server, Stage, allow_open_files
from loadtests.steps import Tell

COLUMNS = (
    Column("joins_per_s", "connect-and-joins/s"),
    Column("cpu_us_per_join", "server CPU µs per connect-and-join", 1),
    Column("redis_calls_per_join", "Redis calls per join", 3),
    Column("redis_us_per_join", "Redis CPU µs per join", 1),
    Column("redis_bytes_per_user", "Redis memory per user, bytes"),
    Column("online", "users whom Redis has online"),
    Column("cpu_share", "server CPU of its core", percent=True),
    Column("closed", "closed by the server"),
    Column("load_core_busy", "load core busy", percent=True),
)
WARM_CONNECTIONS = 100
TOLD_S = 10.0
PLOTS: tuple[Plot, ...] = (
    Timeline("Joins", "per second", {"per_s": ""}),
    Distribution("Connect-and-join, from the first packet to the answer", "joining_us"),
    *MACHINE_PLOTS,
)


@dataclass(frozen=True)
class PresenceStorm:
    """Users come online, into one room, as fast as the node lets them in. Goal: at most 0.1 Redis calls per join."""

    connections: Annotated[int, Option(min=1, help="Users who come online.")] = 5000
    samples: Samples = 1

    def goals(self) -> list[Goal]:
        """The goal stated for a node's full join rate."""
        return [Goal("redis_calls_per_join", "value", None, 0.1, "the full join rate")]


def run(scenario: PresenceStorm, stage: Stage, console: Console) -> Result:
    """Raises :class:`loadtests.errors.SetupError` when not all could come, or Redis never heard of them all."""
    allow_open_files(scenario.connections + WARM_CONNECTIONS)

    def measure(server: Server, tell: Tell) -> Sample:
        with stage.client(server) as client:
            client.ask(f"open {WARM_CONNECTIONS} {IN_FLIGHT}", timeout_s=60)
            wanted = stage.online() + scenario.connections if server.kind == "node" else 0
            tell(f"{scenario.connections:,} users come online")
            client.ask("reset", timeout_s=10)
            window = Window(server.pids, stage)
            opened = client.ask(f"open {scenario.connections} {IN_FLIGHT}", timeout_s=60 + scenario.connections / 100)
            deadline_s = time.monotonic() + TOLD_S
            while server.kind == "node" and stage.online() < wanted and time.monotonic() < deadline_s:
                time.sleep(0.01)
            server_side = window.close()
            seen = client.ask("report 0", timeout_s=30)
            curves = client.curves() | window.curves
        online = stage.online()
        figures = {
            **server_side,
            "joins_per_s": scenario.connections / opened["seconds"],
            "cpu_us_per_join": server_side["cpu_s"] * 1e6 / scenario.connections,
            "redis_calls_per_join": server_side["redis_calls"] / scenario.connections,
            "redis_us_per_join": server_side["redis_cpu_s"] * 1e6 / scenario.connections,
            "redis_bytes_per_user": server_side["redis_used_bytes"] / scenario.connections,
            "online": online,
            "lost": max(0, wanted - online),
            "closed": seen["closed"],
        }
        return Sample(server.kind, figures, curves)

    samples = alternate(scenario.samples, measure, stage, console)
    parameters = {"connections": scenario.connections, "samples": scenario.samples, **stage.parameters}
    notes = trust_notes(samples, pinned=stage.load_core is not None)
    return Result("presence-storm", parameters, COLUMNS, scenario.goals(), samples, notes, plots=PLOTS)

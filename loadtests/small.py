"""Scenario ``small``: what a small client message costs a node that needs no Redis for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from rich.console import Console
from typer import Option

from loadtests.accounting import rss_bytes
from loadtests.options import Samples, Seconds, TalkRate
from loadtests.result import Column, Distribution, Goal, Plot, Result, Sample, Split, Timeline
from loadtests.sampling import CPU_TIMELINE, MEMORY, Window, alternate, trust_notes
from loadtests.stage import IN_FLIGHT, Server, Stage, allow_open_files
from loadtests.steps import Tell

COLUMNS = (
    Column("messages_per_s", "messages/s"),
    Column("cpu_us_per_message", "server CPU µs per message", 2),
    Column("user_us", "of that beyond the kernel", 2),
    Column("cpu_share", "server CPU of its core", percent=True),
    Column("p50_us", "from due to answered p50 µs"),
    Column("p99_us", "from due to answered p99 µs"),
    Column("max_us", "from due to answered max µs"),
    Column("rss_mib", "server RSS MiB", 1),
    Column("lost", "not answered"),
    Column("duplicated", "answered twice"),
    Column("load_core_busy", "load core busy", percent=True),
)
PLOTS: tuple[Plot, ...] = (
    Timeline("Answers", "per second", {"per_s": ""}),
    Distribution("From when a message was due to its answer", "latency_us"),
    Split("CPU of the server", "µs per message", {"user_us": "user", "kernel_us": "kernel"}),
    CPU_TIMELINE,
    MEMORY,
)
WARM_S = 1.0


@dataclass(frozen=True)
class Small:
    """Many connections say {"op":"ping"} in turn and are answered: what a small client message without Redis costs.

    Each message leaves by itself. Checks that every one was answered once and in order. Goal: at most 20 µs of node CPU
    per message at 1,000 x 10,000/s.
    """

    connections: Annotated[int, Option(min=1, help="A node allows each 50 messages per second.")] = 1000
    rate: TalkRate = 10_000
    duration_s: Seconds = 10.0
    samples: Samples = 3

    def goals(self) -> list[Goal]:
        if (self.connections, self.rate) == (1000, 10_000):
            return [Goal("cpu_us_per_message", "value", None, 20, "1,000 × 10 a second")]
        return []


def run(scenario: Small, stage: Stage, console: Console) -> Result:
    """Raises :class:`loadtests.errors.SetupError` when it could not be measured."""
    allow_open_files(scenario.connections)
    late_s = 30 + scenario.duration_s

    def measure(server: Server, tell: Tell) -> Sample:
        with stage.client(server) as client:
            tell(f"joining {scenario.connections:,}")
            client.ask(f"open {scenario.connections} {IN_FLIGHT}", timeout_s=60 + scenario.connections / 100)
            tell("warming up")
            client.ask(f"ask {max(1, round(scenario.rate * WARM_S))} {scenario.rate}", timeout_s=late_s)
            client.ask("reset", timeout_s=10)
            tell(f"{scenario.rate:,} messages/s for {scenario.duration_s:g} s")
            window = Window(server.pids, stage)
            seen = client.ask(f"ask {round(scenario.rate * scenario.duration_s)} {scenario.rate}", timeout_s=late_s)
            server_side = window.close()
            curves = client.curves() | window.curves
        cpu_us = server_side["cpu_s"] * 1e6 / max(1.0, seen["answered"])
        figures = {
            **seen,
            **server_side,
            "messages_per_s": seen["answered"] / seen["span_s"] if seen["span_s"] > 0 else 0.0,
            "cpu_us_per_message": cpu_us,
            "user_us": cpu_us * (1 - server_side["kernel_share"]),
            "kernel_us": cpu_us * server_side["kernel_share"],
            "rss_mib": rss_bytes(server.child.pid) / 2**20,
        }
        return Sample(server.kind, figures, curves)

    samples = alternate(scenario.samples, measure, stage, console)
    parameters = {
        "connections": scenario.connections,
        "messages/s": scenario.rate,
        "seconds": scenario.duration_s,
        "samples": scenario.samples,
        **stage.parameters,
    }
    notes = trust_notes(samples, pinned=stage.load_core is not None)
    return Result("small", parameters, COLUMNS, scenario.goals(), samples, notes, plots=PLOTS)

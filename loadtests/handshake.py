"""Scenario ``handshake``: how fast connections are opened and closed, bare and with a join."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from rich.console import Console
from typer import Option

from loadtests.options import Samples
from loadtests.result import Column, Curves, Distribution, Goal, Plot, Result, Sample, Split, Timeline
from loadtests.sampling import MEMORY, Window, alternate, trust_notes
from loadtests.stage import Server, Stage, allow_open_files
from loadtests.steps import Tell

COLUMNS = (
    Column("handshakes_per_s", "handshakes/s"),
    Column("cpu_us_per_handshake", "server CPU µs per handshake", 1),
    Column("handshake_p50_us", "handshake p50 µs"),
    Column("handshake_p99_us", "handshake p99 µs"),
    Column("joins_per_s", "connect-and-joins/s"),
    Column("cpu_us_per_join", "server CPU µs per connect-and-join", 1),
    Column("join_p50_us", "connect-and-join p50 µs"),
    Column("join_p99_us", "connect-and-join p99 µs"),
    Column("cpu_share", "server CPU of its core", percent=True),
    Column("failed", "failed"),
    Column("client_cpu_share", "load client CPU of its core", percent=True),
)
WARMUP_S = 1.0
PLOTS: tuple[Plot, ...] = (
    Timeline("Handshakes", "per second", {"per_s": ""}),
    Timeline("Connect-and-joins", "per second", {"joins per_s": ""}),
    Distribution("Handshake, from the first packet to the 101", "latency_us"),
    Distribution("Connect-and-join, from the first packet to the answer to the join", "joins latency_us"),
    Split(
        "CPU of the server", "µs per handshake", {"user_us_per_handshake": "user", "kernel_us_per_handshake": "kernel"}
    ),
    Split("CPU of the server", "µs per connect-and-join", {"user_us_per_join": "user", "kernel_us_per_join": "kernel"}),
    MEMORY,
)


@dataclass(frozen=True)
class Handshake:
    """Handshakes per second, bare and with a join.

    Each connection is closed politely (Close frame, the server ends it) before the next takes its place. Goals: at
    least 3,000 handshakes/s and 2,000 connect-and-joins/s on one core.
    """

    duration_s: Annotated[float, Option("--seconds", min=0.1, help="How long each of the two kinds is measured.")] = 5.0
    in_flight: Annotated[int, Option(min=1, help="Connections being opened or closed at the same time.")] = 64
    samples: Samples = 3

    def goals(self) -> list[Goal]:
        return [
            Goal("handshakes_per_s", "value", 3000, None, "one core"),
            Goal("joins_per_s", "value", 2000, None, "one core"),
        ]


def run(scenario: Handshake, stage: Stage, console: Console) -> Result:
    """Raises :class:`loadtests.errors.SetupError` when it could not be measured."""
    allow_open_files(scenario.in_flight)

    def shake(server: Server, word: str) -> tuple[dict[str, float], Curves]:
        with stage.client(server) as client:
            client.ask(f"shake {WARMUP_S} {scenario.in_flight} {word}", timeout_s=60)
            window = Window(server.pids, stage)
            seen = client.ask(
                f"shake {scenario.duration_s} {scenario.in_flight} {word}", timeout_s=60 + scenario.duration_s
            )
            server_side = window.close()
            curves = client.curves() | window.curves
        if seen["failed"]:
            console.print(f"{server.kind}, as the load client saw it:\n{client.log_tail()}", markup=False)
        return {**seen, **server_side}, curves

    def measure(server: Server, tell: Tell) -> Sample:
        tell("handshakes")
        bare, curves = shake(server, "bare")
        tell("connect-and-joins")
        join, join_curves = shake(server, "join")
        figures = {
            "failed": bare["failed"] + join["failed"],
            "client_cpu_share": max(s["client_cpu_s"] / s["window_s"] for s in (bare, join)),
        }
        for name in ("cpu_share", "kernel_share", "server_core_busy", "load_core_busy"):
            if name in bare:
                figures[name] = max(bare[name], join[name])
        for title, seen in (("handshake", bare), ("join", join)):
            figures[f"{title}s_per_s"] = seen["completed"] / seen["elapsed_s"]
            cpu_us = seen["cpu_s"] * 1e6 / max(1.0, seen["completed"])
            figures[f"cpu_us_per_{title}"] = cpu_us
            figures[f"user_us_per_{title}"] = cpu_us * (1 - seen["kernel_share"])
            figures[f"kernel_us_per_{title}"] = cpu_us * seen["kernel_share"]
            figures[f"redis_us_per_{title}"] = seen["redis_cpu_s"] * 1e6 / max(1.0, seen["completed"])
            figures[f"{title}_p50_us"] = seen["p50_us"]
            figures[f"{title}_p99_us"] = seen["p99_us"]
        joins = {f"joins {name}": join_curves[name] for name in ("per_s", "latency_us")}
        return Sample(server.kind, figures, {**curves, **joins})

    samples = alternate(scenario.samples, measure, stage, console)
    parameters = {
        "in flight": scenario.in_flight,
        "seconds": scenario.duration_s,
        "samples": scenario.samples,
        **stage.parameters,
    }
    return Result(
        "handshake",
        parameters,
        COLUMNS,
        scenario.goals(),
        samples,
        trust_notes(samples, pinned=stage.load_core is not None),
        plots=PLOTS,
    )

"""Scenario ``handshake``: how fast connections are opened and closed, bare and with a join."""

from __future__ import annotations

from dataclasses import dataclass

from rich.console import Console

from loadtests.result import Column, Goal, Result
from loadtests.sampling import Tell, Window, alternate, trust_notes
from loadtests.stage import Server, Stage, allow_open_files

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


@dataclass(frozen=True)
class Handshake:
    """Each connection is closed politely (Close frame, the server ends it) before the next takes its place."""

    duration_s: float = 5.0
    in_flight: int = 64
    samples: int = 3

    def goals(self) -> list[Goal]:
        return [Goal("handshakes_per_s", "value", 2000, None, "one core")]


def run(scenario: Handshake, stage: Stage, console: Console) -> Result:
    """Raises :class:`loadtests.errors.SetupError` when it could not be measured."""
    allow_open_files(scenario.in_flight)

    def shake(server: Server, word: str) -> dict[str, float]:
        with stage.client(server) as client:
            client.ask(f"shake {WARMUP_S} {scenario.in_flight} {word}", timeout_s=60)
            window = Window(server, stage)
            seen = client.ask(
                f"shake {scenario.duration_s} {scenario.in_flight} {word}", timeout_s=60 + scenario.duration_s
            )
            server_side = window.close()
        if seen["failed"]:
            console.print(f"{server.kind}, as the load client saw it:\n{client.log_tail()}", markup=False)
        return {**seen, **server_side}

    def measure(server: Server, tell: Tell) -> dict[str, float]:
        tell("handshakes")
        bare = shake(server, "bare")
        tell("connect-and-joins")
        join = shake(server, "join")
        figures = {
            "failed": bare["failed"] + join["failed"],
            "client_cpu_share": max(s["client_cpu_s"] / s["window_s"] for s in (bare, join)),
        }
        for name in ("cpu_share", "kernel_share", "server_core_busy", "load_core_busy"):
            if name in bare:
                figures[name] = max(bare[name], join[name])
        for title, seen in (("handshake", bare), ("join", join)):
            figures[f"{title}s_per_s"] = seen["completed"] / seen["elapsed_s"]
            figures[f"cpu_us_per_{title}"] = seen["cpu_s"] * 1e6 / max(1.0, seen["completed"])
            figures[f"{title}_p50_us"] = seen["p50_us"]
            figures[f"{title}_p99_us"] = seen["p99_us"]
        return figures

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
    )

"""Scenario ``soak``: hours of the same load with connections coming, going and dying; nothing may grow or get lost."""

from __future__ import annotations

import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import redis
from rich.console import Console
from typer import Option

from loadtests.accounting import rss_bytes
from loadtests.errors import SetupError
from loadtests.leak import Bound, grown
from loadtests.options import RoomRate
from loadtests.processes import Native
from loadtests.result import FAULTS, Column, Plot, Result, Sample, Timeline
from loadtests.sampling import Watch
from loadtests.stage import IN_FLIGHT, Server, Stage, allow_open_files
from loadtests.steps import steps

COLUMNS = (
    Column("hours", "hours", 2),
    Column("deliveries", "deliveries"),
    Column("lost", "lost"),
    Column("duplicated", "duplicated"),
    Column("came_and_went", "connections that came and went"),
    Column("kills", "times Redis cut the subscriber"),
    Column("reconnects", "times the node connected again"),
    Column("p99_us", "latency p99 µs, median of all moments"),
    Column("rss_mib", "RSS MiB at the end", 1),
    Column("grown", "figures that grew"),
)
MIB = 2.0**20
BOUNDS = {
    "rss_mib": Bound(0.10, 4),
    "fds": Bound(0.0, 10),
    "tasks": Bound(0.0, 10),
    "redis_mib": Bound(0.10, 4),
    "connections": Bound(0.0, 10),
}
"""What may not grow."""
MOMENTS = 240
"""Samples of a run, at least ``MIN_MOMENT_S`` apart."""
MIN_MOMENT_S = 2.0
SHAKE_S = 0.3
"""Of each moment: connections come, join and go as fast as they can, ``SHAKE_AT_ONCE`` at a time."""
SHAKE_AT_ONCE = 8
KILL_EVERY = 10
"""Moments between two kills of the node's subscriber connection."""
METRICS = {
    'roomcast_connections{lane="fast"}': "connections",
    "process_open_fds": "fds",
    "roomcast_tasks": "tasks",
    "roomcast_broker_reconnects_total": "reconnects",
}


PLOTS: tuple[Plot, ...] = (
    Timeline("Latency", "ms", {"p50_us": "p50", "p99_us": "p99"}, per=1000),
    Timeline("Deliveries", "per second", {"deliveries_per_s": ""}),
    Timeline("Connections", "open", {"connections": ""}),
    Timeline("Connections that came and went", "per moment", {"came_and_went": "joined and left"}),
    Timeline("CPU of the node", "% of a core", {"cpu_user": "user", "cpu_kernel": "kernel"}, per=0.01),
    Timeline("Memory", "MiB", {"rss_mib": "node, resident", "redis_mib": "Redis, in use"}),
    Timeline("Descriptors and tasks", "open", {"fds": "descriptors", "tasks": "tasks"}),
)


@dataclass(frozen=True)
class Soak:
    """Hours of the same load while others come, join and go, and Redis cuts the node's subscriber now and then.

    Checks that every member saw every message once and in order, and that memory of the node and of Redis, descriptors,
    tasks and connections do not grow. Files are written as it goes, so that an interrupted run has them, too.
    """

    hours: Annotated[float, Option(min=0.001, help="How long.")] = 1.0
    connections: Annotated[int, Option(min=1, help="Members of the room that stay.")] = 1000
    rate: RoomRate = 50

    @property
    def moment_s(self) -> float:
        return max(MIN_MOMENT_S, self.hours * 3600 / MOMENTS)


Moment = dict[str, float]
"""What was seen at one time: ``at_s`` and figures."""


def run(scenario: Soak, stage: Stage, console: Console, write: Callable[[Result], None]) -> Result:
    """``write`` is given what there is so far. Raises :class:`loadtests.errors.SetupError` when it could not be
    measured."""
    allow_open_files(scenario.connections)
    moments: list[Moment] = []
    kills_s: list[float] = []
    with (
        stage.server("node") as server,
        stage.client(server) as client,
        stage.client(server) as comers,
        stage.publisher("append") as publisher,
        redis.Redis(port=stage.redis_port, protocol=2) as store,
        steps(round(scenario.hours * 3600 / scenario.moment_s), console) as progress,
    ):
        client.ask(f"open {scenario.connections} {IN_FLIGHT}", timeout_s=60 + scenario.connections / 100)
        began_s = time.monotonic()
        while (at_s := time.monotonic() - began_s) < scenario.hours * 3600:
            if len(moments) % KILL_EVERY == KILL_EVERY - 1:
                store.client_kill_filter(_type="pubsub")
                kills_s.append(at_s)
            with progress.step(f"moment {len(moments) + 1}"):
                watch = Watch(server.pids)
                moment = _moment(scenario, server, client, comers, publisher)
                cpu = watch.close()
            moment |= {"cpu_user": cpu["user_percent"] / 100, "cpu_kernel": cpu["kernel_percent"] / 100}
            moment["redis_mib"] = float(store.info("memory")["used_memory"]) / MIB
            moments.append({"at_s": time.monotonic() - began_s, **moment})
            write(_result(scenario, stage, moments, kills_s))
            if any(moment[fault] for fault in FAULTS if fault in moment):
                console.print(f"at {at_s:,.0f} s: {moment}\n{client.log_tail()}", markup=False)
                break
    return _result(scenario, stage, moments, kills_s)


def _result(scenario: Soak, stage: Stage, moments: list[Moment], kills_s: list[float]) -> Result:
    figures = {
        **{fault: moments[-1][fault] for fault in FAULTS if fault in moments[-1]},
        "hours": moments[-1]["at_s"] / 3600,
        "deliveries": sum(moment["deliveries"] for moment in moments),
        "came_and_went": sum(moment["came_and_went"] for moment in moments),
        "kills": len(kills_s),
        "reconnects": moments[-1]["reconnects"],
        "p99_us": sorted(moment["p99_us"] for moment in moments)[len(moments) // 2],
        "rss_mib": moments[-1]["rss_mib"],
        "grown": len(growing(moments)),
    }
    figures["failed"] += figures["grown"]
    curves = {name: [(moment["at_s"], moment[name]) for moment in moments] for name in moments[0] if name != "at_s"}
    parameters = {
        "hours": scenario.hours,
        "connections": scenario.connections,
        "messages/s": scenario.rate,
        **stage.parameters,
    }
    notes = [f"{name} grew" for name in growing(moments)]
    marks = [(at_s, "Redis cut the subscriber") for at_s in kills_s]
    return Result("soak", parameters, COLUMNS, [], [Sample("node", figures, curves)], notes, plots=PLOTS, marks=marks)


def _moment(scenario: Soak, server: Server, client: Native, comers: Native, publisher: Native) -> Moment:
    """One moment of load, and what it was like."""
    client.ask("reset", timeout_s=10)
    began_s = time.monotonic()
    shaken = comers.ask(f"shake {SHAKE_S} {SHAKE_AT_ONCE} join", timeout_s=60)
    count = round(scenario.rate * (scenario.moment_s - SHAKE_S))
    published = publisher.ask(f"publish {count} {scenario.rate} 0", timeout_s=60 + scenario.moment_s)
    client.ask(f"reach {published['last']}", timeout_s=60)
    took_s = time.monotonic() - began_s
    seen = client.ask(f"report {published['last']}", timeout_s=30)
    metrics = _metrics(server.port)
    return {
        **{fault: seen.get(fault, 0.0) for fault in FAULTS},
        "failed": shaken["failed"],
        "deliveries": seen["deliveries"],
        "deliveries_per_s": seen["deliveries"] / took_s,
        "p50_us": seen["p50_us"],
        "p99_us": seen["p99_us"],
        "came_and_went": shaken["completed"],
        "rss_mib": rss_bytes(server.child.pid) / MIB,
        **{name: metrics[metric] for metric, name in METRICS.items()},
    }


def _metrics(port: int) -> dict[str, float]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
    except OSError as error:
        raise SetupError(f"the node's /metrics cannot be read: {error}") from None
    return {name: float(value) for name, _, value in (li.rpartition(" ") for li in lines if not li.startswith("#"))}


def growing(moments: list[Moment]) -> list[str]:
    """What of :data:`BOUNDS` grew over the run."""
    return [name for name, bound in BOUNDS.items() if grown([moment[name] for moment in moments], bound)]

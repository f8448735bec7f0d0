"""Scenario ``fanout``: one room, many subscribers, messages at a fixed rate."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Annotated

from rich.console import Console
from typer import Option

from loadtests.accounting import rss_bytes
from loadtests.errors import SetupError
from loadtests.options import RoomRate, Samples, Seconds
from loadtests.processes import Native
from loadtests.result import Column, Distribution, Goal, Plot, Result, Sample, Split, Timeline
from loadtests.sampling import CPU_TIMELINE, MEMORY, Window, alternate, trust_notes
from loadtests.stage import IN_FLIGHT, Server, Stage, Through, allow_open_files
from loadtests.steps import Tell

COLUMNS = (
    Column("deliveries_per_s", "deliveries/s"),
    Column("delivered_share", "of those offered", percent=True),
    Column("cpu_us_per_delivery", "server CPU µs per delivery", 3),
    Column("cpu_share", "server CPU of its core", percent=True),
    Column("kernel_share", "of that in the kernel", percent=True),
    Column("redis_us_per_message", "Redis CPU µs per message", 1),
    Column("p50_us", "latency p50 µs"),
    Column("p99_us", "latency p99 µs"),
    Column("p999_us", "latency p99.9 µs"),
    Column("max_us", "latency max µs"),
    Column("messages_per_read", "messages per client read", 1),
    Column("rss_mib", "server RSS MiB", 1),
    Column("bytes_per_delivery", "bytes per delivery", 1),
    Column("lost", "lost"),
    Column("duplicated", "duplicated"),
    Column("client_cpu_share", "load client CPU of its core", percent=True),
    Column("load_core_busy", "load core busy", percent=True),
)
LATENCY = Distribution("Latency, from when a message was due to a member", "latency_us")
DELIVERIES = Timeline("Deliveries", "per second", {"per_s": ""})
PLOTS: tuple[Plot, ...] = (
    DELIVERIES,
    LATENCY,
    Split("CPU of the server", "µs per delivery", {"user_us": "user", "kernel_us": "kernel"}),
    CPU_TIMELINE,
    MEMORY,
)
SETTLE_S = 0.3
"""Waited after the last message before counting, so that a late double is still seen."""
LATE_US = 20_000


@dataclass(frozen=True)
class Fanout:
    """One room, many subscribers, 100-byte payloads at a fixed rate.

    Checks per connection that every message arrived once and in order. Latency counts from the moment the schedule
    wanted a message to leave: each by itself, which is the hardest load, for every message costs the server a turn of
    its own until it is so far behind that it finds several at once.

    Goals: 100 x 6,000 and 100 x 12,000 at least 0.9 x the baseline's deliveries, the latter at least 1,000,000
    deliveries/s; 1,000 x 50 at most 1.2 x its CPU per delivery.
    """

    subscribers: Annotated[int, Option(min=1, help="Connections in the one room.")] = 100
    rate: RoomRate = 6000
    duration_s: Seconds = 10.0
    warmup_s: Annotated[
        float, Option("--warmup", min=0, help="Seconds of the same load before anything is counted.")
    ] = 2.0
    samples: Samples = 3
    pace_us: Annotated[
        int, Option(min=0, help="Gather messages for so many µs before they leave together; 0: each by itself.")
    ] = 0
    through: Annotated[
        Through, Option(help="How messages reach Redis: bare PUBLISH, or the node's append script with its log.")
    ] = "publish"

    def goals(self) -> list[Goal]:
        """The goals stated for exactly this size."""
        size = f"{self.subscribers:,} × {self.rate:,}"
        deliveries = Goal("deliveries_per_s", "ratio", 0.9, None, size)
        goals = {
            "100 × 6,000": [deliveries],
            "100 × 12,000": [deliveries, Goal("deliveries_per_s", "value", 1_000_000, None, size)],
            "1,000 × 50": [Goal("cpu_us_per_delivery", "ratio", None, 1.2, size)],
        }
        return goals.get(size, [])


def run(scenario: Fanout, stage: Stage, console: Console) -> Result:
    """Raises :class:`SetupError` when it could not be measured. Lost messages are in the result, not an exception."""
    allow_open_files(scenario.subscribers)

    def sample(server: Server, tell: Tell) -> Sample:
        with stage.client(server) as client, stage.publisher(scenario.through) as publisher:
            return measure(scenario, stage, server, client, publisher, tell, console)

    samples = alternate(scenario.samples, sample, stage, console)
    parameters = {
        "subscribers": scenario.subscribers,
        "messages/s": scenario.rate,
        "seconds": scenario.duration_s,
        "samples": scenario.samples,
        "payload bytes": 100,
        "pace µs": scenario.pace_us,
        "through": scenario.through,
        **stage.parameters,
    }
    notes = trust_notes(samples, pinned=stage.load_core is not None)
    late_us = max(s.figures["publisher_late_max_us"] for s in samples)
    if late_us > LATE_US:
        notes.append(f"a message left up to {late_us / 1000:,.0f} ms late: part of the latencies is the publisher's")
    sizes = {round(s.figures["bytes_per_delivery"]) for s in samples}
    if len(sizes) > 1 and min(sizes) < 0.98 * max(sizes):
        notes.append(f"the servers did not send the same bytes: {sorted(sizes)} per delivery")
    return Result("fanout", parameters, COLUMNS, scenario.goals(), samples, notes, plots=PLOTS)


def measure(
    scenario: Fanout, stage: Stage, server: Server, client: Native, publisher: Native, tell: Tell, console: Console
) -> Sample:
    """One server, from the joins on."""
    count = round(scenario.rate * scenario.duration_s)
    late_s = 30 + scenario.duration_s
    tell(f"joining {scenario.subscribers:,}")
    client.ask(f"open {scenario.subscribers} {IN_FLIGHT}", timeout_s=60 + scenario.subscribers / 100)
    if stage.subscribed() != 1:
        raise SetupError(
            f"{stage.subscribed()} subscribers in Redis: after the joins the {server.kind} must be the one"
        )
    tell("warming up")
    warm_count = max(1, round(scenario.rate * scenario.warmup_s))
    warm = publisher.ask(
        f"publish {warm_count} {scenario.rate} {scenario.pace_us}", timeout_s=late_s + scenario.warmup_s
    )
    client.ask(f"reach {warm['last']}", timeout_s=late_s)
    client.ask("reset", timeout_s=10)
    tell(f"publishing {count:,}")
    window = Window(server.pids, stage)
    published = publisher.ask(
        f"publish {count} {scenario.rate} {scenario.pace_us}", timeout_s=late_s + scenario.duration_s
    )
    tell("waiting until all arrived")
    client.ask(f"reach {published['last']}", timeout_s=late_s + 10 * scenario.duration_s)
    server_side = window.close()
    rss_mib = rss_bytes(server.child.pid) / 2**20
    time.sleep(SETTLE_S)
    seen = client.ask(f"report {published['last']}", timeout_s=30)
    if seen["lost"] or seen["duplicated"] or seen["reordered"] or seen["closed"]:
        console.print(f"{server.kind}, as the load client saw it:\n{client.log_tail()}", markup=False)
    deliveries = max(1.0, seen["deliveries"])
    cpu_us = server_side["cpu_s"] * 1e6 / deliveries
    figures = {
        **seen,
        **server_side,
        "deliveries_per_s": seen["deliveries"] / seen["span_s"] if seen["span_s"] else 0.0,
        "delivered_share": seen["deliveries"] / (count * scenario.subscribers),
        "offered_per_s": count / published["seconds"],
        "publisher_late_max_us": published["late_max_us"],
        "cpu_us_per_delivery": cpu_us,
        "user_us": cpu_us * (1 - server_side["kernel_share"]),
        "kernel_us": cpu_us * server_side["kernel_share"],
        "redis_us_per_message": server_side["redis_cpu_s"] * 1e6 / count,
        "bytes_per_delivery": seen["bytes"] / deliveries,
        "client_cpu_share": seen["client_cpu_s"] / seen["window_s"],
        "messages_per_read": seen["deliveries"] / seen["reads"] if seen["reads"] else 0.0,
        "rss_mib": rss_mib,
    }
    return Sample(server.kind, figures, client.curves() | window.curves)

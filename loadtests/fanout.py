"""Scenario ``fanout``: one room, many subscribers, messages at a fixed rate."""

from __future__ import annotations

import time
from dataclasses import dataclass

from rich.console import Console

from loadtests.accounting import rss_bytes
from loadtests.errors import SetupError
from loadtests.processes import Native
from loadtests.result import Column, Goal, Result
from loadtests.sampling import Tell, Window, alternate, trust_notes
from loadtests.stage import IN_FLIGHT, Server, Stage, Through, allow_open_files

COLUMNS = (
    Column("deliveries_per_s", "deliveries/s"),
    Column("delivered_share", "of those offered", percent=True),
    Column("cpu_us_per_delivery", "server CPU µs per delivery", 3),
    Column("cpu_share", "server CPU of its core", percent=True),
    Column("kernel_share", "of that in the kernel", percent=True),
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
SETTLE_S = 0.3
"""Waited after the last message before counting, so that a late double is still seen."""


@dataclass(frozen=True)
class Fanout:
    """``pace_us``: the publisher gathers messages for so long. 0: each leaves when it is due. That is the hardest load:
    every message costs the server a turn of its own, until it is so far behind that it finds several at once."""

    subscribers: int = 100
    rate: int = 6000
    duration_s: float = 10.0
    warmup_s: float = 2.0
    samples: int = 3
    pace_us: int = 0
    through: Through = "publish"

    def goals(self) -> list[Goal]:
        """The goals stated for exactly this size."""
        if (self.subscribers, self.rate) == (100, 6000):
            return [Goal("deliveries_per_s", "ratio", 0.85, None, "100 × 6,000")]
        if (self.subscribers, self.rate) == (1000, 50):
            return [Goal("cpu_us_per_delivery", "ratio", None, 1.3, "1,000 × 50")]
        return []


def run(scenario: Fanout, stage: Stage, console: Console) -> Result:
    """Raises :class:`SetupError` when it could not be measured. Lost messages are in the result, not an exception."""
    allow_open_files(scenario.subscribers)

    def sample(server: Server, tell: Tell) -> dict[str, float]:
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
    sizes = {round(s.figures["bytes_per_delivery"]) for s in samples}
    if len(sizes) > 1 and min(sizes) < 0.98 * max(sizes):
        notes.append(f"the servers did not send the same bytes: {sorted(sizes)} per delivery")
    return Result("fanout", parameters, COLUMNS, scenario.goals(), samples, notes)


def measure(
    scenario: Fanout, stage: Stage, server: Server, client: Native, publisher: Native, tell: Tell, console: Console
) -> dict[str, float]:
    """One server's figures, from the joins on."""
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
    window = Window(server, stage)
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
    deliveries = seen["deliveries"]
    return {
        **seen,
        **server_side,
        "deliveries_per_s": deliveries / seen["span_s"] if seen["span_s"] else 0.0,
        "delivered_share": deliveries / (count * scenario.subscribers),
        "offered_per_s": count / published["seconds"],
        "publisher_late_max_us": published["late_max_us"],
        "cpu_us_per_delivery": server_side["cpu_s"] * 1e6 / deliveries if deliveries else 0.0,
        "bytes_per_delivery": seen["bytes"] / deliveries if deliveries else 0.0,
        "client_cpu_share": seen["client_cpu_s"] / seen["window_s"],
        "messages_per_read": deliveries / seen["reads"] if seen["reads"] else 0.0,
        "rss_mib": rss_mib,
    }

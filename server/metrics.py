"""What a node measures, and how Prometheus reads it at ``/metrics``.

The hot paths add to plain numbers (a tenth of the cost of ``Counter.inc``); a collector makes metrics of them when
scraped. Names begin with ``roomcast_`` and follow Prometheus' conventions; no label carries a room or a user. Each node
has a registry of its own, so several live in one process.
"""

from __future__ import annotations

import asyncio
import platform
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from broker.stats import BrokerStats, ServerHealth
from server.version import VERSION

LATENCY_BUCKETS_S = (0.0001, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
LOOP_LAG_SAMPLE_S = 0.25


REFUSALS = (
    *("full", "draining", "address", "guesses", "origin"),  # by HTTP status
    *("credentials", "no_credentials", "outdated", "user", "too_often"),  # accepted, and closed with 4001 or 4010
)
"""Why handshakes are refused."""


class Counts:
    """The node's own numbers. All only grow, except those said to be the present state."""

    __slots__ = (
        "bytes_in",
        "bytes_out",
        "closes",
        "connections",
        "connections_plain",
        "connections_total",
        "deliveries",
        "drops",
        "errors",
        "foreign",
        "joins",
        "messages_in",
        "messages_out",
        "rebalanced",
        "refused",
        "rooms",
        "slow_closes",
    )

    def __init__(self) -> None:
        self.connections = 0
        """Open now, on both lanes."""
        self.connections_plain = 0
        """Open now, on the plain lane."""
        self.connections_total = 0
        self.rooms = 0
        """Rooms with a member on this node now."""
        self.joins = 0
        self.messages_in = 0
        """Whole messages from clients."""
        self.bytes_in = 0
        self.messages_out = 0
        """Messages for local members, before fan-out multiplies them."""
        self.deliveries = 0
        """The same after it: each counts once per recipient."""
        self.bytes_out = 0
        """Bytes of what was fanned out, counted as JSON text frames; answers to requests are not in it."""
        self.rebalanced = 0
        """Connections sent to emptier nodes."""
        self.errors = 0
        """Requests answered with an error."""
        self.foreign = 0
        """Signals that no node of ours can have written, dropped."""
        self.drops: Counter[tuple[str, str]] = Counter()
        """What was not sent to a client that should have got it, by reason and kind of event."""
        self.slow_closes: Counter[str] = Counter()
        """Connections that ended because their client reads too slowly, by what it did: ``limit`` or ``stall``."""
        self.refused: Counter[str] = Counter()
        """Handshakes that ended without a connection, by reason."""
        self.closes: Counter[int] = Counter()
        """Connections that ended, by close code."""

    def closed(self, code: int) -> None:
        """One connection ended. A peer may send any code: those that no table knows are one."""
        self.closes[code if code <= 1015 or 4000 <= code <= 4099 else 0] += 1

    def dropped(self, reason: str, events: int = 1, kind: str = "message") -> None:
        """``reason`` and ``kind`` are of a few fixed words, never text from outside."""
        self.drops[reason, kind] += events


class Timing:
    """A histogram of seconds, about 0.3 µs per observation."""

    __slots__ = ("_bounds_s", "_counts", "_sum_s")

    def __init__(self, bounds_s: Sequence[float] = LATENCY_BUCKETS_S) -> None:
        self._bounds_s = bounds_s
        self._counts = [0] * (len(bounds_s) + 1)
        self._sum_s = 0.0

    def observe(self, seconds: float) -> None:
        self._counts[bisect_left(self._bounds_s, seconds)] += 1
        self._sum_s += seconds

    @property
    def count(self) -> int:
        return sum(self._counts)

    @property
    def total_s(self) -> float:
        return self._sum_s

    def family(self, name: str, text: str) -> HistogramMetricFamily:
        buckets: list[tuple[str, float]] = []
        total = 0
        for bound, count in zip([*map(str, self._bounds_s), "+Inf"], self._counts, strict=True):
            total += count
            buckets.append((bound, total))
        return HistogramMetricFamily(name, text, buckets=buckets, sum_value=self._sum_s)


class Metrics:
    """One node's. Give the hub ``counts`` and the timings; tell where other numbers live by ``watch``."""

    content_type = "text/plain; version=0.0.4; charset=utf-8"

    def __init__(self) -> None:
        self.counts = Counts()
        self.fanout_seconds = Timing()
        self.publish_seconds = Timing()
        self.loop_lag_seconds = Timing()
        self._gauges: list[tuple[str, str, Callable[[], float]]] = []
        self._broker: tuple[BrokerStats, Callable[[], bool]] | None = None
        self._registry = CollectorRegistry()
        self._registry.register(_Exporter(self.families))
        ProcessCollector(registry=self._registry)

    def watch(self, name: str, text: str, read: Callable[[], float]) -> None:
        """A gauge that is read when scraped, so that nobody needs to keep it up to date."""
        self._gauges.append((name, text, read))

    def watch_broker(self, stats: BrokerStats, ready: Callable[[], bool]) -> None:
        """Export the broker's own numbers, and time its publishes from now on."""
        self._broker = (stats, ready)
        stats.observe_publish = self.publish_seconds.observe

    async def sample_loop_lag(self, every_s: float = LOOP_LAG_SAMPLE_S) -> None:
        """Observe, for ever, by how much the event loop is late."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + every_s
            await asyncio.sleep(every_s)
            self.loop_lag_seconds.observe(max(0.0, loop.time() - due))

    def render(self) -> bytes:
        """The text that Prometheus reads, of :attr:`content_type`."""
        return generate_latest(self._registry)

    def families(self) -> Iterable[Metric]:
        counts = self.counts
        build = GaugeMetricFamily("roomcast_build_info", "Always 1.", labels=["version", "python"])
        build.add_metric([VERSION, platform.python_version()], 1)
        yield build
        connections = GaugeMetricFamily("roomcast_connections", "Open WebSocket connections.", labels=["lane"])
        connections.add_metric(["fast"], counts.connections - counts.connections_plain)
        connections.add_metric(["plain"], counts.connections_plain)
        yield connections
        yield GaugeMetricFamily("roomcast_rooms", "Rooms with a member on this node.", counts.rooms)
        for name, text, value in (
            ("connections_opened", "Connections that became part of the node.", counts.connections_total),
            ("joins", "Rooms joined by connections.", counts.joins),
            ("messages_received", "Whole messages from clients.", counts.messages_in),
            ("received_bytes", "Payload bytes of messages from clients.", counts.bytes_in),
            ("messages_sent", "Messages for members here, before fan-out multiplies them.", counts.messages_out),
            ("deliveries", "Messages times recipients.", counts.deliveries),
            ("sent_bytes", "Bytes of what was fanned out, as JSON text frames.", counts.bytes_out),
            ("request_errors", "Requests answered with an error.", counts.errors),
            ("rebalanced_connections", "Connections sent to emptier nodes.", counts.rebalanced),
            ("foreign_signals", "Signals no node of ours can have written, dropped.", counts.foreign),
        ):
            yield CounterMetricFamily(f"roomcast_{name}", text, value)
        text = "Events not sent to a client, by reason and kind; of all but messages a later one took their place."
        drops = CounterMetricFamily("roomcast_drops", text, labels=["reason", "kind"])
        for labels, dropped in counts.drops.items():
            drops.add_metric(labels, dropped)
        yield drops
        text = "Connections ended because the client reads too slowly: over the limit (closed), or stalled (cut)."
        slow = CounterMetricFamily("roomcast_slow_closes", text, labels=["why"])
        for why in ("limit", "stall"):
            slow.add_metric([why], counts.slow_closes[why])
        yield slow
        refused = CounterMetricFamily("roomcast_refused", "Handshakes refused, by reason.", labels=["reason"])
        for reason in REFUSALS:
            refused.add_metric([reason], counts.refused[reason])
        yield refused
        closes = CounterMetricFamily("roomcast_closes", "Connections that ended, by close code.", labels=["code"])
        for code, closed in counts.closes.items():
            closes.add_metric([str(code) if code else "other"], closed)
        yield closes
        yield self.fanout_seconds.family("roomcast_fanout_seconds", "To hand what one tick brought to all connections.")
        yield self.publish_seconds.family("roomcast_publish_seconds", "From a publish to the broker's answer.")
        yield self.loop_lag_seconds.family("roomcast_loop_lag_seconds", "By how much the event loop runs late.")
        for name, text, read in self._gauges:
            yield GaugeMetricFamily(name, text, read())
        if self._broker is not None:
            yield from broker_families(*self._broker)


BROKER_COUNTERS = {
    "commands": ("commands", "Commands sent to the broker, scripts included."),
    "errors": ("errors", "Error replies of the broker."),
    "publishes": ("publishes", "Appends and publishes accepted, whatever became of them."),
    "publish_batches": ("publish_batches", "Script calls that carried them."),
    "unavailable": ("publishes_unavailable", "Publishes refused because nothing could be sent."),
    "outcomes_unknown": ("publishes_unknown", "Publishes sent and not answered in time."),
    "noscript": ("script_reloads", "Scripts that had to be loaded again."),
    "deliveries": ("items", "Items the broker handed to this node."),
    "foreign": ("foreign_items", "Bytes on our channels that were not ours, dropped."),
    "newer": ("newer_items", "Items written by a newer release, dropped; their rooms are verified."),
    "bytes_in": ("received_bytes", "Bytes received from the broker."),
    "bytes_out": ("sent_bytes", "Bytes sent to the broker."),
    "reconnects": ("reconnects", "Connections to the broker built again."),
    "probes_missed": ("probes_missed", "Loop-back probes that did not come back in time."),
    "reader_restarts": ("reader_restarts", "Readers that died of an error and were restarted."),
    "task_restarts": ("task_restarts", "Background tasks that died of an error and were restarted."),
    "interruptions": ("interruptions", "Outages of the broker, as this node saw them."),
}
"""Field of :class:`BrokerStats` -> name after ``roomcast_broker_``, help."""


def broker_families(stats: BrokerStats, ready: Callable[[], bool]) -> Iterable[Metric]:
    yield GaugeMetricFamily("roomcast_broker_ready", "1 while the node hears the broker.", float(ready()))
    text = "The part of Redis (on a cluster: of the shards) that does not serve this node, from 0 to 1."
    yield GaugeMetricFamily("roomcast_broker_away_ratio", text, stats.away)
    for field, (name, text) in BROKER_COUNTERS.items():
        yield CounterMetricFamily(f"roomcast_broker_{name}", text, getattr(stats, field))
    text = "The way of the last probe through the broker and back: the lag of the subscriber."
    yield GaugeMetricFamily("roomcast_subscriber_lag_seconds", text, stats.probe_rtt_s)
    yield from server_families(stats.servers)
    if stats.probe_confirmed_at_s:
        age_s = max(0.0, time.monotonic() - stats.probe_confirmed_at_s)
        yield GaugeMetricFamily("roomcast_broker_probe_age_seconds", "Since the last probe came back.", age_s)


SERVER_GAUGES = {
    "used_memory_bytes": ("used_memory_bytes", "Memory that Redis says it uses."),
    "maxmemory_bytes": ("maxmemory_bytes", "Redis' own limit; 0 is none."),
    "clients": ("clients", "Connections to Redis, of all its users."),
    "commands_per_s": ("commands_per_second", "Commands Redis carried out a second, a moment ago."),
    "persistence_ok": ("persistence_ok", "1 while the last writes of Redis to its disk went well."),
}
"""Field of :class:`ServerHealth` -> name after ``roomcast_redis_``, help."""


def server_families(servers: Mapping[str, ServerHealth]) -> Iterable[Metric]:
    """What the node knows of each Redis it uses, at most some seconds old; nothing of one it is not connected to."""
    for field, (name, text) in SERVER_GAUGES.items():
        gauge = GaugeMetricFamily(f"roomcast_redis_{name}", text, labels=["server"])
        for server, health in servers.items():
            gauge.add_metric([server], float(getattr(health, field)))
        yield gauge


class _Exporter(Collector):
    def __init__(self, families: Callable[[], Iterable[Metric]]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families()

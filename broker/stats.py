"""What a broker counted. Plain numbers, read by whoever exports them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field


def ignore_latency(_seconds: float) -> None:
    """The default observer: nobody looks."""


@dataclass(frozen=True, slots=True)
class ServerHealth:
    """One Redis server, as it described itself a moment ago."""

    used_memory_bytes: int
    maxmemory_bytes: int
    """0: no limit but the machine's."""
    clients: int
    commands_per_s: float
    persistence_ok: bool
    """The last writes to its disk, if it writes any, went well."""


@dataclass(slots=True)
class BrokerStats:
    """Counters only grow; names with ``_s`` are seconds. Incremented on the event loop, so no locks."""

    commands: int = 0
    """Commands sent, scripts included."""
    errors: int = 0
    """Error replies."""
    publishes: int = 0
    """Appends and publishes accepted, whatever became of them."""
    publish_batches: int = 0
    """Script calls that carried them."""
    unavailable: int = 0
    """Publishes refused because nothing could be sent."""
    outcomes_unknown: int = 0
    """Publishes sent and not answered in time."""
    noscript: int = 0
    """Scripts that had to be loaded again."""
    deliveries: int = 0
    """Items handed to the sink."""
    foreign: int = 0
    """Messages on our channels that were not ours, dropped."""
    newer: int = 0
    """Messages written by a newer release, dropped; their rooms are verified."""
    bytes_in: int = 0
    bytes_out: int = 0
    reconnects: int = 0
    """Connections built again, both sides together."""
    probes_missed: int = 0
    reader_restarts: int = 0
    """Readers that died of an error of our own or of the sink's."""
    task_restarts: int = 0
    """Background tasks that died of an error and were started again."""
    interruptions: int = 0
    probe_rtt_s: float = 0.0
    """The way of the last probe through Redis and back."""
    probe_confirmed_at_s: float = 0.0
    """``time.monotonic()`` when the last probe came back; 0 before the first."""
    away: float = 0.0
    """The part of the broker that is not served, from 0 to 1. Where there are several masters each has its part."""
    presence_waits: list[Callable[[], float]] = field(default_factory=list)
    """Each gives the seconds for which the oldest presence count of its part has not been confirmed; 0: all are."""
    servers: dict[str, ServerHealth] = field(default_factory=dict)
    """Address without credentials -> its health."""
    observe_publish: Callable[[float], None] = ignore_latency
    """Called with the seconds from the call of append or publish to its answer."""

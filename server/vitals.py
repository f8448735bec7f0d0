"""What a node says of its own state to operators: gauges for Prometheus, samples for the status page."""

from __future__ import annotations

import heapq
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from server import closing
from server.connection import CONGESTED, Connection
from server.version import VERSION

if TYPE_CHECKING:
    from server.hub import LocalHub

SLOWEST = 5
"""So many slow readers of a node are named."""


def presence_lag_s(hub: LocalHub) -> float:
    """For how long presence has been other than it should be, as far as this node knows: the oldest change of its own
    that the broker has not taken, or the longest that something its clients watch has been behind. 0: all is well."""
    return max(hub.presence.behind_s(), *(waits() for waits in hub.broker.stats.presence_waits))


def subscriber_lag_s(hub: LocalHub) -> float:
    """The way through the broker and back; while nothing comes back, for how long nothing has. 0 before the first."""
    stats = hub.broker.stats
    if hub.broker.ready or not stats.probe_confirmed_at_s:
        return stats.probe_rtt_s
    return time.monotonic() - stats.probe_confirmed_at_s


def congested(hub: LocalHub) -> list[Connection]:
    """Connections that read so slowly that nothing further is read from them."""
    return [connection for connection in hub.everyone() if connection.held & CONGESTED]


def users(hub: LocalHub) -> int:
    """Users with a connection here, each once."""
    return len(hub.users) + sum(1 for user in hub.raw_users if not hub.users.members(user))


def watch(hub: LocalHub) -> None:
    """Export all this. Once per node."""
    for name, text, read in (
        ("ready", "1 while the node takes connections: /readyz says 200.", lambda: float(hub.ready)),
        ("draining", "1 while the node sends its clients away.", lambda: float(hub.draining)),
        ("users", "Users with a connection to this node.", lambda: float(users(hub))),
        ("presence_lag_seconds", "The longest that presence here is out of date.", lambda: presence_lag_s(hub)),
    ):
        hub.metrics.watch(f"roomcast_{name}", text, read)


class Sampler:
    """Says how the node is. Numbers that only grow are said as they are: who reads two samples knows the rates."""

    def __init__(self, hub: LocalHub) -> None:
        self._hub = hub
        self._started_s = time.time()

    def sample(self, *, leaving: bool = False) -> bytes:
        """JSON text. ``leaving``: it is the last one."""
        hub = self._hub
        counts, stats, loop_lag = hub.counts, hub.broker.stats, hub.metrics.loop_lag_seconds
        slow = congested(hub)
        sample: dict[str, Any] = {
            "node": hub.broker.node_id,
            "version": VERSION,
            "started": self._started_s,
            "at": time.time(),
            "ready": hub.ready,
            "reason": hub.reason,
            "draining": hub.draining or leaving,
            "connections": counts.connections,
            "users": users(hub),
            "rooms": counts.rooms,
            "opened": counts.connections_total,
            "received": counts.messages_in,
            "deliveries": counts.deliveries,
            "sent_bytes": counts.bytes_out,
            "errors": counts.errors,
            "dropped": counts.drops.total(),
            "slow_closed": counts.closes[closing.SLOW],
            "slow": len(slow),
            "slowest": [
                {"user": user, "path": path, "pending_bytes": size}
                for size, user, path in heapq.nlargest(
                    SLOWEST, ((each.outbound_bytes(), each.user or "", each.path) for each in slow)
                )
            ],
            "publishes": stats.publishes,
            "publishes_failed": stats.unavailable + stats.outcomes_unknown,
            "reconnects": stats.reconnects,
            "subscriber_lag_s": subscriber_lag_s(hub),
            "presence_lag_s": presence_lag_s(hub),
            "loop_lag_sum_s": loop_lag.total_s,
            "loop_lag_count": loop_lag.count,
            "cpu_s": time.process_time(),
            "memory_bytes": _resident_bytes(),
            "servers": stats.servers,
        }
        return orjson.dumps(sample)


def _resident_bytes() -> int | None:
    """None where the kernel does not say."""
    try:
        pages = Path("/proc/self/statm").read_text().split()[1]
    except OSError:
        return None
    return int(pages) * os.sysconf("SC_PAGE_SIZE")

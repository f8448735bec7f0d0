"""Whether the shards are served: many links, one story for the sink."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection

from broker.base import Sink
from broker.stats import BrokerStats

logger = logging.getLogger("broker.redis")


class Health:
    """A shard is up, down, or (before its first link is built) neither. The sink is ``interrupted`` when the first
    shard goes down and ``restored`` when the last one is up again.

    Ready means more than half of the shards: when one master of a cluster is away all nodes feel the same, and a proxy
    that took them all out would make an outage of it; a node that alone is cut off from most of the cluster leaves.
    """

    def __init__(self, shards: int, stats: BrokerStats) -> None:
        self.sink: Sink | None = None
        """Set before anything is linked."""
        self.ready = asyncio.Event()
        self._shards = shards
        self._stats = stats
        self._up: set[int] = set()
        self._down: dict[int, str] = {}
        self._reason = "not started"
        self._interrupted = False
        self._probed_s: dict[object, float] = {}

    @property
    def reason(self) -> str:
        """Why it is not ready; empty when it is."""
        return "" if self.ready.is_set() else self._reason

    def interrupt(self, shards: Collection[int], reason: str) -> None:
        """These are not served, or not heard."""
        if not shards or self.sink is None:
            return
        self._up.difference_update(shards)
        self._down.update(dict.fromkeys(shards, reason))
        self._reason = reason
        self._judge()
        if not self._interrupted:
            self._interrupted = True
            self._stats.interruptions += 1
            logger.warning("interrupted: %s", reason)
            self.sink.interrupted(reason)

    def restore(self, shards: Collection[int], by: str) -> None:
        """These are served and heard."""
        for shard in shards:
            self._down.pop(shard, None)
        self._up.update(shards)
        self._judge()
        if self._interrupted and not self._down and self.sink is not None:
            self._interrupted = False
            logger.info("restored: connected to Redis at %s", by)
            self.sink.restored()

    def is_up(self, shard: int) -> bool:
        return shard in self._up

    def probed(self, link: object, sent_s: float, now_s: float) -> None:
        """A probe came back; the age that is told is that of the link where it is highest. ``link`` is whoever keeps
        it, and not its address, which changes with the master."""
        self._probed_s[link] = now_s
        self._stats.probe_confirmed_at_s = min(self._probed_s.values())
        self._stats.probe_rtt_s = now_s - sent_s

    def forget(self, link: object) -> None:
        """It serves nobody any more."""
        self._probed_s.pop(link, None)

    def close(self) -> None:
        self._reason = "closed"
        self.ready.clear()

    def _judge(self) -> None:
        self._stats.away = len(self._down) / self._shards
        if 2 * len(self._up) > self._shards:
            self.ready.set()
        else:
            self.ready.clear()
            self._reason = next(iter(self._down.values()), self._reason)

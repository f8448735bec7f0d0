"""Between nodes: carries messages, keeps the logs of rooms and the counts of presence.

A URL chooses the broker; what the choice does not need is not imported.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from broker.options import BrokerOptions

if TYPE_CHECKING:
    from broker.base import Broker

REDIS_SCHEMES = ("redis", "rediss", "unix", "redis+cluster", "rediss+cluster", "redis+sentinel", "rediss+sentinel")

__all__ = ["BrokerOptions", "broker_from_url"]


def broker_from_url(url: str, *, node_id: str, options: BrokerOptions | None = None) -> Broker:
    """The broker of a URL, not started yet. ValueError, with what to write instead, for a URL that is none.

    ``memory://`` is a bus of its own, ``memory://name`` is shared by all brokers of that name in this process;
    ``redis://``, ``rediss://`` (TLS) and ``unix://`` are one Redis server, ``redis+sentinel://`` is a master that
    sentinels watch, ``redis+cluster://`` a cluster (broker/redis/target.py). ``node_id`` is unique among the nodes.
    """
    options = options or BrokerOptions()
    scheme = urlsplit(url).scheme
    if scheme == "memory":
        from broker.memory import MemoryBroker
        from broker.memory_bus import MemoryBus

        name = urlsplit(url).netloc
        return MemoryBroker(node_id=node_id, bus=MemoryBus.named(name) if name else None, options=options)
    if scheme in REDIS_SCHEMES:
        from broker.redis.broker import RedisBroker

        return RedisBroker(url, node_id=node_id, options=options)
    raise ValueError(
        f"no broker for {scheme or 'a URL without scheme'!r}: use memory://, redis://host:6379/0, rediss:// (TLS), "
        "unix:///path/to/socket, redis+sentinel://host:26379,host:26379/master/0 or redis+cluster://host:6379,host:6379"
    )

"""What a broker may be told, whichever it is. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class BrokerOptions:
    """Settings of one broker. The defaults are those of docs/operations.md; tests run the times scaled down."""

    prefix: str = "roomcast"
    """First part of every key and channel: keeps installations on one Redis apart."""
    password_file: str | None = None
    """Read at every connection attempt and used instead of the URL's password, so that it can be rotated."""

    heartbeat_s: float = 2.0
    """Between two probes (presence heartbeats). A deaf connection is noticed after two and a half of them."""
    lease_s: float = 8.0
    """A node not heard of for so long is dead: its share of presence is given up."""
    grace_s: float = 5.0
    """A user without connection for less than this was never away."""
    visitor: bool = False
    """Looks on and is no node: holds no lease, and so never applies its own times to those of the nodes."""

    connect_timeout_s: float = 2.0
    """For one connection attempt with all its questions."""
    publish_timeout_s: float = 2.0
    """A sent publish not answered within this has an unknown outcome. Also the limit of any other command."""
    unavailable_after_s: float = 1.0
    """What could not be sent within this fails as unavailable."""
    backoff_min_s: float = 0.2
    """Before the first attempt to reconnect (half to all of it); doubled by every failure."""
    backoff_max_s: float = 5.0

    dedup_ttl_s: float = 120.0
    """How long a retry key is remembered."""
    marks_ttl_s: float = 30 * 24 * 3600.0
    """How long the receipt mark of a user is kept who does not come back."""
    max_marks_per_room: int = 10_000
    """Marks kept of one room; above it those that have not moved for longest go."""
    max_waiting_publishes: int = 1000
    """Publishes that wait to be sent. One more fails at once as unavailable."""
    max_waiting_bytes: int = 16 * 1024 * 1024
    """The same, in bytes of payload."""

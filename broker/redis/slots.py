"""Who has which hash slots, read from CLUSTER NODES. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple


class Server(NamedTuple):
    """One line of CLUSTER NODES. ``name`` is the host name it announces, if it does. ``slots`` are ranges, both ends
    included; ``epoch`` is that of its claim to them: of two that claim a slot the later one has it."""

    host: str
    port: int
    name: str
    master: bool
    epoch: int
    slots: tuple[tuple[int, int], ...]


def parse_nodes(text: str, asked: str) -> list[Server]:
    """What one server of the cluster believes. ``asked`` is the host it was asked at: one that has not heard its own
    address yet leaves it out. Servers without an address are left out."""
    servers = []
    for line in text.splitlines():
        fields = line.split()
        if len(fields) < 8:
            continue
        flags = fields[2].split(",")
        endpoint, *announced = fields[1].split(",")
        host, _, port = endpoint.partition("@")[0].rpartition(":")
        if not host and "myself" in flags:
            host = asked
        if not host or not port.isdigit() or port == "0" or "noaddr" in flags or "handshake" in flags:
            continue
        ranges = [part.partition("-") for part in fields[8:] if not part.startswith("[")]
        slots = tuple((int(first), int(last or first)) for first, _, last in ranges)
        name = announced[0] if announced and "=" not in announced[0] else ""
        servers.append(Server(host.strip("[]"), int(port), name, "master" in flags, int(fields[6]), slots))
    return servers


def owners(slots: Sequence[int], views: Iterable[list[Server]]) -> list[Server | None]:
    """Who has each slot: of all who are said to have it by any of the views, the one with the latest claim. So a
    server that has not heard of a failover yet cannot lead anybody back."""
    claims = sorted((server for view in views for server in view if server.master), key=lambda server: -server.epoch)
    return [
        next((server for server in claims if any(first <= slot <= last for first, last in server.slots)), None)
        for slot in slots
    ]

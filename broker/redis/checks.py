"""What a Redis server must be, read from its INFO. Pure."""

from __future__ import annotations

from typing import NamedTuple

from broker.stats import ServerHealth

OLDEST = (7, 0)
MEMORY_ALARM = 0.8


SECTIONS = ("server", "memory", "persistence", "replication", "clients", "stats", "cluster")
"""Of INFO: what this file reads."""


class Findings(NamedTuple):
    """``refusal`` says why this server cannot be used; ``warnings`` what an operator should change."""

    refusal: str
    warnings: list[str]


def parse_info(text: bytes) -> dict[str, str]:
    """The fields of an INFO reply."""
    fields = {}
    for line in text.decode("utf-8", "replace").splitlines():
        name, colon, value = line.partition(":")
        if colon and not line.startswith("#"):
            fields[name] = value
    return fields


def examine(info: dict[str, str], *, clustered: bool = False) -> Findings:
    """Judge a server by the ``SECTIONS`` of its INFO. ``clustered``: it was found as one of a cluster."""
    version = info.get("redis_version", "0")
    if _version(version) < OLDEST:
        return Findings(f"is Redis {version}; 7.0 is the oldest that works, upgrade it", [])
    if info.get("role") != "master":
        return Findings("is a replica; point the broker URL at the master", [])
    if not clustered and info.get("cluster_enabled", "0") != "0":
        return Findings("is one of a cluster; write redis+cluster:// in the broker URL", [])
    if info.get("loading", "0") != "0":
        return Findings("is still loading its data", [])
    policy = info.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        return Findings(
            f"has maxmemory-policy {policy} and may drop keys that count presence; "
            "CONFIG SET maxmemory-policy noeviction",
            [],
        )
    warnings = []
    maxmemory, used = int(info.get("maxmemory", 0)), int(info.get("used_memory", 0))
    if maxmemory == 0:
        warnings.append("has no maxmemory: set one below the memory of its machine")
    elif used > MEMORY_ALARM * maxmemory:
        warnings.append(f"uses {used / maxmemory:.0%} of its maxmemory: raise it or shorten the history")
    if info.get("aof_enabled") != "1":
        warnings.append("has no append-only file: when it crashes, rooms lose their latest messages and are reset")
    if not _persists(info):
        warnings.append("failed to write to its disk: look into its log")
    return Findings("", warnings)


def health(info: dict[str, str]) -> ServerHealth:
    """The same sections as numbers."""
    return ServerHealth(
        used_memory_bytes=int(info.get("used_memory", 0)),
        maxmemory_bytes=int(info.get("maxmemory", 0)),
        clients=int(info.get("connected_clients", 0)),
        commands_per_s=float(info.get("instantaneous_ops_per_sec", 0)),
        persistence_ok=_persists(info),
    )


def _persists(info: dict[str, str]) -> bool:
    return info.get("rdb_last_bgsave_status", "ok") == "ok" and info.get("aof_last_write_status", "ok") == "ok"


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) if part.isdigit() else 0 for part in text.split("."))

"""What a broker URL of the Redis kinds means. Pure, but for the certificate files a TLS context reads.

``redis://[user:password@]host[:port][/db]``, ``rediss://`` (TLS), ``unix://[user:password@]/path?db=…``;
``redis+cluster://[user:password@]host:port,host:port`` and ``redis+sentinel://[user:password@]host:port,…/master/db``,
both with TLS as ``rediss+…``. User and password are those of the data servers; those of the sentinels are
``?sentinel_username=…&sentinel_password=…``, because sentinels often have none.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, NamedTuple
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from broker.redis.address import Address, parse_address

Kind = Literal["single", "cluster", "sentinel"]
SENTINEL_PORT = 26379


class Target(NamedTuple):
    """``seeds`` are who is asked first (the server itself, servers of the cluster, sentinels), each with its own
    login; ``server`` is how to get into a data server, wherever it is."""

    kind: Kind
    seeds: list[Address]
    server: Address
    master: str = ""


def parse_target(url: str) -> Target:
    """ValueError says what is wrong with it."""
    scheme, netloc, path, query, _ = urlsplit(url)
    plain, plus, kind = scheme.partition("+")
    if not plus:
        address = parse_address(url)
        return Target("single", [address], address)
    login, at, hosts = netloc.rpartition("@")
    default_port = SENTINEL_PORT if kind == "sentinel" else 6379
    names = [host if _has_port(host) else f"{host}:{default_port}" for host in hosts.split(",") if host]
    if not names:
        raise ValueError(f"the broker URL names no host: write {scheme}://host:port,host:port")
    options = dict(parse_qsl(query))
    sentinel = {name: options.pop(f"sentinel_{name}", None) for name in ("username", "password")}

    def address_of(host: str, db: str) -> Address:
        return parse_address(urlunsplit((plain, login + at + host, f"/{db}" if db else "", urlencode(options), "")))

    parts = path.strip("/").split("/") if path.strip("/") else []
    if kind == "cluster":
        if parts not in ([], ["0"]) or any(sentinel.values()):
            raise ValueError(
                "a cluster has only database 0 and no sentinels: write redis+cluster://host:port,host:port"
            )
        seeds = _with_tls_of([address_of(host, "") for host in names])
        return Target("cluster", seeds, seeds[0])
    if not 1 <= len(parts) <= 2:
        raise ValueError("name the master that the sentinels watch: redis+sentinel://host:26379,host:26379/mymaster/0")
    found = _with_tls_of([address_of(host, parts[1] if len(parts) > 1 else "") for host in names])
    seeds = [replace(each, db=0, username=sentinel["username"], password=sentinel["password"]) for each in found]
    return Target("sentinel", seeds, found[0], parts[0])


def _has_port(host: str) -> bool:
    return ":" in host.rpartition("]")[2]


def _with_tls_of(addresses: list[Address]) -> list[Address]:
    """One TLS context for all: it holds the certificates, and two of them are never equal."""
    return [replace(each, tls=addresses[0].tls) for each in addresses]

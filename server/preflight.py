"""What is looked at before a node starts, so that a mistake is one clear line and not a log to search."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import socket
from collections.abc import Sequence
from pathlib import Path

from server.accepting import RESERVED_FILES
from server.redact import redact
from server.settings import SettingsError

LOGIN_TIMEOUT_S = 2.0


def take_files(max_connections: int) -> None:
    """Raise the limit of open files as far as this process may: many systems begin with 1,024 and allow much more.
    Raises SettingsError if ``max_connections`` (0: whatever there is room for) would not fit even so."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):  # a sandbox may forbid it: then it is what it is
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and max_connections + RESERVED_FILES > soft:
        raise SettingsError(
            f"max_connections={max_connections} needs {max_connections + RESERVED_FILES} open files and {soft} are "
            "allowed: raise LimitNOFILE (systemd) or ulimits (containers), or set it lower; 0 takes what there is"
        )


def check_ports(host: str, port: int, metrics_ports: Sequence[int]) -> None:
    """Raises SettingsError as :func:`check_port` does."""
    check_port(host, port)
    for each in metrics_ports:
        if each == port:
            raise SettingsError(f"port {port} is that of the clients: choose another --metrics-port")
        check_port(host, each, "--metrics-port")


def check_port(host: str, port: int, option: str = "--port") -> None:
    """Raises SettingsError if nobody could listen there now; ``option`` chooses the port. What happens a moment later
    is told by the server."""
    try:
        family, kind, proto, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, proto) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            probe.listen(1)  # on Linux, two may bind with SO_REUSEADDR, but only one may listen
    except socket.gaierror:
        raise SettingsError(f"{host!r} is no address of this machine: set --host to one, or to 0.0.0.0") from None
    except OSError as error:
        hints = {
            errno.EADDRINUSE: f"port {port} on {host} is in use: stop what listens there or choose another {option}",
            errno.EACCES: f"port {port} needs special rights: choose one from 1024 on with {option}",
            errno.EADDRNOTAVAIL: f"{host} is no address of this machine: set --host to one, or to 0.0.0.0",
        }
        hint = hints.get(error.errno or 0, f"cannot listen on {host}:{port}: {os.strerror(error.errno or 0)}")
        raise SettingsError(hint) from None


def check_broker_login(url: str, password_file: str | None) -> None:
    """Raises SettingsError if Redis is there and refuses user or password. A Redis that is away is no mistake: the
    node starts, says so at /readyz, and connects when it comes; so it is with the servers behind sentinels and of a
    cluster, which have to be found first."""
    if url.startswith("memory:") or "+" in url.partition(":")[0]:
        return
    import redis

    password = {"password": _read_password(password_file)} if password_file else {}
    client = redis.Redis.from_url(
        url, protocol=2, retry=None, socket_connect_timeout=LOGIN_TIMEOUT_S, socket_timeout=LOGIN_TIMEOUT_S, **password
    )
    with client:
        try:
            client.ping()
        except redis.AuthenticationError as error:
            raise SettingsError(
                f"Redis at {redact(url)} refuses this login ({error}): correct user and password in ROOMCAST_BROKER, "
                "or the password in the file that ROOMCAST_BROKER_PASSWORD_FILE names"
            ) from None
        except redis.RedisError:
            return


def _read_password(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"cannot read the broker's password from {path}: {error}") from None

"""Where Redis is and how to get in. Pure, but for the certificate files a TLS context reads."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from typing import Any

from redis.asyncio.connection import SSLConnection, parse_url

TLS_OPTIONS = {"ssl_cert_reqs", "ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_check_hostname"}


@dataclass(frozen=True, slots=True)
class Address:
    """One server. ``path`` is a unix socket and then host and port mean nothing. ``tls`` is None without TLS."""

    host: str = "localhost"
    port: int = 6379
    path: str | None = None
    db: int = 0
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: ssl.SSLContext | None = field(default=None, repr=False)

    def __str__(self) -> str:
        """For people; without the password."""
        return self.path or f"{self.host}:{self.port}"


def parse_address(url: str) -> Address:
    """Read ``redis://[user:password@]host[:port][/db]``, ``rediss://`` with ``?ssl_ca_certs=…``, or
    ``unix://[user:password@]/path?db=…``. ValueError says what is wrong with it."""
    options: dict[str, Any] = dict(parse_url(url))
    secure = options.pop("connection_class", None) is SSLConnection
    tls_options = {name: options.pop(name) for name in TLS_OPTIONS & options.keys()}
    unknown = options.keys() - {"host", "port", "path", "db", "username", "password"}
    if unknown or (tls_options and not secure):
        names = ", ".join(sorted(unknown or tls_options))
        raise ValueError(
            f"the broker URL has options that mean nothing here: {names}. Known with rediss://: "
            f"{', '.join(sorted(TLS_OPTIONS))}"
        )
    return Address(**options, tls=_tls_context(tls_options) if secure else None)


def _tls_context(options: dict[str, Any]) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=options.get("ssl_ca_certs"))
    if options.get("ssl_certfile"):
        context.load_cert_chain(options["ssl_certfile"], options.get("ssl_keyfile"))
    requirement = str(options.get("ssl_cert_reqs", "required"))
    if requirement not in ("none", "optional", "required"):
        raise ValueError(f"ssl_cert_reqs={requirement} is none of none, optional, required")
    if requirement == "none" or str(options.get("ssl_check_hostname", "true")).lower() in ("false", "no", "0"):
        context.check_hostname = False
    context.verify_mode = ssl.VerifyMode[f"CERT_{requirement.upper()}"]
    return context

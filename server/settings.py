"""All settings of a node, each declared once.

A setting is one field of :class:`Settings`. From its name follow the option (``--ping-s``), the environment variable
(``ROOMCAST_PING_S``) and the key in the YAML file (``ping_s``); its description and limits are what ``--help`` and the
error texts say. server/configuration.py puts the three sources together.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from functools import partial
from typing import Annotated, Any, Literal

from annotated_types import MinLen
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr

from broker import BrokerOptions
from broker.base import History
from server.api.keys import ApiKey, parse_keys
from server.policies import HistoryRule, history_of, parse_rules
from server.quantities import parse_duration, parse_size
from server.redact import redact


class SettingsError(Exception):
    """One line: which setting, its value, what is allowed."""


def _words(value: object) -> object:
    return [word.strip() for word in value.split(",") if word.strip()] if isinstance(value, str) else value


def _networks(values: tuple[str, ...]) -> tuple[str, ...]:
    for value in values:
        try:
            ipaddress.ip_network(value)
        except ValueError:
            raise ValueError(f"{value!r} is neither an address nor a network such as 10.0.0.0/8") from None
    return values


Seconds = Annotated[float, BeforeValidator(parse_duration)]
Bytes = Annotated[int, BeforeValidator(parse_size)]
Words = Annotated[tuple[str, ...], BeforeValidator(_words)]
Networks = Annotated[tuple[str, ...], BeforeValidator(_words), AfterValidator(_networks)]
Rules = Annotated[tuple[HistoryRule, ...], BeforeValidator(parse_rules)]
ApiKeys = Annotated[tuple[ApiKey, ...], BeforeValidator(parse_keys)]


NAME = r"^[A-Za-z0-9_.-]{1,64}$"
KIB, MIB = 2**10, 2**20

# A field's title is its group in --help.
serving = partial(Field, title="Serving")
brokers = partial(Field, title="Broker")
access = partial(Field, title="Access")
limits = partial(Field, title="Limits")
logging = partial(Field, title="Logs")


class Settings(BaseModel):
    """Frozen. Times are in seconds, sizes in bytes; text may carry units (``24h``, ``64KiB``).

    A field's ``title`` is its group in ``--help``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: Annotated[str, serving(description="Address to listen on; 0.0.0.0 or :: is all of them.")] = "127.0.0.1"
    port: Annotated[int, serving(description="Port to listen on; 0 takes a free one.", ge=0, le=65535)] = 8000
    dev: Annotated[bool, serving(description="To try it out: users by ?user=alice, demo page, local pages.")] = False
    workers: Annotated[
        int, serving(description="Nodes on this port, a process each; 0 is one per core.", ge=0, le=256)
    ] = 1
    metrics_port: Annotated[
        int,
        serving(description="/metrics on a port of its own, worker i on this + i; 0: on --port.", ge=0, le=65000),
    ] = 0
    node: Annotated[str | None, serving(description="Name in logs and lists; else the host's.", pattern=NAME)] = None
    trusted_proxies: Annotated[
        Networks, serving(description="Addresses or networks whose X-Forwarded-For and -Proto are believed.")
    ] = ()
    app: Annotated[
        str | None, serving(description="Your application: module:hub, or a YAML file with url entries.")
    ] = None
    drain_s: Annotated[
        Seconds, serving(description="Connections are closed over this time (s) at a shutdown.", ge=0, le=600)
    ] = 20.0
    rebalance_per_s: Annotated[
        float,
        serving(description="Above its share a node sends so many connections per second to others; 0: none.", ge=0),
    ] = 0.0

    broker: Annotated[
        str, brokers(description="memory:// (this node alone), redis://, redis+sentinel:// or redis+cluster:// URL.")
    ] = "memory://"
    broker_password_file: Annotated[
        str | None, brokers(description="Holds the broker's password; read at every connect, so it can be rotated.")
    ] = None
    prefix: Annotated[
        str, brokers(description="First part of all keys in Redis: keeps installations apart.", pattern=NAME)
    ] = "roomcast"
    heartbeat_s: Annotated[Seconds, brokers(description="Between two probes of Redis (s).", ge=0.05, le=60)] = 2.0
    lease_s: Annotated[
        Seconds, brokers(description="A node not heard of for this long (s) is dead.", ge=0.2, le=600)
    ] = 8.0
    grace_s: Annotated[Seconds, brokers(description="Who is away for less (s) was never away.", ge=0, le=600)] = 5.0
    linger_s: Annotated[
        Seconds, brokers(description="A room stays subscribed this long (s) without members.", ge=0, le=60)
    ] = 1.0

    origins: Annotated[
        Words, access(description="Browser pages allowed beside the node's own host, e.g. https://*.example.com.")
    ] = ()
    secret: Annotated[
        SecretStr | None,
        access(description="Key that signs tokens (JWT, HS256): openssl rand -hex 32. As option it shows in `ps`."),
        MinLen(32),
    ] = None
    jwks: Annotated[
        str | None, access(description="File or URL with the public keys of whoever issues tokens (JWKS).")
    ] = None
    audience: Annotated[str | None, access(description="Tokens must be made for this audience (claim aud).")] = None
    issuer: Annotated[str | None, access(description="Tokens must come from this issuer (claim iss).")] = None
    leeway_s: Annotated[
        Seconds, access(description="A token counts this long (s) after its expiry: clocks differ.", ge=0, le=300)
    ] = 30.0
    session_secret: Annotated[
        SecretStr | None,
        access(description="Key that signs your web application's session cookie (Starlette's SessionMiddleware)."),
    ] = None
    session_cookie: Annotated[str, access(description="Name of that cookie; user_id in it is the user.")] = "session"
    api_keys: Annotated[
        ApiKeys,
        access(description="Keys of the HTTP API, name:scope+scope:secret (publish, read, admin); none: no API."),
    ] = ()
    presence_broadcast: Annotated[
        Literal["all", "rooms", "none"],
        access(description="Who hears who is online: all, a room's members, none. In dev mode all, else rooms."),
    ] = Field(default_factory=lambda data: "all" if data.get("dev") else "rooms")

    ping_s: Annotated[
        Seconds, limits(description="Between two pings (s); no answer to one until the next: cut.", ge=0.1, le=300)
    ] = 10.0
    max_message_bytes: Annotated[Bytes, limits(description="Size of a client message.", ge=1024, le=16 * MIB)] = (
        64 * KIB
    )
    max_rooms: Annotated[int, limits(description="Rooms one connection may be in.", ge=1, le=100_000)] = 100
    outbound_bytes: Annotated[
        Bytes,
        limits(description="Unsent bytes of a connection; a slower reader is cut (4008).", ge=64 * KIB, le=1024 * MIB),
    ] = 256 * KIB
    requests_per_s: Annotated[float, limits(description="Requests per second and connection.", gt=0)] = 50.0
    requests_burst: Annotated[int, limits(description="Requests a connection may send at once.", ge=1)] = 100
    inbound_bytes_per_s: Annotated[Bytes, limits(description="Bytes received per second and connection.", ge=1024)] = (
        128 * KIB
    )
    inbound_bytes_burst: Annotated[Bytes, limits(description="Bytes a connection may send at once.", ge=1024)] = MIB
    reads_per_s: Annotated[
        float, limits(description="Reads of history or presence per second and connection.", gt=0)
    ] = 10.0
    reads_burst: Annotated[int, limits(description="Such reads a connection may ask for at once.", ge=1)] = 20
    raw_messages_per_s: Annotated[
        float, limits(description="Your own WebSocket endpoints: messages read per second and connection.", gt=0)
    ] = 200.0
    raw_messages_burst: Annotated[int, limits(description="Messages read there at once.", ge=1)] = 400
    raw_bytes_per_s: Annotated[
        Bytes, limits(description="Your own WebSocket endpoints: bytes read per second and connection.", ge=1024)
    ] = MIB
    raw_bytes_burst: Annotated[Bytes, limits(description="Bytes read there at once.", ge=1024)] = 4 * MIB
    large_room_members: Annotated[
        int, limits(description="A room with more connections on this node is large.", ge=1)
    ] = 1000
    large_room_messages_per_s: Annotated[
        float, limits(description="Messages of clients per second and large room; as many typing and receipts.", gt=0)
    ] = 100.0
    max_connections: Annotated[
        int, limits(description="WebSockets on this node, more get 503; 0: as the file limit allows, less 256.", ge=0)
    ] = 0
    max_connections_per_user: Annotated[
        int, limits(description="Connections of one user on this node, more are closed with 4010.", ge=1)
    ] = 100
    max_connections_per_address: Annotated[
        int, limits(description="Connections of one address on this node, more get 429; 0: any number.", ge=0)
    ] = 0
    connects_per_min: Annotated[
        float,
        limits(description="Connects of a user per minute, after max_connections_per_user at once; more: 4010.", gt=0),
    ] = 60.0
    failed_auth_per_min: Annotated[
        float, limits(description="Bad credentials of an address or for a user per minute; more: 429 for these.", gt=0)
    ] = 120.0
    api_requests_per_s: Annotated[float, limits(description="HTTP API: requests per second and key.", gt=0)] = 200.0
    api_requests_burst: Annotated[int, limits(description="HTTP API: requests a key may send at once.", ge=1)] = 400
    history: Annotated[
        Rules, limits(description="Kept per room, first match decides: chat:*=1000/24h/8MiB, game:*=none.")
    ] = (HistoryRule("*", History()),)

    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], logging(description="What is logged, from this on.")
    ] = "info"
    log_format: Annotated[
        Literal["auto", "human", "json"], logging(description="auto: human in a terminal, JSON lines otherwise.")
    ] = "auto"

    def history_of(self, room: str) -> History:
        """How much of this room's log is kept."""
        return history_of(room, self.history)

    def broker_options(self) -> BrokerOptions:
        """What a broker needs to know of all this."""
        return BrokerOptions(
            prefix=self.prefix,
            password_file=self.broker_password_file,
            heartbeat_s=self.heartbeat_s,
            lease_s=self.lease_s,
            grace_s=self.grace_s,
        )

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        for name, value in super().__repr_args__():
            yield name, redact(value) if name == "broker" else value

    def model_post_init(self, _context: Any) -> None:
        if self.lease_s < 3 * self.heartbeat_s:
            raise ValueError(f"lease_s={self.lease_s:g} must be at least three times heartbeat_s={self.heartbeat_s:g}")

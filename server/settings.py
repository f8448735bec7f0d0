"""All settings of a node: where each is declared, and how options, environment and file come together.

A setting is one field of :class:`Settings`. From its name follow the option (``--ping-s``), the environment variable
(``ROOMCAST_PING_S``) and the key in the YAML file (``ping_s``); its description and limits are what ``--help`` and the
error texts say. Options win over the environment, the environment over the file. An empty value counts as not given.
"""

from __future__ import annotations

import difflib
import ipaddress
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import yaml
from annotated_types import Ge, Le, MinLen
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError
from pydantic.fields import FieldInfo

from broker.base import History
from server.policies import HistoryRule, history_of, parse_rules
from server.quantities import parse_duration, parse_size
from server.redact import redact

PREFIX = "ROOMCAST_"
CONFIG = "ROOMCAST_CONFIG"
"""Names the YAML file; the only ROOMCAST_ variable that is no setting."""


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


class Settings(BaseModel):
    """Frozen. Times are in seconds, sizes in bytes; text may carry units (``24h``, ``64KiB``).

    A field's ``title`` is its group in ``--help``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str = Field("127.0.0.1", title="Serving", description="Address to listen on; 0.0.0.0 or :: is all of them.")
    port: int = Field(8000, ge=0, le=65535, title="Serving", description="Port to listen on; 0 takes a free one.")
    dev: bool = Field(
        False, title="Serving", description="For trying out: users by ?user=alice, demo page, pages on localhost."
    )
    node: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9_.-]{1,64}$",
        title="Serving",
        description="This node's name in logs and lists; the host's name by default.",
    )
    trusted_proxies: Networks = Field(
        (), title="Serving", description="Addresses or networks whose X-Forwarded-For and -Proto are believed."
    )
    drain_s: Seconds = Field(
        20.0, ge=0, le=600, title="Serving", description="Connections are closed over this time (s) at a shutdown."
    )

    broker: str = Field(
        "memory://", title="Broker", description="memory:// (this node alone), redis://, rediss:// or unix:// URL."
    )
    broker_password_file: str | None = Field(
        None, title="Broker", description="Holds the broker's password; read at every connect, so it can be rotated."
    )
    prefix: str = Field(
        "roomcast",
        pattern=r"^[A-Za-z0-9_.-]{1,64}$",
        title="Broker",
        description="First part of all keys in Redis: keeps installations apart.",
    )
    heartbeat_s: Seconds = Field(2.0, ge=0.05, le=60, title="Broker", description="Between two probes of Redis (s).")
    lease_s: Seconds = Field(
        8.0, ge=0.2, le=600, title="Broker", description="A node not heard of for this long (s) is dead."
    )
    grace_s: Seconds = Field(
        5.0, ge=0, le=600, title="Broker", description="A user away for less than this (s) was never away."
    )
    linger_s: Seconds = Field(
        1.0,
        ge=0,
        le=60,
        title="Broker",
        description="A room stays subscribed this long (s) without members.",
    )

    origins: Words = Field(
        (), title="Access", description="Browser pages allowed beside the node's own host, e.g. https://*.example.com."
    )
    secret: SecretStr | None = Field(
        None,
        min_length=32,
        title="Access",
        description="Key that signs tokens (JWT, HS256): openssl rand -hex 32. An option shows in `ps`.",
    )
    presence_broadcast: Literal["all", "rooms", "none"] = Field(
        default_factory=lambda data: "all" if data.get("dev") else "rooms",
        title="Access",
        description="Who hears who is online: all, only a room's members, none. All in dev mode, else rooms.",
    )

    ping_s: Seconds = Field(
        10.0, ge=0.1, le=300, title="Limits", description="Between two pings (s); no answer to one until the next: cut."
    )
    max_message_bytes: Bytes = Field(
        64 * 1024, ge=1024, le=16 * 2**20, title="Limits", description="Size of one client message."
    )
    max_rooms: int = Field(100, ge=1, le=100_000, title="Limits", description="Rooms one connection may be in.")
    outbound_bytes: Bytes = Field(
        256 * 1024,
        ge=64 * 1024,
        le=2**30,
        title="Limits",
        description="Unsent bytes a connection may owe; a slower reader is closed with 4008.",
    )
    requests_per_s: float = Field(50.0, gt=0, title="Limits", description="Requests per second and connection.")
    requests_burst: int = Field(100, ge=1, title="Limits", description="Requests a connection may send at once.")
    inbound_bytes_per_s: Bytes = Field(
        128 * 1024, ge=1024, title="Limits", description="Bytes received per second and connection."
    )
    inbound_bytes_burst: Bytes = Field(
        2**20, ge=1024, title="Limits", description="Bytes a connection may send at once."
    )
    history: Rules = Field(
        (HistoryRule("*", History()),),
        title="Limits",
        description="Kept per room, first match decides: chat:*=1000/24h/8MiB, game:*=none.",
    )

    log_level: Literal["debug", "info", "warning", "error"] = Field("info", title="Logs", description="From this on.")
    log_format: Literal["auto", "human", "json"] = Field(
        "auto", title="Logs", description="auto: human in a terminal, one JSON object per line otherwise."
    )

    def history_of(self, room: str) -> History:
        """How much of this room's log is kept."""
        return history_of(room, self.history)

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        for name, value in super().__repr_args__():
            yield name, redact(value) if name == "broker" else value

    def model_post_init(self, _context: Any) -> None:
        if self.lease_s < 3 * self.heartbeat_s:
            raise ValueError(f"lease_s={self.lease_s:g} must be at least three times heartbeat_s={self.heartbeat_s:g}")


def load_settings(options: Mapping[str, object], environ: Mapping[str, str], config: str | None = None) -> Settings:
    """Put the three sources together. ``config`` (or the variable ROOMCAST_CONFIG) names the YAML file; ``options``
    have None where nothing was given. Raises :class:`SettingsError`."""
    config = config or environ.get(CONFIG) or None
    values: dict[str, object] = {}
    said: dict[str, str] = {}  # how the user wrote the name of each setting
    for name, value in (_read_file(Path(config)) if config else {}).items():
        _take(values, said, name, value, f"{name} in {config}", Settings.model_fields)
    spellings = {PREFIX + name.upper(): name for name in Settings.model_fields}
    for variable, text in environ.items():
        if variable.startswith(PREFIX) and variable != CONFIG:
            _take(values, said, variable, text or None, variable, spellings)
    for name, value in options.items():
        if value is not None and value != "":
            values[name], said[name] = value, "--" + name.replace("_", "-")
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        raise SettingsError(_explain(error, said)) from None


def _read_file(path: Path) -> dict[str, object]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise SettingsError(f"cannot read the configuration {path}: {reason}") from None
    except yaml.YAMLError as error:
        raise SettingsError(f"{path} is no valid YAML: {' '.join(str(error).split())}") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise SettingsError(f"{path} must be a mapping of settings, such as `port: 8000`")
    return {str(name): value for name, value in content.items()}


def _take(
    values: dict[str, object], said: dict[str, str], spelling: str, value: object, label: str, known: Mapping[str, Any]
) -> None:
    """Keep one value under its setting's name; refuse a name that is none."""
    if spelling not in known:
        near = difflib.get_close_matches(spelling, known, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]}?" if near else "`roomcast serve --help` lists all settings."
        if re.search(r"_SERVICE_(HOST|PORT)|_PORT_\d+_", spelling):
            hint = "it comes from Kubernetes; set enableServiceLinks: false in the pod."
        raise SettingsError(f"{label} is not a setting: {hint}")
    name = spelling.removeprefix(PREFIX).lower()
    if value is not None:
        values[name], said[name] = value, label


def _explain(error: ValidationError, said: Mapping[str, str]) -> str:
    """The first mistake in one line: name, value, what is allowed. A secret's value is not shown."""
    first = error.errors(include_url=False)[0]
    message = first["msg"].removeprefix("Value error, ")
    if not first["loc"]:
        return message
    name = str(first["loc"][0])
    field = Settings.model_fields[name]
    label = said.get(name, name)
    if field.annotation is not None and SecretStr in get_args(field.annotation):
        return f"{label}: must be {allowed(field)}"
    value = redact(str(first["input"]))
    return f"{label}={value}: {message if first['type'] == 'value_error' else 'must be ' + allowed(field)}"


def allowed(field: FieldInfo) -> str:
    """The values a setting takes, in words, for --help and error texts."""
    annotation = field.annotation
    if get_origin(annotation) is Literal:
        return " or ".join(get_args(annotation))
    if annotation is bool:
        return "true or false"
    low = next((m.ge for m in field.metadata if isinstance(m, Ge)), None)
    high = next((m.le for m in field.metadata if isinstance(m, Le)), None)
    if annotation in (int, float):
        kind = "a whole number" if annotation is int else "a number"
        if low is not None and high is not None:
            return f"{kind} from {low} to {high}"
        return f"{kind} from {low} on" if low is not None else f"{kind} above 0"
    length = next((m.min_length for m in field.metadata if isinstance(m, MinLen)), None)
    if length is not None:
        return f"at least {length} characters"
    pattern = next((m.pattern for m in field.metadata if getattr(m, "pattern", None)), None)
    return "1 to 64 characters of A-Z a-z 0-9 _ . -" if pattern else "text"

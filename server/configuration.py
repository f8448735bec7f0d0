"""How options, environment and a YAML file become one :class:`server.settings.Settings`.

Options win over the environment, the environment over the file. An empty value counts as not given.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, get_args, get_origin

import yaml
from annotated_types import Ge, Le, MinLen
from pydantic import SecretStr, ValidationError
from pydantic.fields import FieldInfo

from server.api.keys import ApiKey
from server.redact import redact
from server.settings import Settings, SettingsError

PREFIX = "ROOMCAST_"
CONFIG = "ROOMCAST_CONFIG"
"""Names the YAML file; the only ROOMCAST_ variable that is no setting."""


def load_settings(options: Mapping[str, object], environ: Mapping[str, str], config: str | None = None) -> Settings:
    """Put the three sources together. ``config`` (or the variable ROOMCAST_CONFIG) names the YAML file; ``options``
    have None where nothing was given. Raises :class:`SettingsError`."""
    config = config or environ.get(CONFIG) or None
    values: dict[str, object] = {}
    said: dict[str, str] = {}  # how the user wrote the name of each setting
    for name, value in (_read_file(Path(config)) if config else {}).items():
        _take(values, said, "", name, value, f"{name} in {config}")
    for variable, text in environ.items():
        if variable.startswith(PREFIX) and variable != CONFIG:
            _take(values, said, PREFIX, variable.removeprefix(PREFIX).lower(), text or None, variable)
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


def _take(values: dict[str, object], said: dict[str, str], prefix: str, name: str, value: object, label: str) -> None:
    """Keep one value under its setting's name; refuse a name that is none. ``label`` is how the user wrote it."""
    if name not in Settings.model_fields:
        near = difflib.get_close_matches(name, Settings.model_fields, n=1, cutoff=0.5)
        hint = "`roomcast serve --help` lists all settings."
        if near:
            hint = f"did you mean {prefix + near[0].upper() if prefix else near[0]}?"
        if re.search("service_(host|port)|port_[0-9]+_", name):
            hint = "it comes from Kubernetes; set enableServiceLinks: false in the pod."
        raise SettingsError(f"{label} is not a setting: {hint}")
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
    if ApiKey in get_args(field.annotation):
        return f"{label}: {message}"
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

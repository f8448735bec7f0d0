"""Endpoints from YAML: ``url`` entries with a pattern, the functions to call, who may come, and from where. ::

url:
  pingbot:
    pattern: /pingbot
    handler: WebSocketHandler
    kwargs:
      open:       {function: pingbot.open}         # open(handler)
      on_message: {function: pingbot.on_message}   # on_message(handler, message)
      on_close:   {function: pingbot.on_close}     # on_close(handler)
      origins: [example.com, localhost]            # bare domains or whole origins; else the node's rule
      auth: true                                   # without a user: close 4001
"""

from __future__ import annotations

import importlib
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from server.handlers.connection import WebSocket
from server.handlers.lifecycle import Options, Session, converse
from server.handlers.threads import call

_KEYS = {"open", "on_message", "on_close", "origins", "auth"}


class YamlError(ValueError):
    """One line: which entry, what is wrong with it."""


def read_yaml(path: str | Path) -> list[tuple[str, Session, Options]]:
    """(pattern, session, options) of every entry. Raises :class:`YamlError`."""
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise YamlError(f"cannot read {path}: {' '.join(str(error).split())}") from None
    entries = content.get("url") if isinstance(content, dict) else None
    if not isinstance(entries, dict) or not entries:
        raise YamlError(f"{path} needs a mapping `url:` with at least one entry")
    return [_entry(f"{path}, url.{name}", entry) for name, entry in entries.items()]


def _entry(where: str, entry: Any) -> tuple[str, Session, Options]:
    if not isinstance(entry, dict) or not isinstance(entry.get("pattern"), str) or entry["pattern"][:1] != "/":
        raise YamlError(f"{where}: needs a pattern that begins with /")
    if entry.get("handler") != "WebSocketHandler":
        raise YamlError(f"{where}: the handler must be WebSocketHandler, not {entry.get('handler')!r}")
    given = entry.get("kwargs") or {}
    if not isinstance(given, dict) or set(given) - _KEYS:
        raise YamlError(f"{where}: kwargs may be {', '.join(sorted(_KEYS))}")
    origins = given.get("origins")
    if isinstance(origins, str):
        origins = [origins]
    if origins is not None and not (isinstance(origins, list) and all(isinstance(o, str) for o in origins)):
        raise YamlError(f"{where}: origins is a list such as [example.com, localhost]")
    auth = given.get("auth", False)
    if not isinstance(auth, bool):
        raise YamlError(f"{where}: auth is true or false")
    steps = {step: _function(f"{where}.{step}", given.get(step)) for step in ("open", "on_message", "on_close")}
    return entry["pattern"], _session(steps), Options(auth=auth or None, origins=origins)


def _function(where: str, given: Any) -> Callable[..., Any] | None:
    if given is None:
        return None
    name = given.get("function") if isinstance(given, Mapping) else given
    module_name, _, attribute = str(name).rpartition(".")
    if not module_name:
        raise YamlError(f"{where}: write function: module.name")
    try:
        function = getattr(importlib.import_module(module_name), attribute)
    except ImportError as error:
        raise YamlError(f"{where}: cannot import {module_name}: {error}") from None
    except AttributeError:
        raise YamlError(f"{where}: {module_name} has no {attribute}") from None
    if not callable(function):
        raise YamlError(f"{where}: {name} is no function")
    return function  # type: ignore[no-any-return]  # callable, as was just asked


def _session(steps: Mapping[str, Callable[..., Any] | None]) -> Session:
    async def run(step: str, *args: Any) -> None:
        function = steps[step]
        if function is not None:
            await call(function, *args)

    async def session(websocket: WebSocket) -> None:
        # handler.session["id"] is there whether or not a session cookie is: it names the browser, or this connection.
        websocket.scope.setdefault("session", {}).setdefault("id", secrets.token_urlsafe(16))
        await websocket.accept()
        await converse(
            websocket,
            lambda ws: run("open", ws),
            lambda ws, message: run("on_message", ws, message),
            lambda ws, code: run("on_close", ws),
        )

    return session

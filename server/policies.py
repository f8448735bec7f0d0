"""How much history which rooms keep. Pure.

As text, one rule is ``<room pattern>=<entries>/<age>/<bytes>`` with the later parts optional, or ``<pattern>=none``::

    chat:*=1000/24h/8MiB, game:*=none, *=1000/300s

In the YAML file the same is a mapping from pattern to the rest. The first rule whose pattern matches decides.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from broker.base import History
from server.names import room_matches
from server.quantities import parse_duration, parse_size

_PATTERN = re.compile(r"[A-Za-z0-9_.:@/*-]{1,128}")
MAX_ENTRIES = 100_000
"""What one room may keep at most: its log lives on one Redis and is read by one script call per page."""


class HistoryRule(NamedTuple):
    """``*`` in the pattern stands for any characters, none included."""

    pattern: str
    history: History

    def matches(self, room: str) -> bool:
        return room_matches(self.pattern, room)


def history_of(room: str, rules: Sequence[HistoryRule]) -> History:
    """What the first matching rule says; the default of :class:`History` if there is none."""
    return next((rule.history for rule in rules if rule.matches(room)), History())


def parse_rules(value: object) -> tuple[HistoryRule, ...]:
    """From the text form, a mapping, or rules. ValueError says what is wrong with which rule."""
    if isinstance(value, str):
        parts = [part.strip() for part in value.split(",") if part.strip()]
        pairs = [(pattern.strip(), limits.strip()) for pattern, _, limits in (part.partition("=") for part in parts)]
    elif isinstance(value, Mapping):
        pairs = [(str(pattern), "none" if limits is None else str(limits)) for pattern, limits in value.items()]
    elif isinstance(value, Sequence) and all(isinstance(rule, HistoryRule) for rule in value):
        return tuple(value)
    else:
        raise ValueError("history is written pattern=entries/age/bytes, e.g. chat:*=1000/24h/8MiB, game:*=none")
    return tuple(_parse_rule(pattern, limits) for pattern, limits in pairs)


def _parse_rule(pattern: str, limits: str) -> HistoryRule:
    if not _PATTERN.fullmatch(pattern):
        raise ValueError(f"{pattern!r} is no room pattern: use characters of room names and *")
    if limits == "none":
        return HistoryRule(pattern, History(max_entries=0))
    parts = [part.strip() for part in limits.split("/")]
    if not parts[0].isdecimal() or len(parts) > 3:
        raise ValueError(f"{pattern}={limits} is no history rule: write entries/age/bytes, e.g. 1000/24h/8MiB, or none")
    default = History()
    history = History(
        max_entries=int(parts[0]),
        ttl_s=parse_duration(parts[1]) if len(parts) > 1 else default.ttl_s,
        max_bytes=parse_size(parts[2]) if len(parts) > 2 else default.max_bytes,
    )
    if history.max_entries > MAX_ENTRIES or history.ttl_s <= 0 or history.max_bytes <= 0:
        raise ValueError(f"{pattern}={limits} is out of range: 0 to {MAX_ENTRIES} entries, age and bytes above 0")
    return HistoryRule(pattern, history)

"""Who may use the HTTP API: keys, each with a name and scopes.

As text one key is ``<name>:<scope>+<scope>:<secret>``; several are separated by commas or, in the YAML file, a list::

    backend:publish+read:4f0c…, ops:admin:91be…

Several keys may have one name: give the new one beside the old one, let the callers change over, take the old one away.
Retry keys and rate limits belong to the name, so nothing is lost meanwhile.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Sequence
from typing import Final, Literal, NamedTuple, get_args

from pydantic import SecretStr

Scope = Literal["publish", "read", "admin"]
SCOPES: Final[tuple[Scope, ...]] = get_args(Scope)
RULE: Final = "name:scopes:secret with scopes of publish+read+admin and 32 or more of A-Z a-z 0-9 _ - as secret"

_key = re.compile(r"([A-Za-z0-9_.-]{1,64}):([a-z+]{1,64}):([A-Za-z0-9_-]{32,256})").fullmatch


class ApiKey(NamedTuple):
    name: str
    scopes: frozenset[Scope]
    secret: SecretStr

    def allows(self, scope: Scope) -> bool:
        """``admin`` includes the others."""
        return scope in self.scopes or "admin" in self.scopes


def parse_keys(value: object) -> tuple[ApiKey, ...]:
    """From text, a list of texts, or keys. ValueError says which one is wrong, by its number: its text is secret."""
    if isinstance(value, str):
        value = [part.strip() for part in value.split(",") if part.strip()]
    if not isinstance(value, Sequence):
        raise ValueError(f"each key is {RULE}")
    keys = tuple(part if isinstance(part, ApiKey) else _parse(part, i) for i, part in enumerate(value, 1))
    if len({key.secret.get_secret_value() for key in keys}) < len(keys):
        raise ValueError("two keys have the same secret: make a new one for each with openssl rand -hex 32")
    return keys


def _parse(text: object, number: int) -> ApiKey:
    match = _key(text) if isinstance(text, str) else None
    scopes = frozenset(scope for scope in SCOPES if match is not None and scope in match[2].split("+"))
    if match is None or len(scopes) != len(match[2].split("+")):
        raise ValueError(f"key number {number} must be {RULE}")
    return ApiKey(match[1], scopes, SecretStr(match[3]))


class Keyring:
    """Finds a key in a time that tells nothing about the keys."""

    def __init__(self, keys: Sequence[ApiKey]) -> None:
        self._keys = [(_digest(key.secret.get_secret_value()), key) for key in keys]

    def find(self, presented: str) -> ApiKey | None:
        digest = _digest(presented)
        found = None
        for known, key in self._keys:  # all of them, whichever it is
            if hmac.compare_digest(known, digest):
                found = key
        return found


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()

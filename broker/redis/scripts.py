"""The Lua scripts: package data, sent by their SHA-1."""

from __future__ import annotations

from functools import cache
from hashlib import sha1
from importlib.resources import files
from typing import NamedTuple


class Script(NamedTuple):
    """One script of broker/redis/lua, whose head lists its KEYS and ARGV."""

    name: str
    source: bytes
    sha: bytes


@cache
def load_script(name: str) -> Script:
    """The script ``lua/<name>.lua``."""
    return make_script(name, (files("broker.redis") / "lua" / f"{name}.lua").read_bytes())


def make_script(name: str, source: bytes) -> Script:
    return Script(name, source, sha1(source, usedforsecurity=False).hexdigest().encode())

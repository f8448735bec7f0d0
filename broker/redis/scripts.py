"""The Lua scripts: package data, sent by their SHA-1."""

from __future__ import annotations

from functools import cache
from hashlib import sha1
from importlib.resources import files
from typing import NamedTuple

TAKE_GUARD = "KEYS[#KEYS] = nil -- broker/redis/keys.py, guard\n"


class Script(NamedTuple):
    """One script of broker/redis/lua, whose head lists its KEYS and ARGV."""

    name: str
    source: bytes
    sha: bytes


@cache
def load_script(name: str, *, sharded: bool = False) -> Script:
    """The script ``lua/<name>.lua``; ``sharded`` as it runs on a cluster."""
    return make_script(name, (files("broker.redis") / "lua" / f"{name}.lua").read_text(), sharded=sharded)


def make_script(name: str, source: str, *, sharded: bool = False) -> Script:
    """On a cluster channels belong to shards, and the last key is the guard."""
    if sharded:
        source = TAKE_GUARD + source.replace("'PUBLISH'", "'SPUBLISH'")
    code = source.encode()
    return Script(name, code, sha1(code, usedforsecurity=False).hexdigest().encode())

"""The Lua files: found as package data, documented, and exact with large offsets."""

from __future__ import annotations

import re
from hashlib import sha1
from importlib.resources import files

import pytest

from broker.base import MAX_OFFSET
from broker.redis.scripts import load_script
from tests.support.redis_server import RedisServer

OURS = ["append", "read", "tops", "announce", "nodes"]
MARKS = [60_000, 100]
"""How long marks are kept (ms), and how many of a room."""


@pytest.mark.parametrize("name", OURS)
def test_a_script_opens_with_its_keys_and_arguments(name: str) -> None:
    script = load_script(name)
    head = script.source.decode().partition("\n\n")[0]
    assert all(line.startswith("--") for line in head.splitlines())
    assert "-- KEYS " in head and "-- Reply " in head and ("-- ARGV " in head or "ARGV" not in script.source.decode())
    assert script.sha == sha1(script.source).hexdigest().encode()


def test_no_script_takes_a_key_from_its_arguments() -> None:
    for path in (files("broker.redis") / "lua").iterdir():
        for command in re.findall(r"redis\.p?call\('(\w+)', *ARGV", path.read_text()):
            assert command == "PUBLISH", f"{path.name}: a key of {command} that is not declared"


@pytest.mark.parametrize("offset", [10**15, 10**14 + 7, MAX_OFFSET - 2])
def test_offsets_are_exact_up_to_the_largest(redis_server: RedisServer, prefix: str, offset: int) -> None:
    append, read = load_script("append"), load_script("read")
    keys = [f"{prefix}:m", f"{prefix}:l", f"{prefix}:r"]
    redis_server.command("HSET", keys[0], "e", "epoch", "o", offset, "g", "tag")
    message = ["a", "channel", "payload", "tag1", "author", 10, 1000, 60_000, 60_000, 0]
    [position] = redis_server.command("EVAL", append.source, 3, *keys, "new", *MARKS, *message)
    assert position == [b"epoch", offset + 1, b"tag1"]
    mark = redis_server.command("HGET", keys[2], "author")
    assert mark.startswith(b"%d %d " % (offset + 1, offset + 1))
    epoch, top, tag, entries = redis_server.command("EVAL", read.source, 2, *keys[:2], "new", offset, 10, 1000)
    assert (epoch, int(top), tag) == (b"epoch", offset + 1, b"tag1")
    assert entries == [b"%d" % (offset + 1), b"payload", b"tag", b"tag1"]


def test_messages_of_one_call_fail_alone(redis_server: RedisServer, prefix: str) -> None:
    redis_server.command("SET", f"{prefix}:bad", "no hash")
    keys = [f"{prefix}:{kind}{room}" for room in ("r1", "bad", "r2") for kind in ("", "log:", "marks:")]
    messages = []
    for tag in ("t1", "t2", "t3"):
        messages += ["a", "channel", "payload", tag, "author", "10", "1000", "60000", "60000", "0"]
    messages += ["p", "channel", "signal"]
    replies = redis_server.command("EVAL", load_script("append").source, 9, *keys, "epoch", *MARKS, *messages)
    assert replies[0] == [b"epoch", 1, b"t1"] and replies[2] == [b"epoch", 1, b"t3"] and replies[3] == 0
    assert "WRONGTYPE" in str(replies[1])
    assert redis_server.command("EXISTS", f"{prefix}:log:bad", f"{prefix}:marks:bad") == 0


def test_a_message_is_in_the_log_whatever_becomes_of_its_authors_mark(redis_server: RedisServer, prefix: str) -> None:
    keys = [f"{prefix}:m", f"{prefix}:l", f"{prefix}:marks"]
    redis_server.command("SET", keys[2], "no hash")
    message = ["a", "channel", "payload", "t", "author", "10", "1000", "60000", "60000", "0"]
    [position] = redis_server.command("EVAL", load_script("append").source, 3, *keys, "epoch", *MARKS, *message)
    assert position == [b"epoch", 1, b"t"] and redis_server.command("XLEN", keys[1]) == 1

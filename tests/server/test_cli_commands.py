"""The commands beside ``serve``, against a real Redis and a real node: what they print, and how they end."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import jwt
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from server.cli import main
from tests.server.test_cli import ENVIRON, ROOT, roomcast
from tests.support.node import NodeServer
from tests.support.redis_server import RedisServer
from tests.support.waiting import eventually_sync


def test_a_message_published_is_a_message_tailed(redis_server: RedisServer, prefix: str) -> None:
    environ = {"ROOMCAST_BROKER": redis_server.url, "ROOMCAST_PREFIX": prefix}
    first = roomcast("publish", "chat:lobby", '{"text":"hi"}', "--json", environ=environ)
    position = json.loads(first.stdout)
    assert (first.returncode, position["room"], position["offset"]) == (0, "chat:lobby", 1)
    second = roomcast("publish", "chat:lobby", "[1, 2]", environ=environ)
    assert second.stdout == f"chat:lobby 2 (epoch {position['epoch']})\n"

    shown = roomcast("tail", "chat:lobby", "--since", "0", "--count", "2", "--json", environ=environ)
    messages = [json.loads(line) for line in shown.stdout.splitlines()]
    assert [(m["offset"], m["user_id"], m["data"]) for m in messages] == [(1, None, {"text": "hi"}), (2, None, [1, 2])]
    assert messages[0]["tag"] == position["tag"]
    plain = roomcast("tail", "chat:lobby", "--since", "1", "--count", "1", environ=environ).stdout
    assert re.fullmatch(r" +2  \d{4}-\d\d-\d\d \d\d:\d\d:\d\d  application  \[1, 2\]\n", plain)


@pytest.mark.parametrize(
    ("command", "note"),
    [
        (("history", "lobby"), "nothing is kept of lobby"),
        (("rooms",), "no room has members"),
        (("rooms", "chat:*"), "no room that matches chat:* has members"),
        (("nodes",), "no node lives with this broker and prefix"),
    ],
)
def test_where_there_is_nothing_to_show_that_is_said(
    command: tuple[str, ...], note: str, redis_server: RedisServer, prefix: str
) -> None:
    environ = {"ROOMCAST_BROKER": redis_server.url, "ROOMCAST_PREFIX": prefix}
    shown = roomcast(*command, environ=environ)
    assert (shown.returncode, shown.stdout, shown.stderr) == (0, "", f"roomcast: {note}\n")
    assert roomcast(*command, "--json", environ=environ).stderr == ""


def test_tail_follows_what_comes_over_a_lost_connection(redis_server: RedisServer, prefix: str, tmp_path: Path) -> None:
    environ = {"ROOMCAST_BROKER": redis_server.url, "ROOMCAST_PREFIX": prefix}
    roomcast("publish", "r", "0", environ=environ)
    output = tmp_path / "out"
    with output.open("wb") as out:
        tail = subprocess.Popen(
            [sys.executable, "-m", "server", "tail", "r", "--count", "3", "--json"],
            cwd=ROOT,
            env=ENVIRON | environ,
            stdout=out,
            stderr=out,
        )
    try:
        channel = f"{prefix}:{{0}}:room:r"
        eventually_sync(lambda: redis_server.subscribers(channel) == 1)
        roomcast("publish", "r", "1", environ=environ)
        eventually_sync(lambda: len(output.read_text().splitlines()) == 1)
        redis_server.command("CLIENT", "KILL", "TYPE", "pubsub")
        roomcast("publish", "r", "2", environ=environ)
        roomcast("publish", "r", "3", environ=environ)
        assert tail.wait(15) == 0
    finally:
        tail.kill()
        tail.wait(10)
    assert [json.loads(line)["data"] for line in output.read_text().splitlines()] == [1, 2, 3]


Printed = Callable[..., str]


@pytest.fixture
def printed(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    logging_as_before: None,
    redis_server: RedisServer,
    prefix: str,
) -> Printed:
    """Gives what a command printed that ended with 0, in this process."""
    own = {"ROOMCAST_BROKER": redis_server.url, "ROOMCAST_PREFIX": prefix, "COLUMNS": "120"}

    def run(*arguments: str) -> str:
        monkeypatch.setattr(os, "environ", ENVIRON | own)
        monkeypatch.setattr(sys, "argv", ["roomcast", *arguments])
        with pytest.raises(SystemExit) as end:
            main()
        output = capsys.readouterr()
        assert (end.value.code, output.err) == (0, "")
        return output.out

    return run


@pytest.mark.system
def test_what_is_printed_is_a_table_or_json_a_line(printed: Printed, redis_server: RedisServer, prefix: str) -> None:
    with NodeServer(broker=redis_server.url, prefix=prefix, node="n1") as node:
        with connect(node.ws_url + "?user=alice", proxy=None) as alice:
            alice.send('{"op":"join","id":1,"room":"chat:b"}')
            alice.send('{"op":"join","id":2,"room":"chat:lobby"}')
            alice.send('{"op":"message","id":3,"room":"chat:lobby","data":"[red]hi"}')
            while json.loads(alice.recv(10)).get("id") != 3:
                pass
            shown = json.loads(printed("nodes", "--json"))
            assert shown["node"].startswith("n1.") and {"connections", "rooms"} <= shown.keys()
            head, row = printed("nodes").splitlines()
            assert head.split() == ["node", "version", "up", "connections", "rooms"]
            assert row.split()[0] == shown["node"] and len(row.split()) == 6

            assert json.loads(printed("rooms", "chat:l*", "--json")) == {"room": "chat:lobby", "connections": 1}
            assert [line.split() for line in printed("rooms").splitlines()] == [
                ["room", "connections"],
                ["chat:b", "1"],
                ["chat:lobby", "1"],
            ]
            message = json.loads(printed("history", "chat:lobby", "--json"))
            assert (message["user_id"], message["data"]) == ("alice", "[red]hi")
            assert printed("history", "chat:lobby").endswith('  "alice"  "[red]hi"\n'), "markup is text"
            there = json.loads(printed("presence", "chat:lobby", "--json"))
            assert (there["count"], there["users"]) == (1, ["alice"])
            assert "1 here" in printed("presence", "chat:lobby")
            assert json.loads(printed("disconnect", "nobody", "--json")) == {"sent": True}
            assert printed("disconnect", "alice") == "sent to all nodes\n"
            with pytest.raises(ConnectionClosed):
                while True:
                    alice.recv(10)
            assert alice.close_code == 4004


def test_a_token_is_printed_alone_or_as_json(printed: Printed) -> None:
    secret = "s" * 32
    plain = printed("token", "7", "--secret", secret)
    within = json.loads(printed("token", "7", "--secret", secret, "--json"))["token"]
    for text in (plain, within):
        assert jwt.decode(text.strip(), secret, algorithms=["HS256"])["user_id"] == 7


@pytest.mark.parametrize("arguments", [("tail", "r"), ("presence", "--watch")])
def test_ctrl_c_ends_what_would_go_on_with_130_and_no_more_words(
    redis_server: RedisServer, prefix: str, arguments: tuple[str, ...]
) -> None:
    environ = {"ROOMCAST_BROKER": redis_server.url, "ROOMCAST_PREFIX": prefix}
    command = subprocess.Popen(
        [sys.executable, "-m", "server", *arguments],
        cwd=ROOT,
        env=ENVIRON | environ,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background job has it ignored
    )
    try:
        channel = f"{prefix}:{{0}}:room:r" if "r" in arguments else f"{prefix}:{{0}}:presence"
        eventually_sync(lambda: redis_server.subscribers(channel) == 1)
        command.send_signal(signal.SIGINT)
        _, said = command.communicate(timeout=10)
    finally:
        command.kill()
        command.wait(10)
    assert (command.returncode, said) == (130, b"")


@pytest.mark.parametrize("form", ["", "--json"])
def test_who_does_not_read_hears_no_complaint(redis_server: RedisServer, prefix: str, form: str) -> None:
    environ = {"ROOMCAST_BROKER": redis_server.url, "ROOMCAST_PREFIX": prefix}
    roomcast("publish", "r", "0", environ=environ)
    command = f"{sys.executable} -m server history r {form} | true"
    done = subprocess.run(["sh", "-c", command], cwd=ROOT, env=ENVIRON | environ, capture_output=True, text=True)
    assert done.stderr == ""

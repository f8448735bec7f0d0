"""The command line, as a user meets it: a process, its exit code, its one line."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import jwt
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from server.cli import main
from server.settings import Settings
from tests.support.node import NodeServer
from tests.support.redis_server import RedisServer, free_port
from tests.support.waiting import eventually_sync

ROOT = Path(__file__).resolve().parents[2]
ENVIRON = {name: value for name, value in os.environ.items() if not name.startswith("ROOMCAST_")}


def roomcast(*arguments: str, environ: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "server", *arguments],
        cwd=ROOT,
        env=ENVIRON | {"COLUMNS": "200", "NO_COLOR": "1"} | (environ or {}),
        capture_output=True,
        text=True,
        timeout=20,
    )


Refusal = Callable[..., str]


@pytest.fixture
def refusal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], logging_as_before: None) -> Refusal:
    """Gives the one line of a command that could not do what was asked. In this process, to be quick."""

    def run(*arguments: str, environ: dict[str, str] | None = None) -> str:
        monkeypatch.setattr(os, "environ", ENVIRON | (environ or {}))
        monkeypatch.setattr(sys, "argv", ["roomcast", *arguments])
        with pytest.raises(SystemExit) as end:
            main()
        printed = capsys.readouterr()
        assert (end.value.code, printed.out) == (2, "")
        (line,) = printed.err.splitlines()
        return line.removeprefix("roomcast: ")

    return run


def test_help_names_every_setting_with_its_group_and_its_other_spellings() -> None:
    text = roomcast("serve", "--help").stdout
    for name, field in Settings.model_fields.items():
        assert f"--{name.replace('_', '-')}" in text
        assert field.title and f"─ {field.title} ─" in text
    assert "roomcast serve --dev" in text
    assert "ROOMCAST_PING_S" in text and "(64" not in text and "(65536)" in text


def test_without_a_command_the_help_is_shown() -> None:
    result = roomcast()
    assert result.returncode == 2 and "serve" in result.stdout + result.stderr
    assert "roomcast:" not in result.stderr


@pytest.mark.parametrize(
    ("arguments", "environ", "said"),
    [
        (["serve", "--prot", "1"], {}, "No such option: --prot"),
        (["serve"], {"ROOMCAST_PROT": "1"}, "ROOMCAST_PROT is not a setting: did you mean ROOMCAST_PORT?"),
        (["serve", "--dev", "--port", "70000"], {}, "--port=70000: must be a whole number from 0 to 65535"),
        (["serve"], {}, "nobody could connect: set ROOMCAST_SECRET"),
        (["serve", "--dev", "--broker", "http://x"], {}, "no broker for 'http': use memory://, redis://"),
        (["serve", "--dev", "--host", "192.0.2.1"], {}, "192.0.2.1 is no address of this machine: set --host"),
        (["serve", "--dev", "--host", "no such host"], {}, "'no such host' is no address of this machine"),
        (["serve", "--config", "/nowhere.yaml"], {}, "cannot read the configuration /nowhere.yaml"),
        (["serve", "--dev", "--broker", "redis://h", "--broker-password-file", "/no"], {}, "cannot read the broker's"),
        (["publish", "lobby"], {}, "Missing argument 'data'. (`roomcast publish --help` lists what there is)"),
        (["rooms", "--limit", "3"], {}, "No such option: --limit (`roomcast rooms --help`"),
        (["chekc"], {}, "No such command 'chekc'. Did you mean 'check'? (`roomcast --help`"),
        (["token", "alice"], {}, "a token is signed with ROOMCAST_SECRET, the one of your nodes: set it"),
        (["token", "alice", "--room", "chat"], {"ROOMCAST_SECRET": "s" * 32}, "'chat' grants nothing"),
        (["disconnect", "--broker", "redis://h"], {}, "say whom to disconnect"),
        (["nodes", "--broker", "http://x"], {}, "no broker for 'http'"),
        (["publish", "lobby", "{oops", "--broker", "redis://h"], {}, "the message is no JSON"),
        (["publish", "lobby", "NaN", "--broker", "redis://h"], {}, "the message is no JSON"),
        (["publish", "no such room", "1"], {}, "'no such room' is no room name"),
        (["publish", "lobby", "1"], {}, "memory:// lives inside one node: name the Redis"),
        (["tail", "__x"], {}, "'__x' is no room name"),
        (["tail", "lobby", "--broker", "redis://u:hunter2@127.0.0.1:1"], {}, "cannot use the broker redis://u:***@"),
        (["nothing"], {}, "No such command 'nothing'"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    refusal: Refusal, arguments: list[str], environ: dict[str, str], said: str
) -> None:
    line = refusal(*arguments, environ=environ)
    assert line.startswith(said)
    assert "hunter2" not in line


def test_a_port_in_use_is_told_before_anything_starts(refusal: Refusal) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        line = refusal("serve", "--dev", "--port", str(port))
        assert line == f"port {port} on 127.0.0.1 is in use: stop what listens there or choose another --port"


def test_the_module_and_the_command_are_one() -> None:
    result = roomcast("serve", "--prot", "1")
    assert (result.returncode, result.stdout, len(result.stderr.splitlines())) == (2, "", 1)


def test_a_node_serves_says_where_and_leaves_when_told(tmp_path: Path) -> None:
    port = free_port()
    output = tmp_path / "out"
    with output.open("wb") as out:
        node = subprocess.Popen(
            [sys.executable, "-m", "server", "serve", "--dev", "--port", str(port)],
            cwd=ROOT,
            env=ENVIRON | {"PYTHONUNBUFFERED": "1"},
            stdout=out,
            stderr=out,
        )
    try:
        eventually_sync(lambda: node.poll() is not None or f"ws://localhost:{port}/ws?user=alice" in output.read_text())
        eventually_sync(lambda: node.poll() is not None or _listens(port))
        node.send_signal(signal.SIGINT)
        node.wait(10)
    finally:
        node.kill()
        node.wait(10)
    text = output.read_text()
    assert f"http://localhost:{port}/demo" in text
    assert "Traceback" not in text


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


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


@pytest.mark.redis
def test_a_wrong_password_is_told_and_a_password_file_heals_it(refusal: Refusal, tmp_path: Path) -> None:
    with RedisServer() as server:
        server.command("CONFIG", "SET", "requirepass", "right")
        url = f"redis://:hunter2@127.0.0.1:{server.port}"
        line = refusal("serve", "--dev", "--port", str(free_port()), "--broker", url)
        assert line.startswith(f"Redis at redis://:***@127.0.0.1:{server.port} refuses this login")
        assert "WRONGPASS" not in line and "hunter2" not in line
        assert "refuses user name or password" in refusal("publish", "r", "1", "--broker", url)

        password = tmp_path / "password"
        password.write_text("right\n")
        published = roomcast("publish", "r", "1", "--broker", url, "--broker-password-file", str(password))
        assert published.returncode == 0, published.stderr


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


def test_the_version_is_that_of_the_distribution() -> None:
    assert roomcast("--version").stdout.strip() == version("roomcast")
